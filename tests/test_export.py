"""Exports: what is written reads back as its source, and the official script scores it as we do."""

import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import trainId2label
from conftest import dataset, tiny
from PIL import Image
from ruamel.yaml import YAML
from torch import nn

from madan import config, outputs
from madan.config import schema
from madan.config.schema import Export
from madan.data import datasets, layouts, rasters, verify
from madan.data.datasets import Pictures
from madan.errors import Refusal
from madan.evaluation import evaluate, export, metrics
from madan.evaluation.export import Member
from madan.labels import CLASSES, IGNORE, PALETTE
from madan.miniature import writer
from madan.models.generator import Generator
from madan.pipeline import checks
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph

TILES = Export(tile=(40, 64), overlap=16)
STORY = {
    "run": "madan", "source": "gta5", "target": "cityscapes", "seed": 0, "scale": "paper",
    "translator": {"sad": True}, "settings": "5e771465", "code": "c0de",
}  # fmt: skip


class Inverse(nn.Module):
    def forward(self, x):
        return -x


class Blocks(nn.Module):
    """An F with something to say of every image: a fixed random look at blocks of 8 pixels."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("weight", torch.randn(len(CLASSES), 3, 8, 8, generator=generator))

    def forward(self, x):
        assert not self.training
        return F.interpolate(F.conv2d(x, self.weight, stride=8), size=x.shape[2:])


def member(name, layout, root, **more):
    data = dataset(layout, root, **more)
    report = verify.verify(f"{name}/train", data, "train")
    return Member(name, data, datasets.Verified(report.pairs, report.excluded))


def drawn(tmp_path, layout="gta5", size=(61, 95), count=3, form=None, **more):
    root = tmp_path / layout
    writer.write(layout, root, images={"train": count}, size=size, seed=3, form=form)
    return member(layout, layout, root, **more)


def release(members, out, generator=None, story=STORY):
    out.mkdir()
    targets = {"cityscapes": dataset("cityscapes", out)}
    export.release(generator or Inverse(), members, targets, out, "fp32", TILES, story)
    return json.loads((out / "manifest.json").read_text())


def pairs(data):
    meaning, read = layouts.meaning(data, "train"), {}
    for item in layouts.items(data, "train"):
        read[item.name] = datasets.read(item, meaning)
    return read


def snippet(out):
    """The datasets that a release's README says to write into params.yaml."""
    [text] = re.findall(r"```yaml\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    said = YAML(typ="safe").load(text.replace("FOLDER", str(out)))
    own = {name: schema.Layout(**layout) for name, layout in said.get("layouts", {}).items()}
    domains = {name: schema.Domain(**domain) for name, domain in said["domains"].items()}
    return {
        name: schema.Dataset(own=own.get(domain.layout), **domain.model_dump(exclude={"union"}))
        for name, domain in domains.items()
    }


def has_same(made, source):
    """Whether images are the inverse of the source's, and all else the same."""
    assert list(made) == list(source)
    for name, pair in made.items():
        assert np.array_equal(pair.image, 255 - source[name].image)
        assert np.array_equal(pair.truth, source[name].truth)
        assert pair.digests[1] == source[name].digests[1]


PARSED = layouts.LAYOUTS["synthia"].forms[1]


@pytest.mark.parametrize("size", [(61, 95), (40, 64), (33, 130)])
@pytest.mark.parametrize(
    ("layout", "form"),
    [("gta5", None), ("synthia", None), ("synthia", PARSED), ("cityscapes", None)],
)
def test_release_reads_back_as_its_source_with_other_images(tmp_path, layout, form, size):
    source = drawn(tmp_path, layout, size, form=form)
    release([source], tmp_path / "out")
    has_same(pairs(source.dataset.model_copy(update={"root": tmp_path / "out"})),
             pairs(source.dataset))  # fmt: skip
    [(name, said)] = snippet(tmp_path / "out").items()
    assert name == f"madan-{layout}" and said.layout == layout
    has_same(pairs(said), pairs(source.dataset))


@pytest.mark.parametrize("form", layouts.LAYOUTS["bdd100k"].forms)
def test_jpegs_become_pngs_that_the_readmes_own_layout_reads(tmp_path, form):
    source = drawn(tmp_path, "bdd100k", form=form)
    release([source], tmp_path / "out")
    images = [path for path in (tmp_path / "out" / "images").rglob("*") if path.is_file()]
    assert {path.suffix for path in images} == {".png"}
    [said] = snippet(tmp_path / "out").values()
    has_same(pairs(said), pairs(source.dataset))


def test_dataset_of_ones_own_reads_back_with_its_own_ids(tmp_path):
    source = drawn(tmp_path, "gta5", count=2)
    colours = {"road": [(128, 64, 128)], "sky": [(70, 130, 180)]}
    own = schema.Layout(
        images="pictures/{split}/{name}.bmp", labels="truth/{split}/{name}.png",
        folders={"train": "training"}, colours=colours, ignore=[(0, 0, 0)],
    )  # fmt: skip
    root = tmp_path / "own"
    for folder in ("pictures", "truth"):
        (root / folder / "training").mkdir(parents=True)
    for name, pair in pairs(source.dataset).items():
        Image.fromarray(pair.image).save(root / f"pictures/training/{name}.bmp")
        road = np.where(pair.truth[..., None] == 0, PALETTE[0], 0).astype(np.uint8)
        Image.fromarray(road).save(root / f"truth/training/{name}.png")
    mine = member("own", "own", root, own=own)
    release([mine], tmp_path / "out")
    assert (tmp_path / "out/pictures/training/00001.png").exists()
    [said] = snippet(tmp_path / "out").values()
    has_same(pairs(said), pairs(mine.dataset))
    assert "Terms: not known" in (tmp_path / "out/README.md").read_text()


def test_a_layout_of_ones_own_states_its_source_and_licence_and_keeps_text_before_names(tmp_path):
    source = drawn(tmp_path, "gta5", count=2)
    own = schema.Layout(
        images="run/img_{name}.jpg", labels="run/seg_{name}.png", ids="gta5",
        regions=[(0.8, 0, 1, 1)], source="https://example.org/streets", licence="CC BY 4.0",
    )  # fmt: skip
    root = tmp_path / "own"
    (root / "run/deep").mkdir(parents=True)
    for name, pair in pairs(source.dataset).items():
        Image.fromarray(pair.image).save(root / f"run/deep/img_{name}.jpg")
        label = layouts.item(source.dataset, "train", name).label
        (root / f"run/deep/seg_{name}.png").write_bytes(label.read_bytes())
    mine = member("own", "own", root, own=own)
    manifest = release([mine], tmp_path / "out")
    said = manifest["members"]["own"]
    assert (said["source"], said["licence"]) == ("https://example.org/streets", "CC BY 4.0")
    assert list(said["images"]) == ["deep/00001", "deep/00002"]
    assert (tmp_path / "out/run/deep/img_00001.png").exists()
    readme = (tmp_path / "out/README.md").read_text()
    assert "https://example.org/streets. Terms: CC BY 4.0." in readme
    [read] = snippet(tmp_path / "out").values()
    assert (read.own.source, read.own.regions) == (own.source, own.regions)
    has_same(pairs(read), pairs(mine.dataset))


@pytest.mark.parametrize("turn", [5, 6, 7, 8])
def test_a_label_of_unturned_pixels_has_its_image_beside_it(tmp_path, turn):
    source = drawn(tmp_path, "cityscapes", count=1)
    [item] = layouts.items(source.dataset, "train")
    with Image.open(item.image) as image:
        image.load()
    exif = Image.Exif()
    exif[0x0112] = turn
    image.save(item.image, exif=exif)
    turned = member("cityscapes", "cityscapes", source.dataset.root)
    [before] = pairs(turned.dataset).values()
    release([turned], tmp_path / "out")
    [said] = snippet(tmp_path / "out").values()
    [after] = pairs(said).values()
    assert np.array_equal(255 - rasters.upright(after.image, turn), before.image)
    assert np.array_equal(rasters.upright(after.truth, turn), before.truth)


def test_image_that_would_take_the_name_of_its_label_is_refused(tmp_path):
    own = schema.Layout(images="{name}.jpg", labels="{name}.png", ids="gta5")
    for suffix, mode in ((".jpg", "RGB"), (".png", "L")):
        Image.new(mode, (9, 9), 7 if mode == "L" else (1, 2, 3)).save(tmp_path / f"a{suffix}")
    data = dataset("own", tmp_path, own=own)
    mine = Member("own", data, datasets.Verified({"a": ("x", "y")}, {}))
    with pytest.raises(Refusal, match="layouts.own has images and labels in one folder"):
        release([mine], tmp_path / "out")


def test_labels_are_copies_and_the_list_of_splits_comes_along(tmp_path):
    source = drawn(tmp_path)
    release([source], tmp_path / "out")
    for path in [*(tmp_path / "gta5/labels").iterdir(), tmp_path / "gta5/split.mat"]:
        copy = tmp_path / "out" / path.relative_to(tmp_path / "gta5")
        assert copy.read_bytes() == path.read_bytes()
        assert not copy.samefile(path)


def test_members_of_a_union_have_a_folder_each(tmp_path):
    both = [drawn(tmp_path, "gta5"), drawn(tmp_path, "synthia", count=2)]
    manifest = release(both, tmp_path / "out", story=STORY | {"source": "both"})
    found = snippet(tmp_path / "out")
    for one in both:
        has_same(pairs(found[f"madan-{one.name}"]), pairs(one.dataset))
    assert {name: len(m["images"]) for name, m in manifest["members"].items()} == {
        "gta5": 3, "synthia": 2
    }  # fmt: skip
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "gta5", "synthia", "README.md", "manifest.json", "SHA256SUMS"
    }  # fmt: skip


def test_sums_are_those_of_coreutils_and_name_every_file(tmp_path):
    out = tmp_path / "out"
    release([drawn(tmp_path)], out)
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(command, cwd=out, capture_output=True).returncode == 0
    named = {line.split("  ")[1] for line in (out / "SHA256SUMS").read_text().splitlines()}
    there = {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()}
    assert named == there - {"SHA256SUMS"}
    with (out / "images/00002.png").open("ab") as file:
        file.write(b"x")
    assert subprocess.run(command, cwd=out, capture_output=True).returncode == 1


def test_manifest_tells_every_image_and_how_it_was_made(tmp_path):
    source = drawn(tmp_path, exclude={"00002": "a cat walks by"})
    manifest = release([source], tmp_path / "out")
    assert STORY.items() <= manifest.items()
    said = manifest["members"]["gta5"]
    assert said["excluded"] == {"00002": "a cat walks by"}
    assert list(said["images"]) == ["00001", "00003"]
    sums = (tmp_path / "out/SHA256SUMS").read_text()
    for name, image in said["images"].items():
        assert (image["source"], image["label"]) == source.verified.pairs[name]
        assert image["size"] == [61, 95]
        assert re.search(rf"^{image['stylised']}.*  images/{name}.png$", sums, re.MULTILINE)
    assert not (tmp_path / "out/images/00002.png").exists()


@pytest.mark.parametrize("layout", ["gta5", "synthia", "cityscapes", "bdd100k", "camvid"])
def test_readme_names_provenance_terms_and_exclusions(tmp_path, layout):
    source = drawn(tmp_path, layout)
    name = next(iter(source.verified.pairs))
    source = drawn(tmp_path, layout, exclude={name: "a cat walks by"})
    release([source], tmp_path / "out", story=STORY | {"source": layout})
    text = (tmp_path / "out/README.md").read_text()
    known = layouts.LAYOUTS
    for said in (
        known[layout].licence, known[layout].source, known["cityscapes"].licence,
        f"# {layout} in the style of cityscapes, by madan", f"- {layout}/{name}: a cat walks by",
        "2 images of the train split", "| settings | 5e771465 |", "| code | c0de |",
    ):  # fmt: skip
        assert said in text
    assert "miniature" not in text
    assert str(tmp_path) not in text + (tmp_path / "out/manifest.json").read_text()


def test_readme_of_the_miniature_says_that_it_is_drawn(tmp_path):
    release([drawn(tmp_path)._replace(drawn=True)], tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert "drawn miniature world" in text and "Nothing." in text


def test_same_inputs_give_the_same_bytes(tmp_path):
    source = drawn(tmp_path)
    release([source], tmp_path / "out")
    release([source], tmp_path / "again")
    for path in (tmp_path / "out").rglob("*.*"):
        again = tmp_path / "again" / path.relative_to(tmp_path / "out")
        assert path.read_bytes() == again.read_bytes()


@pytest.mark.parametrize("side", ["images", "labels"])
def test_files_that_changed_since_they_were_verified_are_refused(tmp_path, side):
    source = drawn(tmp_path)
    path = tmp_path / "gta5" / side / "00002.png"
    shutil.copy(tmp_path / "gta5" / side / "00003.png", path)
    with pytest.raises(Refusal, match=f"{path}.*changed since.*madan verify gta5/train"):
        release([source], tmp_path / "out")


def test_generator_sees_native_sizes_in_evaluation_mode(tmp_path):
    seen = []

    class Watch(Inverse):
        def forward(self, x):
            seen.append((self.training, *x.shape[2:]))
            return super().forward(x)

    release([drawn(tmp_path, size=(33, 76), count=1)], tmp_path / "out", Watch().train())
    assert seen == [(False, 33, 76)]
    seen.clear()
    release([drawn(tmp_path, size=(61, 95), count=1)], tmp_path / "tiles", Watch().train())
    assert len(seen) == 4 and all(h * w <= 40 * 64 for _, h, w in seen)


@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)])
def test_png_keeps_every_value_and_the_order_of_colours(tmp_path, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    (tmp_path / "a.png").write_bytes(export.png(pixels))
    with Image.open(tmp_path / "a.png") as read:
        assert read.mode == ("RGB" if len(shape) == 3 else "L")
        assert np.array_equal(np.asarray(read), pixels)


@pytest.fixture
def predicted(tmp_path):
    """A drawn Cityscapes val split, prepared at less than native size, and its predictions."""
    writer.write("cityscapes", tmp_path / "raw", images={"val": 5}, size=(61, 95), seed=0)
    data = dataset("cityscapes", tmp_path / "raw", size=(32, 48))
    report = verify.verify("cityscapes/val", data, "val")
    shard = tmp_path / "shard"
    shard.mkdir()
    datasets.prepare(data, "val", 0, datasets.Verified(report.pairs, report.excluded), shard)
    pictures = Pictures("cityscapes", [shard], [shard])
    out = tmp_path / "predictions"
    out.mkdir()
    protocol = {"run": "segmenters/oracle", "step": 7}
    export.predictions(Blocks().train(), pictures, 2, "fp32", out, protocol)
    return data, pictures, out


def test_official_script_scores_exported_predictions_as_we_do(predicted, monkeypatch):
    data, pictures, out = predicted
    ours = metrics.iou(evaluate.evaluate(Blocks(), pictures, 2, "fp32"))
    truths = [str(item.label) for item in layouts.items(data, "val")]
    # Its scores of instances need a function that numpy no longer has.
    said = {
        "evalInstLevelScore": False, "JSONOutput": False, "quiet": True,
        "predictionPath": str(out / "labelIds"), "predictionWalk": None,
    }  # fmt: skip
    for name, value in said.items():
        monkeypatch.setattr(official.args, name, value)
    found = [official.getPrediction(official.args, truth) for truth in truths]
    theirs = official.evaluateImgLists(found, truths, official.args)["classScores"]
    theirs = np.array([theirs[trainId2label[k].name] for k in range(len(CLASSES))])
    assert np.isfinite(theirs).sum() > 10 and 0 < np.nanmean(theirs) < 1
    np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-9)


def test_predictions_have_names_and_sizes_of_their_labels_and_a_manifest(predicted):
    data, _, out = predicted
    manifest = json.loads((out / "manifest.json").read_text())
    assert {"run": "segmenters/oracle", "step": 7}.items() <= manifest.items()
    names = [item.name for item in layouts.items(data, "val")]
    assert list(manifest["files"]) == names
    for name in names:
        ids = cv2.imread(str(out / f"labelIds/{name}.png"), cv2.IMREAD_UNCHANGED)
        assert ids.shape == (61, 95) and manifest["files"][name]["size"] == [61, 95]
        with Image.open(out / f"overlay/{name}.png") as shown:
            assert shown.size == (48, 32)
    command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
    assert subprocess.run(command, cwd=out, capture_output=True).returncode == 0
    outputs.require_own(out, [])


def test_overlay_shows_image_and_class_and_leaves_the_ignored_alone():
    image = np.full((9, 30, 3), (100, 200, 255), np.uint8)
    ids = np.array([0] * 10 + [13] * 10 + [IGNORE] * 10, np.uint8)[None].repeat(9, 0)
    shown = export.overlay(image, ids)
    assert (shown[:, :10] == (114, 132, 191)).all()
    assert (shown[:, 11:20] == (50, 100, 198)).all()
    assert (shown[:, 20:] == (100, 200, 255)).all()
    assert (shown[:, 10] == shown[0, 10]).all() and shown[0, 10].tolist() in ([0] * 3, [255] * 3)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 1), (900, 60), (3000, 2000)])
def test_overlay_of_any_size_has_thin_contours(size):
    ids = np.zeros(size, np.uint8)
    ids[size[0] // 2 :] = 13
    edges = export.contours(ids, max(1, round(min(size) / 400)))
    assert edges.shape == size and edges.any() == (size[0] > 1)
    assert edges.any(1).sum() <= 1 + min(size) / 300
    assert export.overlay(np.zeros((*size, 3), np.uint8), ids).shape == (*size, 3)


def test_tiles_of_a_release_show_what_the_whole_image_shows(tmp_path, capsys):
    torch.manual_seed(0)
    net = Generator(
        ngf=6, blocks=2, end_kernel=5, upsample="nearest", dropout=False, colour=True
    ).eval()
    torch.nn.init.normal_(net.model[-1].weight, std=0.2)
    source = drawn(tmp_path, size=(96, 160), count=1)
    release([source], tmp_path / "out", net)
    assert "images of 96x160 pixels have more than a tile of 40x64" in capsys.readouterr().out
    [name] = source.verified.pairs
    image, _ = datasets.read_image(layouts.item(source.dataset, "train", name).image)
    whole = export.stylised(net, image, "fp32", TILES.model_copy(update={"tile": (200, 200)}))
    tiled, _ = datasets.read_image(tmp_path / f"out/images/{name}.png")
    assert np.abs(whole.astype(int) - tiled).max() <= 1 and whole.std() > 20


def test_a_release_is_of_native_size_whatever_height_the_generator_sees(tmp_path):
    seen = []

    class Watch(Inverse):
        def forward(self, x):
            seen.append(tuple(x.shape[2:]))
            return super().forward(x)

    source = drawn(tmp_path, size=(61, 95), count=1)
    (tmp_path / "out").mkdir()
    tiles = TILES.model_copy(update={"height": 30})
    target = dataset("cityscapes", tmp_path / "out")
    export.release(
        Watch(), [source], {"cityscapes": target}, tmp_path / "out", "fp32", tiles, STORY
    )
    assert seen == [(30, 47)]
    with Image.open(next((tmp_path / "out/images").iterdir())) as image:
        assert image.size == (95, 61)


@pytest.fixture
def graph(raw):
    return Graph(config.resolve(tiny(raw)))


def test_a_release_is_made_from_its_generator_and_verified_raw_data(graph):
    both = parse("releases/cyclegan-combined/both")
    assert graph.inputs(both) == [
        parse("translators/cyclegan-combined"),
        parse("verified/gta5/train"),
        parse("verified/synthia/train"),
    ]
    on = "segmenters/pooled/cityscapes/val"
    assert graph.inputs(parse(f"predictions/{on}")) == graph.inputs(parse(f"scores/{on}"))
    assert not {artefact.kind for artefact in graph.everything()} & {"releases", "predictions"}


def test_tiles_decide_releases_alone(raw, graph):
    raw["export"]["overlap"] = 8
    other = Graph(config.resolve(raw))
    for kind, same in (("releases", False), ("stylised", True)):
        artefact = parse(f"{kind}/cyclegan-gta5/gta5")
        assert (graph.settings(artefact) == other.settings(artefact)) == same


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("releases", "madan/both", "both.*allowed: gta5, synthia"),
        ("releases", "nobody/gta5", "nobody, which is unknown"),
        ("releases", "madan", "write releases/TRANSLATOR/SOURCE"),
        ("predictions", "translators/shared/cityscapes/val", "shared has no task"),
        ("predictions", "segmenters/pooled/both-val", "both"),
    ],
)
def test_exports_of_what_is_not_there_are_refused(graph, kind, name, said):
    with pytest.raises(Refusal, match=said):
        checks.check(parse(f"{kind}/{name}"), graph.params)


def test_tiles_that_are_mostly_overlap_are_refused(raw):
    raw["export"]["overlap"] = 33
    with pytest.raises(Refusal, match="export.overlap is 33.*half of both sides.*64x128"):
        config.resolve(raw)


@pytest.mark.slow
def test_snakemake_makes_a_release_and_predictions_by_name(world):
    made = "results/miniature/releases/cyclegan-combined/both/seed0"
    seen = "results/miniature/predictions/segmenters/source-gta5/cityscapes/test/seed0"
    world.snakemake(f"{made}/certificate.json", f"{seen}/certificate.json")
    world.run("sh", "-c", f"cd {made} && sha256sum --check --strict SHA256SUMS")
    both = [(world.root / made / name).read_bytes() for name in ("SHA256SUMS", "certificate.json")]
    said = world.run("madan", "export", "stylised", "cyclegan-combined", "both").stdout
    assert f"written: {made}" in said
    assert both == [
        (world.root / made / name).read_bytes() for name in ("SHA256SUMS", "certificate.json")
    ]
    for kind in ("labelIds", "overlay"):
        assert len(list((world.root / seen / kind).rglob("*.png"))) == 8
    assert "Nothing to be done" in world.snakemake(
        f"{made}/certificate.json", f"{seen}/certificate.json"
    )
