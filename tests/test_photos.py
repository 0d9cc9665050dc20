"""Which photos are meant, and what their results are called."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madan.errors import Refusal
from madan.inference import photos
from madan.inference.photos import Found
from madan.outputs import Outputs


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path).encode("utf-8", "surrogateescape"))


def test_folders_are_searched_below_and_in_order(tmp_path):
    names = ["b.JPG", "a.png", "more/c.jpeg", "more/deep/d.webp", "film.MOV"]
    touch(*(tmp_path / name for name in names))
    touch(tmp_path / "notes.txt", tmp_path / ".thumbnails/a.png", tmp_path / "._b.jpg")
    found = photos.find([tmp_path], "predict")
    assert list(found.files) == ["a", "b", "film", "more/c", "more/deep/d"]
    assert found.files["more/c"] == tmp_path / "more/c.jpeg" and not found.notes


def test_photos_of_one_stem_get_names_of_their_own(tmp_path):
    touch(tmp_path / "a/x.jpg", tmp_path / "a/x.png", tmp_path / "b/x.jpg", tmp_path / "b/y.jpg")
    assert list(photos.find([tmp_path], "predict").files) == ["a/x.jpg", "a/x.png", "b/x", "b/y"]
    both = [tmp_path / "a/x.jpg", tmp_path / "b/x.jpg"]
    assert photos.find(both, "predict").files == {"a/x.jpg": both[0], "b/x.jpg": both[1]}
    folders = photos.find([tmp_path / "a", tmp_path / "b"], "predict").files
    assert list(folders) == ["a/x.jpg", "x.png", "b/x.jpg", "y"]
    touch(tmp_path / "1/a/x.jpg", tmp_path / "2/a/x.jpg", tmp_path / "3/a/X.jpg")
    alike = [tmp_path / "1/a/x.jpg", tmp_path / "2/a/x.jpg", tmp_path / "3/a/X.jpg"]
    names = list(photos.find(alike, "predict").files)
    assert len({name.casefold() for name in names}) == 3


def test_a_photo_that_is_named_twice_is_taken_once(tmp_path):
    touch(tmp_path / "a.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "a.jpg")
    assert len(photos.find([tmp_path, tmp_path / "a.jpg", tmp_path], "predict").files) == 1


@pytest.mark.parametrize("size", [240, 246, 251, 255])
@pytest.mark.parametrize("letter", ["a", "ä", "写"])
def test_names_of_any_length_lead_to_names_that_can_be_written(tmp_path, size, letter):
    stem = (letter * size).encode()[: size - 4].decode(errors="ignore")
    touch(tmp_path / f"{stem}.jpg", tmp_path / f"{stem}.png")
    touch(tmp_path / f"{stem[:-1]}b.jpg")
    names = photos.find([tmp_path], "predict").files
    assert len(names) == 3
    for name in names:
        Outputs(tmp_path / "out", "predict").write(f"{name}.png", b"x")


NAME = st.one_of(
    st.text(st.characters(exclude_characters="/\0", codec="utf-8"), min_size=1, max_size=60),
    st.binary(min_size=1, max_size=250).map(lambda name: os.fsdecode(name.translate(None, b"/\0"))),
).filter(lambda name: name not in ("", ".", ".."))


@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c/a"]), NAME,
                          st.sampled_from([".jpg", ".png", ""])), unique=True))  # fmt: skip
def test_every_file_gets_one_short_name_of_its_own(parts):
    found = [Found(Path(root), Path(root, name + suffix)) for root, name, suffix in parts]
    found = list({each.file: each for each in found}.values())
    names = photos.named(found)
    assert sorted(names.values()) == sorted(each.file for each in found)
    assert len({name.casefold() for name in names}) == len(found)
    for name in names:
        assert not name.startswith("/") and all(
            len(os.fsencode(part)) <= 255 for part in f"{name}.png".split("/")
        )


def write(folder, command, name):
    Outputs(folder, command).write(name, f"{command} {name}".encode())


@pytest.mark.parametrize("out", ["out", ".", "more/out"])
def test_what_the_command_wrote_is_not_read_at_its_next_call(tmp_path, out):
    touch(tmp_path / "a.jpg")
    for name in ("overlay/a.jpg", "labelIds/a.png", "mosaic.png"):
        write(tmp_path / out, "predict", name)
    for paths in ([tmp_path], sorted(tmp_path.iterdir()), [tmp_path / "a.jpg", tmp_path]):
        photos._listed.cache_clear()
        paths = [path for path in paths if not path.name.startswith(".madan")]
        found = photos.find(paths, "predict")
        assert list(found.files.values()) == [tmp_path / "a.jpg"]
    assert found.notes == ["left out: 3 written by madan at an earlier call"]


def test_what_another_command_wrote_is_read_where_its_folder_is_named(tmp_path):
    touch(tmp_path / "a.jpg")
    write(tmp_path / "styled", "stylise", "a.png")
    assert list(photos.find([tmp_path], "predict").files) == ["a"]
    assert list(photos.find([tmp_path / "styled"], "predict").files) == ["a"]
    with pytest.raises(Refusal, match="left out: 1 written by madan"):
        photos.find([tmp_path / "styled"], "stylise")


def test_a_photo_that_replaced_what_madan_wrote_is_a_photo(tmp_path):
    write(tmp_path, "predict", "mosaic.png")
    touch(tmp_path / "mosaic.png")
    assert list(photos.find([tmp_path], "predict").files) == ["mosaic"]


def test_kinds_of_pictures_that_are_not_read_are_counted(tmp_path):
    touch(tmp_path / "a.jpg", tmp_path / "b.HEIC", tmp_path / "c.heic")
    found = photos.find([tmp_path], "predict")
    assert found.notes == ["left out: 2 of a kind that is not read (.heic)"]


def test_what_cannot_be_found_is_one_sentence(tmp_path):
    (tmp_path / "emp\nty").mkdir()
    for path, words in (("gone\x1b.jpg", "is not there"), ("emp\nty", "holds no images")):
        with pytest.raises(Refusal, match=words) as caught:
            photos.find([tmp_path / path], "predict")
        assert str(caught.value).isprintable()


def test_a_folder_that_may_not_be_read_is_reported(tmp_path, monkeypatch):
    touch(tmp_path / "a.jpg", tmp_path / "closed/b.jpg")
    scandir = os.scandir

    def closed(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", closed)
    found = photos.find([tmp_path], "predict")
    assert list(found.files) == ["a"]
    assert found.unread == {str(tmp_path / "closed"): "Permission denied"}
