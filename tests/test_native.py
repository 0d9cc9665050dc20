"""The native formats: the drawn world is on disk what the releases of the datasets are."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from madan import labels
from madan.data.layouts import LAYOUTS
from madan.miniature import world, writer

SIZE = (32, 64)


def scene(domain: str, index: int = 0, split: str = "train"):
    return world.draw(domain, split, index, seed=0, size=SIZE)


def write(layout: str, root: Path, **images: int) -> None:
    writer.write(layout, root, images=images, size=SIZE, seed=0)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def files(root: Path) -> dict[str, bytes]:
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write("gta5", root / "gta5", train=3, val=2, test=1)
    write("synthia", root / "synthia", train=3)
    write("cityscapes", root / "cityscapes", train=4, val=3, test=2)
    write("bdd100k", root / "bdd100k", train=2, val=1)
    write("camvid", root / "camvid", train=2, val=1)
    return root


@pytest.mark.parametrize("layout", LAYOUTS)
def test_native_ids_invert_the_label_table(layout):
    train_ids = np.append(np.arange(19), labels.IGNORE).astype(np.uint8)
    known = np.isin(train_ids, labels.TABLES[layout])
    back = LAYOUTS[layout].table[writer.native_ids(layout)[train_ids]]
    np.testing.assert_array_equal(back, np.where(known, train_ids, labels.IGNORE))
    assert known.sum() == (12 if layout == "camvid" else 20)


def test_gta5_holds_images_and_palette_labels_under_running_numbers(written):
    names = [f"{number:05d}.png" for number in range(1, 7)]
    for folder in ("images", "labels"):
        assert sorted(path.name for path in (written / "gta5" / folder).iterdir()) == names
    split, index = "val", 1
    image, train_ids = scene("gta5", index, split)
    np.testing.assert_array_equal(read(written / "gta5/images/00005.png"), image)
    label = Image.open(written / "gta5/labels/00005.png")
    assert label.mode == "P"
    np.testing.assert_array_equal(labels.TABLES["gta5"][np.asarray(label)], train_ids)
    np.testing.assert_array_equal(np.asarray(label.convert("RGB")), labels.colour(train_ids))


def test_gta5_split_mat_holds_disjoint_columns_and_mapping_mat_the_classes(written):
    split = loadmat(written / "gta5/split.mat")
    ids = [split[key] for key in ("trainIds", "valIds", "testIds")]
    assert [column.shape for column in ids] == [(3, 1), (2, 1), (1, 1)]
    assert np.concatenate(ids).ravel().tolist() == [1, 2, 3, 4, 5, 6]
    classes = [str(cell[0]) for cell in loadmat(written / "gta5/mapping.mat")["classes"].ravel()]
    assert classes[7] == "road" and classes[33] == "bicycle" and classes[0] == "unlabelled"


def test_synthia_holds_class_and_instance_in_the_first_two_16_bit_channels(written):
    image, train_ids = scene("synthia", 2)
    np.testing.assert_array_equal(read(written / "synthia/RGB/0000002.png"), image)
    path = written / "synthia/GT/LABELS/0000002.png"
    blue, green, red = cv2.split(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    assert red.dtype == np.uint16
    np.testing.assert_array_equal(labels.to_train_ids(red, "synthia"), train_ids)
    assert len(np.unique(green)) > 2 and not blue.any()
    colours = read(written / "synthia/GT/COLOR/0000002.png")
    np.testing.assert_array_equal(colours, labels.colour(train_ids))


def test_pillow_loses_the_16_bit_class_ids_of_synthia(written):
    assert not np.asarray(Image.open(written / "synthia/GT/LABELS/0000000.png"))[..., 0].any()


def test_cityscapes_holds_label_ids_beside_images_and_the_bonnet_as_ego_vehicle(written):
    root = written / "cityscapes"
    images = sorted((root / "leftImg8bit/train").glob("*/*_leftImg8bit.png"))
    found = [path.relative_to(root / "leftImg8bit/train").as_posix() for path in images]
    assert found[0] == "altenbruck/altenbruck_000000_000019_leftImg8bit.png" and len(found) == 4
    seen = set()
    for city, index in (("altenbruck", 0), ("lindenau", 1), ("moosheim", 2)):
        image, train_ids = scene("cityscapes", index)
        stem = f"train/{city}/{city}_000000_000019"
        np.testing.assert_array_equal(read(root / f"leftImg8bit/{stem}_leftImg8bit.png"), image)
        ids = read(root / f"gtFine/{stem}_gtFine_labelIds.png")
        np.testing.assert_array_equal(labels.TABLES["cityscapes"][ids], train_ids)
        seen |= set(ids[train_ids == labels.IGNORE].tolist())
    assert seen == {writer.EGO_VEHICLE}


def test_splits_share_no_city_and_no_image(written):
    root = written / "cityscapes/leftImg8bit"
    cities = [{path.name for path in (root / s).iterdir()} for s in ("train", "val", "test")]
    assert sum(map(len, cities)) == len(set.union(*cities))
    folders = ("cityscapes/leftImg8bit", "gta5/images", "synthia/RGB")
    images = [path.read_bytes() for folder in folders for path in (written / folder).rglob("*.png")]
    assert len(images) == 18 and len(set(images)) == 18


def test_bdd100k_holds_jpegs_and_train_ids_in_its_newer_folders(written):
    found = sorted(files(written / "bdd100k"))
    stems = ["00000000-", "00000001-"]
    images = [name for name in found if name.startswith("images/10k/train/")]
    truths = [name for name in found if name.startswith("labels/sem_seg/masks/train/")]
    for stem, image, truth in zip(stems, images, truths, strict=True):
        assert Path(image).name.startswith(stem) and image.endswith(".jpg")
        assert Path(truth).stem == Path(image).stem and truth.endswith(".png")
    ids = np.stack([read(written / "bdd100k" / truth) for truth in truths])
    assert set(np.unique(ids)) <= {*range(19), labels.IGNORE}
    assert labels.IGNORE in ids


def test_camvid_holds_its_eleven_classes_and_the_rest_as_unlabelled(written):
    assert len(list((written / "camvid/val").glob("*.png"))) == 1
    paths = sorted((written / "camvid/trainannot").glob("*.png"))
    assert [path.name for path in paths] == ["0006R0_f00000.png", "0006R0_f00001.png"]
    ids = np.stack([read(path) for path in paths])
    assert set(np.unique(ids)) <= set(range(12)) and 11 in ids


@pytest.mark.parametrize(
    ("layout", "form", "first"),
    [
        ("bdd100k", 1, "images/train/00000000-{}.jpg labels/train/00000000-{}_train_id.png"),
        ("synthia", 1, "GT/COLOR/0000000.png GT/parsed_LABELS/0000000.png RGB/0000000.png"),
    ],
)
def test_a_release_of_another_form_is_written_in_it(tmp_path, layout, form, first):
    lies = LAYOUTS[layout].forms[form]
    writer.write(layout, tmp_path / "w", images={"train": 1}, size=SIZE, seed=0, form=lies)
    name = writer.NAMES[layout]("train", 0, {}).partition("-")[2]
    assert sorted(files(tmp_path / "w")) == first.replace("{}", name).split()
    if layout == "synthia":
        ids = Image.open(tmp_path / "w/GT/parsed_LABELS/0000000.png")
        assert ids.mode == "L"
        np.testing.assert_array_equal(
            labels.TABLES["synthia"][np.asarray(ids)], scene("synthia")[1]
        )


def test_targets_of_other_layouts_show_other_scenes_with_the_targets_look(written):
    folders = ("cityscapes/leftImg8bit/train", "camvid/train")
    paths = [next(p for p in (written / name).rglob("*") if p.is_file()) for name in folders]
    shown = [read(path).astype(float) for path in paths]
    assert abs(shown[0] - shown[1]).mean() > 10
    saturation = [np.ptp(image, axis=2).mean() for image in (*shown, scene("gta5")[0])]
    assert max(saturation[:2]) < saturation[2]


def test_bdd100k_has_scenes_of_its_own_and_camvid_those_of_cityscapes(written):
    masks = sorted((written / "bdd100k/labels/sem_seg/masks/train").iterdir())
    for index, path in enumerate(masks):
        np.testing.assert_array_equal(read(path), scene("bdd100k", index)[1])
    assert "camvid" not in world.CONTENTS


def test_another_look_is_the_same_scenes_with_the_same_labels(tmp_path):
    write("gta5", tmp_path / "own", train=2)
    writer.write("gta5", tmp_path / "look", images={"train": 2}, size=SIZE, seed=0, look="bdd100k")
    own, look = files(tmp_path / "own"), files(tmp_path / "look")
    same = {name for name in own if own[name] == look[name]}
    assert own.keys() == look.keys() and own.keys() - same == {
        "images/00001.png",
        "images/00002.png",
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_writing_again_gives_the_same_bytes_another_day(tmp_path, monkeypatch, layout):
    write(layout, tmp_path / "one", train=1)
    monkeypatch.setattr("time.asctime", lambda *_: "Thu Jan  1 00:00:00 1970")
    write(layout, tmp_path / "other", train=1)
    assert files(tmp_path / "one") == files(tmp_path / "other")


def test_a_failed_write_leaves_the_old_world_and_nothing_else(tmp_path, monkeypatch):
    write("synthia", tmp_path / "synthia", train=1)
    before = sorted(tmp_path.rglob("*"))
    draw = world.draw

    def fail_at_the_third(domain, split, index, **more):
        if index == 2:
            raise RuntimeError("disk on fire")
        return draw(domain, split, index, **more)

    monkeypatch.setattr(world, "draw", fail_at_the_third)
    for name in ("synthia", "new"):
        with pytest.raises(RuntimeError, match="disk on fire"):
            write("synthia", tmp_path / name, train=3)
    assert sorted(tmp_path.rglob("*")) == before


def test_writing_replaces_what_was_there(tmp_path):
    write("cityscapes", tmp_path / "city", train=2, val=1)
    (tmp_path / "city/stray.txt").touch()
    write("cityscapes", tmp_path / "city", val=1)
    files = [path for path in (tmp_path / "city").rglob("*") if path.is_file()]
    assert len(files) == 2 and all("val" in path.parts for path in files)
    assert [path.name for path in tmp_path.iterdir()] == ["city"]


@pytest.mark.parametrize(
    ("domain", "images", "sentence"),
    [
        ("synthia", {"train": 1, "test": 1}, "synthia has no split 'test', only train"),
        ("gta5", {"train": -1}, "-1 images"),
        ("kitti", {"train": 1}, "no layout 'kitti'; the layouts are gta5, .*camvid"),
        ("kitti", {}, "no layout 'kitti'"),
        ("camvid", {"night": 1}, "no split 'night'"),
    ],
)
def test_an_impossible_world_is_refused_before_anything_is_written(
    tmp_path, domain, images, sentence
):
    with pytest.raises(ValueError, match=sentence):
        write(domain, tmp_path / "world", **images)
    assert not any(tmp_path.iterdir())
