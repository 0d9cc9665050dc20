"""The command line: bad input ends as one sentence, exit code 1 and nothing half-written."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

SHARD = "data/prepared/miniature/gta5/train-64x128"


@pytest.fixture
def drawn(world):
    world.run("madan", "miniature", "gta5")
    world.run("madan", "verify", "gta5/train")
    return world


def refused(world, *words, command=("prepare", "gta5/train/0")):
    said = world.run("madan", *command, expect=1).stdout
    assert said.startswith("madan: ") and said.count("\n") == 1, said
    assert all(word in said for word in words), said
    for folder in ("data/prepared", "results"):
        left = [path for path in (world.root / folder).rglob("*") if path.is_file()]
        assert not [path for path in left if "verify" not in path.parts], left


def test_an_image_that_was_cut_short_since_it_was_drawn_is_named(drawn):
    path = drawn.root / "data/miniature/gta5/images/00003.png"
    path.write_bytes(path.read_bytes()[:500])
    refused(drawn, "images/00003.png changed since", "snakemake data/verified")


@pytest.mark.parametrize("folder", ["images", "labels"])
def test_a_file_that_is_gone_since_it_was_drawn_is_noticed(drawn, folder):
    (drawn.root / "data/miniature/gta5" / folder / "00002.png").unlink()
    refused(drawn, "miniature/gta5 is out of date: 17 files", "18 were made")


def test_a_label_that_changed_since_it_was_drawn_is_named(drawn):
    path = drawn.root / "data/miniature/gta5/labels/00004.png"
    with Image.open(path) as label:
        small = label.resize((64, 32), Image.Resampling.NEAREST)
    small.save(path)
    refused(drawn, "labels/00004.png changed since")


def test_missing_folder_is_named(world):
    world.change("scale", "paper")
    said = world.run("madan", "verify", "gta5/train", expect=2).stdout
    assert "data/raw/gta5 not found" in said and "domains" in said and "Traceback" not in said


def test_without_names_what_is_drawn_is_verified(drawn):
    assert "gta5/train (gta5): fit" in drawn.run("madan", "verify").stdout


def test_missing_upstream_is_named_with_the_way_to_make_it(world):
    refused(world, "snakemake data/verified/miniature/gta5/train/certificate.json")
    said = world.run("madan", "verify", "gta5/train", expect=2).stdout
    assert "snakemake data/miniature/gta5/certificate.json" in said and said.count("\n") == 1


def test_unwritable_output_is_named(drawn):
    (drawn.root / "data/prepared").write_text("a file where a folder should be")
    said = drawn.run("madan", "prepare", "gta5/train/0", expect=1).stdout
    assert "data/prepared" in said and said.count("\n") == 1


@pytest.mark.parametrize("layout", ["bdd100k", "camvid"])
def test_another_targets_layout_is_drawn_verified_and_prepared(world, layout):
    root = f"data/miniature/{layout}"
    world.change(f"domains.{layout}", {"layout": layout, "root": root, "size": [64, 128]})
    world.change(f"miniature.images.{layout}", {"train": 3, "val": 2})
    world.run("madan", "miniature", layout)
    said = world.run("madan", "verify", layout).stdout
    assert f"{layout}/train ({layout}): fit; 3 pairs" in said
    assert f"{layout}/val ({layout}): fit; 2 pairs" in said
    world.run("madan", "prepare", f"{layout}/train/0")
    assert len(np.load(next(world.root.glob(f"data/prepared/*/{layout}/*/*/images.npy")))) == 3


def test_misspelt_key_is_named(world):
    world.change("training.segmenter.lr_rate", 1)
    refused(world, "training.segmenter.lr_rate", command=("segment", "source-gta5"))


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("segment", "poled"), "pooled"),
        (("translate", "madam"), "madan"),
        (("stylise", "madan", "gta"), "gta5"),
        (("prepare", "gta5/trian/0"), "train"),
        (("evaluate", "segmenters/pooled", "cityscape/val"), "cityscapes"),
        (("table", "mioo"), "miou"),
        (("miniature", "gta"), "gta5"),
    ],
)
def test_unknown_name_is_refused_with_the_nearest(world, command, word):
    refused(world, f"did you mean {word}?", command=command)


def test_seed_outside_the_settings_is_refused(world):
    refused(world, "7", "allowed: 0", command=("segment", "pooled", "--seed", "7"))


def test_first_seed_is_the_one_meant_when_none_is_said(world):
    world.change("seeds", [4, 5])
    refused(
        world,
        "seed4/certificate.json",
        command=("evaluate", "segmenters/pooled", "cityscapes/test"),
    )


@pytest.mark.parametrize("command", [("prepare", "gta5"), ("evaluate", "pooled", "cityscapes/val")])
def test_incomplete_address_is_a_sentence(world, command):
    refused(world, command=command)


def test_every_command_explains_itself_with_an_example(world):
    from madan.cli import app

    world.env["COLUMNS"] = "160"
    shown = [each for each in app.registered_commands if not each.hidden]
    commands = {each.name or each.callback.__name__.replace("_", "-"): each for each in shown}
    said = world.run("madan", "--help").stdout
    for name, command in commands.items():
        assert f"│ {name} " in said and f"madan {name}" in command.callback.__doc__, name
    assert [panel for panel in re.findall(r"─ ([A-Z][^─]*?) ─", said) if panel != "Options"] == [
        "Data", "Pixel level: G", "Segmenters: F", "Scores, figures, exports",
        "State of results",
    ]  # fmt: skip
    assert "madan verify gta5" in world.run("madan", "verify", "--help").stdout


@pytest.mark.parametrize(
    ("old", "new"), [("vouch", "accept"), ("check", "check-results"), ("plan", "estimate")]
)
def test_a_command_of_an_earlier_version_is_named_with_that_of_today(world, old, new):
    ended = world.run("madan", old, "results", "--code", expect=1).stdout
    assert ended == f"madan: madan {old} is now madan {new}.\n"


def test_a_disk_that_is_full_is_a_sentence_and_leaves_nothing(drawn):
    if shutil.which("mount") is None or drawn.run("id", "-u").stdout.strip() != "0":
        pytest.skip("mounting a small file system needs root")
    prepared = drawn.root / "data/prepared"
    prepared.mkdir()
    if drawn.run(
        "mount", "-t", "tmpfs", "-o", "size=64k", "small", prepared, expect=None
    ).returncode:
        pytest.skip("this machine does not let root mount a file system")
    try:
        said = drawn.run("madan", "prepare", "gta5/train/0", expect=1).stdout
        assert "No space left" in said and said.count("\n") == 1
        assert not [path for path in prepared.rglob("*") if path.is_file()]
    finally:
        drawn.run("umount", prepared)
