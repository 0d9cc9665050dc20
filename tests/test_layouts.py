"""Layouts: which pairs a dataset holds, in which split they are, and what their ids mean."""

import contextlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from conftest import PROJECT, dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from ruamel.yaml import YAML
from scipy.io import savemat

from madan import config, labels
from madan.config.data_settings import Layout
from madan.data import datasets, layouts, masks, verify
from madan.data.layouts import LAYOUTS, UNKNOWN
from madan.errors import Refusal
from madan.miniature import world, writer

SIZE = (32, 64)
FORMS = [(name, k) for name, layout in LAYOUTS.items() for k in range(len(layout.forms))]
BY_FOLDER = ["cityscapes", "bdd100k", "camvid"]
MINE = Layout(
    images="photos/{split}/{name}.jpg",
    labels="masks/{split}/{name}.png",
    ids={"road": [0], "person": [7, 8]},
    ignore=[255],
)


def touch(root: Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def touch_gta5(root: Path, *names: str) -> None:
    touch(root, *(f"{folder}/{name}.png" for name in names for folder in ("images", "labels")))


def names(data, split: str = "train") -> list[str]:
    return [item.name for item in layouts.items(data, split)]


@contextlib.contextmanager
def refused(match):
    with pytest.raises(Refusal, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


# --- Where pairs lie ---------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "k"), FORMS)
def test_every_form_of_a_layout_reads_back_as_it_was_drawn(tmp_path, monkeypatch, layout, k):
    drawn, draw = [], world.draw

    def keep(*words, **more):
        drawn.append(draw(*words, **more))
        return drawn[-1]

    monkeypatch.setattr(world, "draw", keep)
    images = {"train": 3} if layout == "synthia" else {"train": 3, "val": 4}
    form = LAYOUTS[layout].forms[k]
    writer.write(layout, tmp_path, images=images, size=SIZE, seed=0, form=form)
    data = dataset(layout, tmp_path)
    assert layouts.splits(data)[: len(images)] == list(images)
    for split, count in images.items():
        expected = {writer.NAMES[layout](split, k, images): drawn.pop(0) for k in range(count)}
        found = layouts.items(data, split)
        assert [item.name for item in found] == sorted(expected)
        for item in found:
            assert item == layouts.item(data, split, item.name)
            image, truth, _ = datasets.read(item, layouts.meaning(data, split))
            shown, train_ids = expected[item.name]
            known = np.isin(train_ids, labels.TABLES[layout])
            assert np.array_equal(truth, np.where(known, train_ids, labels.IGNORE))
            assert len(np.unique(truth)) > 3
            if item.image.suffix == ".png":
                assert np.array_equal(image, shown)
            else:
                assert (
                    abs(image.astype(int) - shown).mean() < 8
                )  # The evening's grain costs JPEG the most.
    assert not drawn


def test_sixteen_bit_labels_are_read_where_synthia_has_both_kinds(tmp_path):
    form = LAYOUTS["synthia"].forms[1]
    writer.write("synthia", tmp_path, images={"train": 1}, size=SIZE, seed=0, form=form)
    assert layouts.form(dataset("synthia", tmp_path), "train").values == "ids"
    (tmp_path / "GT/LABELS").mkdir()
    assert layouts.form(dataset("synthia", tmp_path), "train").values == "sixteen bits"


def test_names_may_have_spaces_and_letters_of_any_script(tmp_path):
    wild = ["a b/c d", "naïve café", "ёлка", "街道 1", "x'y", "100%", "$HOME", "[1]*?"]
    touch(tmp_path, *(f"photos/train/{n}.jpg" for n in wild), "masks/train/a b/c d.png")
    data = dataset("mine", tmp_path, own=MINE)
    assert names(data) == sorted(wild)
    both = [item for item in layouts.items(data, "train") if item.label.exists()]
    assert [item.name for item in both] == ["a b/c d"]
    assert all(item.image.is_file() for item in layouts.items(data, "train"))


def test_a_name_on_either_side_is_an_item(tmp_path):
    touch(tmp_path, "photos/train/left.jpg", "photos/train/both.jpg")
    touch(tmp_path, "masks/train/both.png", "masks/train/right.png")
    found = layouts.items(dataset("mine", tmp_path, own=MINE), "train")
    there = {item.name: (item.image.exists(), item.label.exists()) for item in found}
    assert there == {"both": (True, True), "left": (True, False), "right": (False, True)}


def test_hidden_files_are_not_seen(tmp_path):
    touch_gta5(tmp_path, "00001", "._00002", ".hidden/00003")
    assert names(dataset("gta5", tmp_path, splits="all")) == ["00001"]


def test_other_files_of_a_release_are_not_seen(tmp_path):
    writer.write("cityscapes", tmp_path, images={"train": 1}, size=SIZE, seed=0)
    [item] = layouts.items(dataset("cityscapes", tmp_path), "train")
    for kind in ("color", "instanceIds", "labelTrainIds"):
        touch(item.label.parent, item.label.name.replace("labelIds", kind))
    assert len(layouts.items(dataset("cityscapes", tmp_path), "train")) == 1


def test_links_to_roots_folders_and_files_are_followed(tmp_path):
    real = tmp_path / "real"
    touch_gta5(real, "00001", "00002")
    data = tmp_path / "data"
    data.mkdir()
    (data / "labels").symlink_to(real / "labels")
    (data / "images").mkdir()
    (data / "images/00001.png").symlink_to("../../real/images/00001.png")
    (data / "images/deeper").symlink_to(real / "images")
    (tmp_path / "link").symlink_to(data)
    expected = ["00001", "00002", "deeper/00001", "deeper/00002"]
    assert names(dataset("gta5", tmp_path / "link", splits="all")) == expected


def test_a_link_that_leads_nowhere_is_listed_with_no_bytes(tmp_path):
    touch_gta5(tmp_path, "00001")
    (tmp_path / "images/00002.png").symlink_to("gone.png")
    (tmp_path / "images/00003.png").symlink_to("00003.png")
    data = dataset("gta5", tmp_path, splits="all")
    assert names(data) == ["00001", "00002", "00003"]
    assert len(layouts.raw_files(data, "train")) == 4


def test_a_folder_linked_into_itself_is_seen_once(tmp_path):
    touch_gta5(tmp_path, "00001")
    (tmp_path / "images/images").symlink_to(tmp_path / "images")
    (tmp_path / "labels/up").symlink_to(tmp_path)
    found = names(dataset("gta5", tmp_path, splits="all"))
    assert [name for name in found if "/" not in name] == ["00001"]
    assert not [name for name in found if name.startswith("images/")]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_folder_is_a_sentence(tmp_path, layout):
    with refused(f"nowhere not found, expected a folder in the {layout} layout"):
        layouts.items(dataset(layout, tmp_path / "nowhere"), "train")


@pytest.mark.parametrize(
    ("layout", "missing"),
    [
        ("gta5", "images"),
        ("gta5", "labels"),
        ("synthia", "RGB"),
        ("synthia", "GT/LABELS"),
        ("cityscapes", "leftImg8bit/train"),
        ("cityscapes", "gtFine/train"),
        ("bdd100k", "images/10k/train"),
        ("bdd100k", "labels/sem_seg/masks/train"),
        ("camvid", "train"),
        ("camvid", "trainannot"),
    ],
)
def test_missing_part_of_a_layout_is_named(tmp_path, layout, missing):
    writer.write(layout, tmp_path, images={"train": 1}, size=SIZE, seed=0)
    shutil.rmtree(tmp_path / missing)
    with refused(f"{missing} not found, expected a folder of the {layout} layout"):
        layouts.items(dataset(layout, tmp_path), "train")


def test_images_of_almost_the_right_suffix_are_strays(tmp_path):
    touch(tmp_path, "photos/train/1.jpg", "photos/train/2.JPG", "photos/train/deep/3.jpeg")
    touch(tmp_path, "photos/train/4.txt", "photos/val/5.JPG", "masks/train/1.png")
    touch(tmp_path, "masks/train/2.PNG", "masks/train/6.tif")
    found = layouts.strays(dataset("mine", tmp_path, own=MINE), "train")
    assert [(str(stray.path.relative_to(tmp_path)), stray.why) for stray in found] == [
        ("masks/train/6.tif", "its suffix is not .png"),
        ("photos/train/deep/3.jpeg", "its suffix is not .jpg"),
    ]
    assert names(dataset("mine", tmp_path, own=MINE)) == ["1", "2"]


# --- Splits ----------------------------------------------------------------------------------


def test_gta5_is_split_by_its_list_whatever_the_folders_hold(tmp_path):
    touch_gta5(tmp_path, "00001", "00002", "00003")
    # As doubles, and naming an image that is not there.
    savemat(tmp_path / "split.mat", {"trainIds": [[3.0], [7.0]], "valIds": [[1]]})
    data = dataset("gta5", tmp_path)
    assert (names(data), names(data, "val")) == (["00003", "00007"], ["00001"])
    assert layouts.splits(data) == ["train", "val", "test"]


def test_without_its_list_gta5_is_split_by_the_published_counts(tmp_path):
    last = {"train": 12403, "val": 12403 + 6382, "test": 24966}
    edges = {s: [f"{n:05d}" for n in (end - 1, end)] for s, end in last.items()}
    firsts = {"train": "00001", "val": "12404", "test": "18786"}
    touch_gta5(tmp_path, *firsts.values(), *sum(edges.values(), []), "24967", "00000", "readme")
    for split, expected in edges.items():
        assert names(dataset("gta5", tmp_path), split) == [firsts[split], *expected]


def test_all_images_may_be_train_images(tmp_path):
    touch_gta5(tmp_path, "00001", "20000", "other")
    savemat(tmp_path / "split.mat", {"trainIds": [[1]]})
    data = dataset("gta5", tmp_path, splits="all")
    assert names(data) == ["00001", "20000", "other"]
    assert layouts.splits(data) == ["train"]
    with refused("holds no image of the val split"):
        names(data, "val")


@pytest.mark.parametrize("split", ["val", "test"])
def test_synthia_has_no_split_but_train_unless_shares_say_so(tmp_path, split):
    writer.write("synthia", tmp_path, images={"train": 6}, size=SIZE, seed=0)
    assert layouts.splits(dataset("synthia", tmp_path)) == ["train"]
    with refused(f"holds no image of the {split} split"):
        names(dataset("synthia", tmp_path), split)
    shares = dataset("synthia", tmp_path, splits={"train": 0.5, split: 0.5})
    assert layouts.splits(shares) == ["train", split]
    assert len(names(shares)) == len(names(shares, split)) == 3


@pytest.mark.parametrize("layout", BY_FOLDER)
def test_folders_are_splits(tmp_path, layout):
    writer.write(layout, tmp_path, images={"train": 2, "test": 1}, size=SIZE, seed=0)
    data = dataset(layout, tmp_path)
    assert layouts.by_folder(data)
    assert layouts.splits(data) == ["train", "test"]
    assert (len(names(data)), len(names(data, "test"))) == (2, 1)
    with refused("not found, expected"):
        names(data, "val")


def test_empty_split_is_a_sentence(tmp_path):
    writer.write("cityscapes", tmp_path, images={"train": 1}, size=SIZE, seed=0)
    for folder in ("leftImg8bit", "gtFine"):
        (tmp_path / folder / "test").mkdir()
    with refused("holds no image of the test split"):
        names(dataset("cityscapes", tmp_path), "test")


words = st.text(st.characters(exclude_categories=["C"], exclude_characters="/"), min_size=1)
some_names = st.lists(
    words.filter(lambda word: not word.startswith(".") and len(word.encode()) < 200),
    min_size=1, max_size=12, unique=True,
)  # fmt: skip
some_shares = st.lists(st.integers(0, 20), min_size=3, max_size=3).filter(any)


def split_by(shares: dict[str, float], wanted: list[str], backwards: bool = False):
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        touch_gta5(Path(root), *wanted)
        step = -1 if backwards else 1
        scandir = os.scandir
        patch.setattr(os, "scandir", lambda folder: list(scandir(folder))[::step])
        found = {}
        for split in layouts.SPLITS:
            with contextlib.suppress(Refusal):
                found[split] = names(dataset("gta5", Path(root), splits=shares), split)
        return found


@settings(max_examples=40, deadline=None)
@given(wanted=some_names, parts=some_shares)
def test_shares_split_completely_disjointly_and_whatever_the_order_of_files(wanted, parts):
    shares = {s: n / sum(parts) for s, n in zip(layouts.SPLITS, parts, strict=True)}
    found = split_by(shares, wanted)
    assert sorted(sum(found.values(), [])) == sorted(wanted)
    assert found == split_by(shares, wanted[::-1], backwards=True)
    for split, share in shares.items():
        assert abs(len(found.get(split, [])) - share * len(wanted)) <= 1


@settings(max_examples=40, deadline=None)
@given(wanted=some_names, parts=some_shares)
def test_one_image_more_moves_at_most_one_other_over_each_border(wanted, parts):
    shares = {s: n / sum(parts) for s, n in zip(layouts.SPLITS, parts, strict=True)}
    places = [
        {name: split for split, found in split_by(shares, some).items() for name in found}
        for some in (wanted, wanted[1:])
    ]
    assert sum(places[0][name] != places[1][name] for name in wanted[1:]) <= 2


def test_shares_mix_the_names_and_stay_what_they_were(tmp_path):
    touch_gta5(tmp_path, *(f"{k:05d}" for k in range(10)))
    shares = dataset("gta5", tmp_path, splits={"train": 0.6, "val": 0.4})
    kept = ["00001", "00002", "00003", "00005", "00006", "00009"]
    assert names(shares) == kept
    assert names(shares, "val") == sorted({f"{k:05d}" for k in range(10)} - {*kept})


@pytest.mark.parametrize("part", [0, 20, 200])
def test_damaged_split_file_is_named(tmp_path, part):
    writer.write("gta5", tmp_path, images={"train": 2}, size=SIZE, seed=0)
    path = tmp_path / "split.mat"
    path.write_bytes(path.read_bytes()[:part])
    with refused(f"{path} .*trainIds .*release"):
        names(dataset("gta5", tmp_path))


def test_split_file_of_something_else_is_named(tmp_path):
    touch_gta5(tmp_path, "00001")
    savemat(tmp_path / "split.mat", {"classes": np.zeros(3)})
    with refused("split.mat .*trainIds .*release"):
        names(dataset("gta5", tmp_path))


def test_split_file_with_a_wrong_byte_is_named(tmp_path):
    touch_gta5(tmp_path, "00001")
    path = tmp_path / "split.mat"
    savemat(path, {"trainIds": np.arange(1, 800)[:, None]}, do_compression=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with refused(f"{path} .*trainIds .*release"):
        names(dataset("gta5", tmp_path))


# --- Listings --------------------------------------------------------------------------------


def raw_names(data, root):
    return [str(path.relative_to(root)) for path in layouts.raw_files(data, "train")]


def test_raw_files_are_those_of_their_own_split(tmp_path):
    data = dataset("mine", tmp_path, own=MINE)
    assert raw_names(data, tmp_path) == []
    touch(tmp_path, "photos/train/1.jpg", "masks/train/1.png", "photos/train/2.jpg")
    touch(tmp_path, "photos/val/1.jpg", "masks/val/1.png", "photos/train/readme")
    assert raw_names(data, tmp_path) == [
        "masks/train/1.png", "photos/train/1.jpg", "photos/train/2.jpg",
    ]  # fmt: skip


def test_the_list_of_splits_is_a_raw_file_where_it_decides(tmp_path):
    touch_gta5(tmp_path, "00001")
    assert "split.mat" not in raw_names(dataset("gta5", tmp_path), tmp_path)
    touch(tmp_path, "split.mat", content=b"1234")
    assert "split.mat" in raw_names(dataset("gta5", tmp_path), tmp_path)
    assert "split.mat" not in raw_names(dataset("gta5", tmp_path, splits="all"), tmp_path)


# --- Layouts of one's own ----------------------------------------------------------------------


def read_own(root: Path, own: Layout, label: Image.Image):
    data = dataset("mine", root, own=own)
    folder = own.folders.get("train", "train")
    touch(root, f"photos/{folder}/1.jpg", f"masks/{folder}/1.png")
    Image.new("RGB", label.size, "grey").save(root / f"photos/{folder}/1.jpg")
    label.save(root / f"masks/{folder}/1.png")
    [item] = layouts.items(data, "train")
    return masks.read(item.label, layouts.meaning(data, "train")).truth


def test_ids_of_ones_own_are_classes_ignored_or_unknown(tmp_path):
    ids = np.array([[0, 7, 8], [255, 1, 254]], np.uint8)
    truth = read_own(tmp_path, MINE, Image.fromarray(ids))
    assert truth.tolist() == [[0, 11, 11], [255, UNKNOWN, UNKNOWN]]


def test_colours_of_ones_own_are_classes_ignored_or_unknown(tmp_path):
    own = MINE.model_copy(
        update={"ids": None, "ignore": [(0, 0, 0)],
                "colours": {"sky": [(70, 130, 180)], "car": [(0, 0, 142), (0, 0, 70)]}}
    )  # fmt: skip
    seen = [[(70, 130, 180), (0, 0, 142), (0, 0, 70)], [(0, 0, 0), (180, 130, 70), (255,) * 3]]
    label = Image.fromarray(np.array(seen, np.uint8))
    indexed = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    indexed.putpalette(np.array(seen, np.uint8).tobytes())
    for kind in (label, label.convert("RGBA"), indexed):
        truth = read_own(tmp_path, own, kind)
        assert truth.tolist() == [[10, 13, 13], [255, UNKNOWN, UNKNOWN]], kind.mode


def test_the_example_of_the_document_is_read_as_it_stands_there(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = (PROJECT / "docs/own-data.md").read_text()
    example = YAML(typ="safe").load(re.search("```yaml\n(.*?)```", document, re.DOTALL)[1])
    raw["layouts"] |= example["layouts"]
    raw["scales"]["paper"]["domains"] |= example["scales"]["paper"]["domains"]
    data = config.resolve(raw | {"scale": "paper"}).dataset("mine")
    for folder in ("train", "validation"):
        stem = f"{folder}/my trip/1"
        touch(data.root, f"photos/{stem}.jpg", f"masks/{stem}.png")
        Image.effect_noise((6, 4), 99).save(data.root / f"photos/{stem}.jpg")
        ids = Image.fromarray(np.array([[0, 7, 3, 4, 255, 0]] * 4, np.uint8))
        ids.save(data.root / f"masks/{stem}.png")
    for split in ("train", "val"):
        report = verify.verify("mine", data, split)
        assert (report.status, list(report.pairs)) == (verify.FIT, ["my trip/1"])


def test_ids_of_another_release_mean_the_same(tmp_path):
    own = MINE.model_copy(update={"ids": "cityscapes", "ignore": []})
    ids = np.array([[7, 33, 0], [24, 34, 200]], np.uint8)
    truth = read_own(tmp_path, own, Image.fromarray(ids))
    assert truth.tolist() == [[0, 18, 255], [11, UNKNOWN, UNKNOWN]]


def test_folders_of_splits_may_have_other_names(tmp_path):
    own = MINE.model_copy(update={"folders": {"train": "training", "val": "validation/2"}})
    read_own(tmp_path, own, Image.new("L", (4, 4)))
    touch(tmp_path, "photos/validation/2/b.jpg", "masks/validation/2/b.png")
    data = dataset("mine", tmp_path, own=own)
    assert layouts.splits(data) == ["train", "val"]
    assert (names(data), names(data, "val")) == (["1"], ["b"])


def test_a_layout_without_split_folders_is_train_or_split_by_shares(tmp_path):
    own = MINE.model_copy(update={"images": "photos/{name}.jpg", "labels": "masks/{name}.png"})
    touch(tmp_path, *(f"photos/{n}.jpg" for n in "abcd"), "masks/a.png")
    assert names(dataset("mine", tmp_path, own=own)) == ["a", "b", "c", "d"]
    shares = dataset("mine", tmp_path, own=own, splits={"train": 0.75, "val": 0.25})
    assert sorted(names(shares) + names(shares, "val")) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ids_that_a_release_does_not_have_are_unknown_and_all_others_as_in_its_table(layout):
    table = LAYOUTS[layout].table
    known = table != UNKNOWN
    assert np.array_equal(table[known], labels.TABLES[layout][known])
    assert set(range(19)) - {9, 14, 15, 16, 17, 18, 3, 6} <= set(table[known].tolist())
    assert (~known).sum() == {"gta5": 220, "synthia": 233, "cityscapes": 221, "bdd100k": 236,
                              "camvid": 244}[layout]  # fmt: skip
