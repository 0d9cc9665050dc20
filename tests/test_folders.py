"""Folders: which files a pattern names, however names are written, and what lies beside them."""

import os
import unicodedata
from pathlib import Path

import pytest
from conftest import dataset
from hypothesis import given
from hypothesis import strategies as st

from madan import folders
from madan.config.data_settings import Layout
from madan.data import layouts
from madan.errors import Refusal
from madan.folders import NotNow

MINE = Layout(
    images="photos/{split}/{name}.jpg", labels="masks/{split}/{name}.png", ids={"road": [0]}
)


def touch(root: Path, *names: str, content: bytes = b"") -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def own(root: Path, **more):
    return dataset("mine", root, own=MINE.model_copy(update=more))


def pairs(data, split="train") -> dict[str, tuple[str, str]]:
    return {
        item.name: tuple(str(path.relative_to(data.root)) for path in item.files)
        for item in layouts.items(data, split)
    }


# --- Patterns ----------------------------------------------------------------------------------

word = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6)
around = st.sampled_from(["", "img_", "_gt", "x.y", "é"])


@given(name=word, inner=st.sampled_from(["", "a/", "a/b/"]), before=around, after=around,
       suffix=st.sampled_from([".png", ".PNG", ".Jpg"]))  # fmt: skip
def test_a_name_put_into_a_pattern_is_read_out_of_it(name, inner, before, after, suffix):
    pattern = f"deep/folder/{before}{{name}}{after}{suffix.lower()}"
    parts = folders.parse(Path("/root"), pattern)
    path = f"/root/{folders.place(pattern, inner + name)}"
    assert folders.named(parts, path) == inner + name
    other = path[: -len(suffix)] + suffix
    assert folders.named(parts, other) == inner + name
    decomposed = unicodedata.normalize("NFD", path)
    found = folders.named(parts, decomposed)
    assert found is not None and folders.composed(found) == folders.composed(inner + name)


@pytest.mark.parametrize("path", ["img_.png", "img_1.jpg", "1.png", "img_1_gt.tif", "xyimg_1.png"])
def test_other_files_are_not_of_a_pattern(path):
    assert folders.named(folders.parse(Path("/r"), "img_{name}.png"), f"/r/{path}") is None


def test_text_before_the_name_tells_images_from_masks_in_one_folder(tmp_path):
    """As AirSim and Virtual KITTI 2 name them."""
    touch(tmp_path, "run/img_1.png", "run/seg_1.png", "run/img_2.png", "run/deep/img_3.png")
    touch(tmp_path, "run/deep/seg_3.png", "run/depth_1.png")
    data = own(tmp_path, images="run/img_{name}.png", labels="run/seg_{name}.png")
    assert pairs(data) == {
        "1": ("run/img_1.png", "run/seg_1.png"),
        "2": ("run/img_2.png", "run/seg_2.png"),
        "deep/3": ("run/deep/img_3.png", "run/deep/seg_3.png"),
    }
    assert layouts.item(data, "train", "deep/3") == layouts.items(data, "train")[2]
    assert layouts.strays(data, "train") == []
    assert len(layouts.raw_files(data, "train")) == 5


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a/{name}.png", "b/{name}.png", False),
        ("a/img_{name}.png", "a/seg_{name}.png", False),
        ("a/{name}.jpg", "a/{name}.png", False),
        ("a/{name}.jpg", "a/{name}.JPG", True),
        ("a/{name}.png", "a/seg_{name}.png", True),
        ("a/{name}.png", "a/{name}_gt.png", True),
        ("a/x_{name}_gt.png", "a/x_{name}.png", True),
    ],
)
def test_patterns_that_one_file_could_be_of_are_known(one, other, same):
    assert folders.alike(one, other) == folders.alike(other, one) == same


# --- Names -------------------------------------------------------------------------------------


def test_names_that_differ_in_unicode_form_alone_are_one_pair(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "süd/café") for form in ("NFC", "NFD"))
    assert composed != decomposed
    touch(tmp_path, f"photos/train/{decomposed}.jpg", f"masks/train/{composed}.png")
    [item] = layouts.items(own(tmp_path), "train")
    assert (item.name, item.image.exists(), item.label.exists()) == (decomposed, True, True)


def test_suffixes_in_any_case_are_seen_in_every_split(tmp_path):
    for split in ("train", "val", "test"):
        touch(tmp_path, f"photos/{split}/1.JPG", f"photos/{split}/2.Jpg", f"masks/{split}/1.png")
        touch(tmp_path, f"masks/{split}/2.PNG")
        found = layouts.items(own(tmp_path), split)
        assert [item.name for item in found] == ["1", "2"]
        assert all(item.image.exists() and item.label.exists() for item in found)
        assert len(layouts.raw_files(own(tmp_path), split)) == 4
        assert layouts.strays(own(tmp_path), split) == []


def test_of_two_files_of_one_name_the_patterns_own_is_read_and_the_other_said(tmp_path):
    touch(tmp_path, "photos/train/1.JPG", "photos/train/1.jpg", "masks/train/1.png")
    assert pairs(own(tmp_path)) == {"1": ("photos/train/1.jpg", "masks/train/1.png")}
    [stray] = layouts.strays(own(tmp_path), "train")
    assert (stray.path.name, stray.why) == ("1.JPG", "has the name of 1.jpg")


# --- What else lies there ----------------------------------------------------------------------


def test_images_and_masks_of_one_folder_are_no_strays_of_each_other(tmp_path):
    touch(tmp_path, "all/1.jpg", "all/1.png", "all/2.png", "all/3.webp", "all/notes.txt")
    data = own(tmp_path, images="all/{name}.jpg", labels="all/{name}.png")
    assert [stray.path.name for stray in layouts.strays(data, "train")] == ["3.webp"]


@pytest.mark.parametrize("suffix", ["heic", "HEIC", "avif", "jxl", "cr2", "gif", "exr", "jpeg"])
def test_photos_of_every_kind_are_reported(tmp_path, suffix):
    touch(tmp_path, "photos/train/1.jpg", f"photos/train/2.{suffix}", "masks/train/1.png")
    [stray] = layouts.strays(own(tmp_path), "train")
    assert (stray.path.name, stray.why) == (f"2.{suffix}", "its suffix is not .jpg")


def test_links_pipes_and_devices_that_lead_to_no_photo_are_reported(tmp_path):
    touch(tmp_path, "photos/train/1.jpg", "masks/train/1.png")
    folder = tmp_path / "photos/train"
    (folder / "gone").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "up").symlink_to(folder)
    (folder / "null").symlink_to("/dev/null")
    os.mkfifo(folder / "pipe")
    said = {s.path.name: s.why for s in layouts.strays(own(tmp_path), "train") if s.odd}
    assert said == {
        "gone": "is a link that leads nowhere",
        "loop": "is a link that leads nowhere",
        "up": "is a link back to a folder that it lies in",
        "null": "is a device",
        "pipe": "is a pipe",
    }
    assert pairs(own(tmp_path)).keys() == {"1"}


def test_folders_full_of_links_to_each_other_end(tmp_path):
    """Twelve folders that link to all others have a thousand million ways through them."""
    touch(tmp_path, "masks/train/0/1.png")
    for k in range(12):
        touch(tmp_path, f"photos/train/{k}/1.jpg")
        for other in range(12):
            if other != k:
                link = tmp_path / f"photos/train/{k}/to{other}"
                link.symlink_to(tmp_path / f"photos/train/{other}")
    found = layouts.items(own(tmp_path), "train")
    assert {f"{k}/1" for k in range(12)} <= {item.name for item in found}
    assert len(found) == 12 + 12 * 11 + 12 * 11 * 10
    assert any("below 2 other links" in s.why for s in layouts.strays(own(tmp_path), "train"))


def test_a_folder_that_cannot_be_opened_is_refused_and_not_passed_over(tmp_path, monkeypatch):
    touch(tmp_path, "photos/train/a/1.jpg", "photos/train/b/2.jpg", "masks/train/a/1.png")
    scandir = os.scandir

    def closed(folder):
        if str(folder).endswith("photos/train/b"):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(NotNow, match=r"photos/train/b is a folder that cannot be opened"):
        layouts.items(own(tmp_path), "train")


def test_an_unknown_name_stays_where_the_pattern_says(tmp_path):
    touch(tmp_path, "photos/train/1.jpg", "masks/train/1.png")
    item = layouts.item(own(tmp_path), "train", "2")
    assert item.image == tmp_path / "photos/train/2.jpg"
    with pytest.raises(Refusal, match="leads out of its folder"):
        layouts.item(own(tmp_path), "train", "../2")
