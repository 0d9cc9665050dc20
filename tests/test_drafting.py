"""Drafts of layouts: what is guessed of a folder reads it, once its gaps are filled in."""

import re
import sys

import damage
import encoders
import numpy as np
import pytest
from conftest import params_yaml
from PIL import Image
from ruamel.yaml import YAML

from madan import cli, config, labels
from madan.data import drafting, layouts, verify
from madan.data.layouts import LAYOUTS
from madan.errors import Refusal
from madan.miniature import writer

SIZE = (32, 64)


@pytest.fixture(scope="module")
def streets(tmp_path_factory):
    """Four images and their Cityscapes label ids, by name."""
    root = tmp_path_factory.mktemp("streets")
    writer.write("gta5", root, images={"train": 4}, size=SIZE, seed=0)
    found = {}
    for k in range(1, 5):
        with (
            Image.open(root / f"images/{k:05d}.png") as image,
            Image.open(root / f"labels/{k:05d}.png") as label,
        ):
            found[f"{k:03d}"] = np.asarray(image.convert("RGB")), np.asarray(label)
    return found


def written(root, streets, image, label, save):
    """A folder of images and masks at these paths, {k} being the number."""
    for k, (pixels, ids) in streets.items():
        for path in (root / image.format(k=k), root / label.format(k=k)):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / image.format(k=k))
        save(root / label.format(k=k), ids)
    return root


def entries(root):
    """What the draft says, as params.yaml would hold it, and the dataset of the draft."""
    said = YAML(typ="safe").load(drafting.draft(root))
    [(name, domain)] = said["scales"]["paper"]["domains"].items()
    raw = params_yaml()
    domain["size"] = [600, 1080]  # crops of training are larger than these images
    raw["layouts"] |= said.get("layouts") or {}
    raw["scales"]["paper"]["domains"][name] = domain
    return said, config.resolve(raw | {"scale": "paper"}).dataset(name)


def fit(data, split="train"):
    report = verify.verify("drafted", data, split)
    assert (report.status, report.excluded) == (verify.FIT, {})
    return report


@pytest.mark.parametrize("layout", damage.EVERY)
def test_a_draft_of_every_layout_reads_what_it_was_drafted_from(tmp_path, layout):
    splits = {} if layout == "synthia" else {"val": 2}
    data = damage.small(layout, tmp_path / "the data", train=4, **splits)
    said, drafted = entries(data.root)
    assert drafted.layout == (layout if layout in LAYOUTS else "the-data")
    for split in layouts.splits(data)[: 1 + len(splits)]:
        before = verify.verify("before", data, split)
        assert fit(drafted, split).pairs == before.pairs
        assert fit(drafted, split).shares == before.shares


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("photos/{k}.jpg", "masks/{k}.png"),
        ("all/{k}.jpg", "all/{k}.png"),
        ("{k}.jpg", "{k}.png"),
        ("run/img_{k}.png", "run/seg_{k}.png"),
        ("rgb/rgb_{k}.jpg", "classgt/classgt_{k}.png"),
        ("pictures/a/{k}_rgb.png", "truth/a/{k}_labels.png"),
        ("data/images/{k}.png", "data/labels/{k}.png"),
        ("imgs/{k}.PNG", "lbls/{k}.PNG"),
    ],
)
def test_names_are_paired_however_they_are_written(tmp_path, streets, image, label):
    root = written(tmp_path / "mine", streets, image, label,
                   lambda path, ids: Image.fromarray(ids).save(path))  # fmt: skip
    said, drafted = entries(root)
    assert drafted.own.ids == "cityscapes"
    assert len(fit(drafted).pairs) == len(layouts.items(drafted, "train")) > 1
    both = set(fit(drafted).pairs) | set(fit(drafted, "val").pairs)
    assert len(both) == len(streets)
    assert said["scales"]["paper"]["domains"]["mine"]["splits"] == {"train": 0.8, "val": 0.2}


def test_splits_of_other_names_are_mapped(tmp_path, streets):
    root = tmp_path / "mine"
    halves = [dict(list(streets.items())[half]) for half in (slice(0, 3), slice(3, 4))]
    for folder, some in zip(("training", "Validation"), halves, strict=True):
        written(root, some, f"{folder}/images/{{k}}.jpg", f"{folder}/masks/{{k}}.png",
                lambda path, ids: Image.fromarray(ids).save(path))  # fmt: skip
    said, drafted = entries(root)
    assert drafted.own.folders == {"train": "training", "val": "Validation"}
    assert drafted.own.images == "{split}/images/{name}.jpg"
    assert (len(fit(drafted).pairs), len(fit(drafted, "val").pairs)) == (3, 1)


def test_ids_of_no_release_are_listed_with_their_shares_and_left_to_be_named(tmp_path, streets):
    root = written(tmp_path / "mine", streets, "a/{k}.jpg", "b/{k}.png",
                   lambda path, ids: Image.fromarray(ids + 100).save(path))  # fmt: skip
    text = drafting.draft(root)
    assert re.search(r"#   107 \(\d[\d.]* %\), ", text)
    said = YAML(typ="safe").load(text)["layouts"]["mine"]
    assert (said["ids"], said["ignore"]) == ({}, [])
    assert "their classes are yours to name" in text


def test_colours_that_nothing_names_are_listed(tmp_path, streets):
    def save(path, ids):
        colours = labels.colour(labels.TABLES["gta5"])[ids]
        colours[:2, :2] = (1, 2, 3)
        Image.fromarray(colours).save(path)

    root = written(tmp_path / "mine", streets, "a/{k}.jpg", "b/{k}.png", save)
    text = drafting.draft(root)
    assert "(1, 2, 3) (0.195 %)" in text and "# otherwise: ignore" in text
    said, drafted = entries(root)
    assert drafted.own.colours["road"] == [(128, 64, 128)]
    lenient = drafted.own.model_copy(update={"otherwise": "ignore"})
    fit(drafted.model_copy(update={"own": lenient}))


def test_masks_of_cvat_are_named_by_its_labelmap(tmp_path, streets):
    """Segmentation masks 1.1: colours in a palette, and a list of colours."""
    palette = np.random.default_rng(0).permutation(256)[:, None] ^ [[5, 60, 200]]
    root = written(tmp_path / "mine", streets, "JPEGImages/{k}.jpg", "SegmentationClass/{k}.png",
                   lambda path, ids: encoders.png(path, palette[ids], 8, encoders.RGB))  # fmt: skip
    rows = [f"{name}:{','.join(map(str, palette[labels_id]))}::" for name, labels_id in
            (("Road", 7), ("traffic_light", 19), ("car", 26), ("kerb", 21))]  # fmt: skip
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\n" + "\n".join(rows) + "\n")
    text = drafting.draft(root)
    said = YAML(typ="safe").load(text)["layouts"]["mine"]
    assert said["colours"]["road"] == [palette[7].tolist()]
    assert said["colours"]["car"] == [palette[26].tolist()]
    assert palette[21].tolist() in said["ignore"]
    assert "named by a list of classes in the folder" in text


def test_masks_of_labelme_are_named_by_its_list_of_classes(tmp_path, streets):
    """labelme2voc: palette indices, and names from __ignore__ (-1) and _background_ (0) on."""

    def save(path, ids):
        table = np.zeros(256, int)
        table[7], table[26] = 1, 2
        encoders.png(path, table[ids], 8, encoders.PALETTE, np.random.default_rng(0).integers(
            1, 255, (256, 3)))  # fmt: skip

    root = written(
        tmp_path / "mine", streets, "JPEGImages/{k}.jpg", "SegmentationClass/{k}.png", save
    )
    (root / "class_names.txt").write_text("__ignore__\n_background_\nroad\ncar\n")
    said, drafted = entries(root)
    assert drafted.own.ids == {"road": [1], "car": [2]} and drafted.own.ignore == [0]
    fit(drafted)


def test_names_with_odd_letters_are_quoted(tmp_path, streets):
    root = written(tmp_path / 'a "b" # c\nd', streets, "x: y/{k}.jpg", "#m/{k}.png",
                   lambda path, ids: Image.fromarray(ids).save(path))  # fmt: skip
    said, drafted = entries(root)
    assert drafted.root == root and drafted.own.images == "x: y/{name}.jpg"
    fit(drafted)


@pytest.mark.parametrize("indexed", [False, True])
def test_masks_of_cvat_with_a_palette_are_read_by_colour(tmp_path, streets, indexed):
    colours = np.array([(0, 0, 0), (128, 0, 0), (0, 128, 0)])

    def save(path, ids):
        few = np.select([ids == 7, ids == 26], [1, 2], 0)
        if indexed:
            encoders.png(path, few, 8, encoders.PALETTE, colours)
        else:
            encoders.png(path, colours[few], 8, encoders.RGB)

    root = written(
        tmp_path / "mine", streets, "JPEGImages/{k}.jpg", "SegmentationClass/{k}.png", save
    )
    (root / "labelmap.txt").write_text("background:0,0,0::\nroad:128,0,0::\ncar:0,128,0::\n")
    said, drafted = entries(root)
    assert drafted.own.colours == {"road": [(128, 0, 0)], "car": [(0, 128, 0)]}
    assert drafted.own.ignore == [(0, 0, 0)]
    fit(drafted)


def test_machine_masks_of_supervisely_are_named_by_its_list(tmp_path, streets):
    """Three equal channels, and a list of them."""

    def save(path, ids):
        few = np.select([ids == 7, ids == 26], [1, 2], 0)
        encoders.png(path, np.repeat(few[:, :, None], 3, 2), 8, encoders.RGB)

    root = written(tmp_path / "mine", streets, "ds/img/{k}.jpg", "ds/masks_machine/{k}.png", save)
    (root / "obj_class_to_machine_color.json").write_text('{"road": [1, 1, 1], "car": [2, 2, 2]}')
    said, drafted = entries(root)
    assert drafted.own.ids == {"road": [1], "car": [2]} and drafted.own.ignore == [0]
    report = verify.verify("drafted", drafted, "train")
    assert report.status == verify.FIT and report.shares["road"] > 0.1


@pytest.mark.parametrize("what", ["nothing", "photos alone", "no folder"])
def test_a_folder_without_pairs_is_refused_in_one_sentence(tmp_path, streets, what):
    if what == "photos alone":
        Image.fromarray(streets["001"][0]).save(tmp_path / "1.jpg")
    root = tmp_path / "none" if what == "no folder" else tmp_path
    with pytest.raises(Refusal, match="is no folder|holds no photos and masks") as caught:
        drafting.draft(root)
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)


def test_the_command_prints_and_writes_nothing(tmp_path, streets, monkeypatch, capsys):
    root = written(tmp_path / "it's mine", streets, "a/{k}.jpg", "b/{k}.png",
                   lambda path, ids: Image.fromarray(ids).save(path))  # fmt: skip
    (tmp_path / "params.yaml").write_text("as it was")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["madan", "init", "data", "it's mine"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert not left.value.code
    said = YAML(typ="safe").load(capsys.readouterr().out)
    assert said["scales"]["paper"]["domains"]["it-s-mine"]["root"] == "it's mine"
    assert (tmp_path / "params.yaml").read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["it's mine", "params.yaml"]
    assert root.is_dir()
