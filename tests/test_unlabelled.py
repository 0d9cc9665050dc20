"""Targets without labels: from a folder of photographs to predictions, and what is refused."""

import json

import numpy as np
import pytest
from conftest import World, params_yaml, tiny
from PIL import Image

from madan import config
from madan.data import datasets, layouts, verify
from madan.data.datasets import Pictures, Verified
from madan.errors import Refusal
from madan.miniature import writer
from madan.pipeline import artefacts, checks

SIZE = (64, 128)
ALBUM = {"images": "{name}.jpg", "labels": None}
SPLIT = {"images": "{split}/{name}.jpg", "labels": "masks/{split}/{name}.png", "ids": "cityscapes"}
ROOT = "my photos"
VERIFIED = "data/verified/paper/photos/train"
PREPARED = "data/prepared/paper/photos/train-64x128/0-of-1"
ADAPTED = "results/paper/adaptations/adapted/seed0"


def settings(layout=ALBUM, splits="all") -> dict:
    """A tiny params.yaml at scale paper: from GTA5 to `photos`, photographs of one's own."""
    params = tiny(params_yaml())
    photos = {"layout": "album", "root": ROOT, "size": [*SIZE], "splits": splits}
    gta5 = {"layout": "gta5", "root": "data/raw/gta5", "size": [*SIZE], "splits": "all"}
    rows = [
        {"row": name, "setting": "single source", "run": run}
        for name, run in (("pixel", "segmenters/pixel"), ("adapted", "adaptations/adapted"))
    ]
    return params | {
        "scale": "paper",
        "scales": {"paper": {"miniature": None}},
        "layouts": {"album": layout},
        "domains": {"gta5": gta5, "photos": photos},
        "miniature": params["miniature"] | {"images": {}, "looks": {}},
        "translators": {"style": {"sources": ["gta5"], "target": "photos"}},
        "segmenters": {"pixel": {"train_on": ["style/gta5"]}},
        "adaptations": {"adapted": {"method": "adda", "start": "pixel", "target": "photos"}},
        "tables": {"miou": {"target": "photos", "rows": rows}},
        "figures": {
            "seen": {"shows": "qualitative", "images": 2},
            "domains": {"shows": "shares"},
        },
    }


def take(folder, count=8, size=(90, 160)) -> None:
    """Write so many photographs."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(folder.name))
    for k in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8))
        coarse.resize(size[::-1]).save(folder / f"{k}.jpg")


def label(root, split, count=8, size=(90, 160)) -> None:
    """Write a label of road and sky for each photograph of a split."""
    folder = root / "masks" / split
    folder.mkdir(parents=True)
    ids = np.full(size, 7, np.uint8)
    ids[: size[0] // 2] = 23
    for k in range(count):
        Image.fromarray(ids).save(folder / f"{k}.png")


def resolved(params: dict, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return config.resolve(params)


@pytest.mark.slow
def test_photographs_without_labels_are_a_target_from_verify_to_predictions(tmp_path):
    params = settings() | {"evaluation": params_yaml()["evaluation"] | {"split": "train"}}
    world = World(tmp_path, params)
    take(tmp_path / ROOT)
    writer.write("gta5", tmp_path / "data/raw/gta5", images={"train": 8}, size=SIZE, seed=0)
    said = world.run("madan", "verify", "photos").stdout
    assert "8 images kept, 0 left out; 8 of 160x90" in said and "no labels" in said
    refused = world.snakemake(expect=1)
    assert "no truth to score" in refused and "Traceback" not in refused
    assert not (tmp_path / "results/paper").exists()
    world.snakemake(f"{ADAPTED}/certificate.json")
    assert {path.name for path in (tmp_path / PREPARED).iterdir()} == {
        "images.npy", "manifest.json", "certificate.json",
    }  # fmt: skip
    manifest = json.loads((tmp_path / PREPARED / "manifest.json").read_text())
    assert "pixels" not in manifest and manifest["items"][0]["size"] == [90, 160]
    world.run("madan", "predict", ROOT, "--model", "adapted", "--out", "seen")
    assert len([*(tmp_path / "seen").rglob("*.png")]) > 8
    run = "adaptations/adapted"
    world.run("madan", "export", "predictions", run, "photos/train")
    out = tmp_path / f"results/paper/predictions/{run}/photos/train/seed0"
    for k in range(8):
        with Image.open(out / f"labelIds/{k}.png") as ids:
            assert ids.size == (160, 90)
    protocol = json.loads((out / "manifest.json").read_text())
    assert protocol["images"] == 8 and protocol["resolution"] == "90x160"
    assert "no truth to score" in world.run("madan", "status", "miou").stdout.replace("\n", " ")
    refused = world.run("madan", "evaluate", run, "photos/train", expect=1).stdout
    assert "no truth to score" in refused and "Traceback" not in refused
    for figure in ("seen", "domains"):
        world.snakemake(f"results/paper/figures/{figure}/figure.png")


# --- verify, prepare -----------------------------------------------------------------------------


def test_a_split_without_a_single_label_is_usable_as_images_alone(tmp_path, monkeypatch):
    params = resolved(settings(SPLIT, "given"), tmp_path, monkeypatch)
    photos = params.dataset("photos")
    take(photos.root / "train")
    take(photos.root / "val")
    label(photos.root, "val")
    alone = verify.verify("photos/train", photos, "train", images_alone=True)
    assert alone.status == verify.STATUS.index("fit") and len(alone.pairs) == 8
    assert [finding.kind for finding in alone.findings] == ["no labels"]
    assert all(image and not truth for image, truth in alone.pairs.values())
    assert verify.verify("photos/train", photos, "train").status == verify.UNUSABLE
    scored = verify.verify("photos/val", photos, "val", images_alone=True)
    assert "no labels" not in {finding.kind for finding in scored.findings}
    assert all(truth for _, truth in scored.pairs.values())


@pytest.mark.parametrize("there", ["masks/train/0.png", "masks/train/0.tif", "masks/train/a.json"])
def test_labels_that_are_not_as_they_should_be_are_no_absence(tmp_path, monkeypatch, there):
    photos = resolved(settings(SPLIT, "given"), tmp_path, monkeypatch).dataset("photos")
    take(photos.root / "train")
    (photos.root / there).parent.mkdir(parents=True)
    (photos.root / there).write_bytes(b"?")
    report = verify.verify("photos/train", photos, "train", images_alone=True)
    assert report.status == verify.UNUSABLE
    assert "no labels" not in {finding.kind for finding in report.findings}


def test_quick_verification_reads_headers_of_images_alone(tmp_path, monkeypatch):
    photos = resolved(settings(), tmp_path, monkeypatch).dataset("photos")
    take(photos.root)
    (photos.root / "0.jpg").write_bytes(b"?")
    report = verify.verify("photos/train", photos, "train", quick=True, images_alone=True)
    assert report.sizes == {"160x90": 7} and report.excluded == {"0": "unreadable"}


def test_a_photograph_that_changed_since_it_was_verified_is_refused(tmp_path, monkeypatch):
    photos = resolved(settings(), tmp_path, monkeypatch).dataset("photos")
    take(photos.root, count=2)
    report = verify.verify("photos/train", photos, "train", images_alone=True)
    (photos.root / "1.jpg").write_bytes((photos.root / "0.jpg").read_bytes())
    verified = Verified(report.pairs, report.excluded)
    with pytest.raises(Refusal, match=r"1\.jpg changed since it was verified"):
        datasets.prepare_images(photos, "train", 0, verified, tmp_path)


def test_prepared_images_alone_have_names_and_sizes_and_refuse_to_give_labels(
    tmp_path, monkeypatch
):
    photos = resolved(settings(), tmp_path, monkeypatch).dataset("photos")
    take(photos.root, count=3)
    report = verify.verify("photos/train", photos, "train", images_alone=True)
    out = tmp_path / "out"
    out.mkdir()
    datasets.prepare_images(photos, "train", 0, Verified(report.pairs, {}), out)
    shown = Pictures("photos", [out], listed=[out])
    assert shown.image(0).shape == (*SIZE, 3) and shown.size(2) == (90, 160)
    assert [shown.called(k) for k in range(3)] == ["0", "1", "2"]
    assert not datasets.labelled([out])
    with pytest.raises(Refusal, match="photos has no labels"):
        Pictures("photos", [out], [out])


def test_a_release_without_labels_is_found_by_its_images(tmp_path, monkeypatch):
    """The two forms of BDD100K have their images in different folders."""
    params = settings()
    bdd = {"layout": "bdd100k", "root": "bdd", "size": [*SIZE]}
    params["domains"]["photos"] = bdd
    dataset = resolved(params, tmp_path, monkeypatch).dataset("photos")
    take(tmp_path / "bdd/images/train")
    items = layouts.items(dataset, "train", images_alone=True)
    assert len(items) == 8 and all(item.image.exists() and not item.labelled for item in items)


# --- What is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "run", "key"),
    [
        ("translators", {"sources": ["photos"], "target": "gta5"}, "translators.new.sources"),
        ("segmenters", {"train_on": ["photos"]}, "segmenters.new.train_on"),
        ("segmenters", {"train_on": ["photos"], "oracle": True}, "segmenters.new.train_on"),
        (
            "adaptations",
            {"method": "feat", "train_on": ["photos"], "target": "gta5"},
            "adaptations.new.train_on",
        ),
    ],
)
def test_a_run_that_learns_from_a_domain_without_labels_is_refused_by_name(kind, run, key):
    params = settings()
    params[kind]["new"] = run
    with pytest.raises(Refusal, match=f"{key} names photos, but photos has no labels"):
        config.resolve(params)


def test_an_oracle_without_label_files_is_refused_by_name(tmp_path, monkeypatch):
    params = settings(SPLIT, "given")
    params["segmenters"]["oracle"] = {"train_on": ["photos"], "oracle": True}
    found = resolved(params, tmp_path, monkeypatch)
    take(tmp_path / ROOT / "train")
    with pytest.raises(Refusal, match="segmenters/oracle learns from the labels of photos/train"):
        checks.check(artefacts.Segmenter("oracle"), found)


@pytest.mark.parametrize("address", ["tables/miou", "scores/segmenters/pixel/photos/val"])
def test_a_score_on_a_split_without_labels_is_refused_until_it_has_labels(
    tmp_path, monkeypatch, address
):
    params = settings(SPLIT, "given")
    params["evaluation"]["split"] = "val"
    found = resolved(params, tmp_path, monkeypatch)
    take(tmp_path / ROOT / "train")
    take(tmp_path / ROOT / "val")
    artefact = artefacts.parse(address)
    with pytest.raises(Refusal, match="photos/val, which has no labels: there is no truth"):
        checks.check(artefact, found)
    checks.check(artefacts.Predictions("segmenters/pixel", "photos", "val"), found)
    label(tmp_path / ROOT, "val")
    checks._one_sided.cache_clear()
    checks.check(artefact, found)


@pytest.mark.parametrize("word", ["ids", "colours", "ignore", "otherwise", "regions"])
def test_a_layout_without_labels_says_nothing_of_label_values(word):
    values = {
        "ids": "cityscapes", "colours": {"road": [[0, 0, 0]]}, "ignore": [255],
        "otherwise": "ignore", "regions": [[0, 0, 0.5, 0.5]],
    }  # fmt: skip
    with pytest.raises(Refusal, match=f"`labels: null` and also {word}"):
        config.resolve(settings(ALBUM | {word: values[word]}))
