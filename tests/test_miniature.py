"""The miniature world: repeatable, same scene in every look, true to the native formats."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from madan import labels, miniature

SIZE = (32, 64)


def scene(domain: str, index: int = 0, split: str = "train", **more):
    return miniature.draw(domain, split, index, **({"seed": 0, "size": SIZE} | more))


def classes_of(domain: str, scenes: int) -> set[str]:
    drawn = [scene(domain, index, size=(64, 128))[1] for index in range(scenes)]
    return {labels.CLASSES[k] for k in np.unique(drawn) if k != labels.IGNORE}


def write(domain: str, root: Path, **images: int) -> None:
    miniature.write(domain, root, images=images, size=SIZE, seed=0)


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write("gta5", root / "gta5", train=3, val=2, test=1)
    write("synthia", root / "synthia", train=3)
    write("cityscapes", root / "cityscapes", train=4, val=3, test=2)
    return root


@pytest.mark.parametrize("domain", miniature.CONTENTS)
def test_same_seed_draws_the_same_bytes(domain):
    for once, again in zip(scene(domain), scene(domain), strict=True):
        assert once.tobytes() == again.tobytes()


def test_a_scene_does_not_depend_on_what_was_drawn_before():
    forwards = [scene("synthia", index)[0] for index in range(3)]
    backwards = [scene("synthia", index)[0] for index in reversed(range(3))]
    np.testing.assert_array_equal(forwards, backwards[::-1])


@pytest.mark.parametrize("change", [{"index": 1}, {"seed": 1}, {"split": "val"}])
def test_index_seed_and_split_each_change_the_scene(change):
    image, label = scene("cityscapes")
    other_image, other_label = scene("cityscapes", **change)
    assert (image != other_image).any()
    assert (label != other_label).any()


@pytest.mark.parametrize("domain", miniature.CONTENTS)
@pytest.mark.parametrize("look", miniature.LOOKS)
def test_a_look_changes_the_image_but_never_the_label(domain, look):
    for index in range(4):
        image, label = scene(domain, index)
        seen, same_label = scene(domain, index, look=look)
        np.testing.assert_array_equal(label, same_label)
        assert (image != seen).any() == (look != domain)


@pytest.mark.parametrize("size", [(16, 16), (24, 80), (96, 48)])
@pytest.mark.parametrize("domain", miniature.CONTENTS)
def test_the_size_asked_for_is_the_size_drawn(domain, size):
    image, label = scene(domain, size=size)
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert label.shape == size and label.dtype == np.uint8


def test_a_scene_fills_its_bottom_rows_with_ground_at_any_size():
    for size in ((32, 64), (96, 48), (48, 160)):
        for index in range(6):
            bottom = scene("synthia", index, size=size)[1][-1]
            assert labels.CLASSES.index("sky") not in bottom


def test_the_target_shows_all_19_classes():
    assert classes_of("cityscapes", 40) == set(labels.CLASSES)


def test_each_source_misses_classes_and_together_they_cover_all_19():
    gta5, synthia = classes_of("gta5", 40), classes_of("synthia", 40)
    assert set(labels.CLASSES) - gta5 == {"bicycle", "bus", "motorcycle", "rider"}
    assert set(labels.CLASSES) - synthia == {"terrain", "train", "truck", "wall"}
    assert gta5 | synthia == set(labels.CLASSES)


def test_only_the_target_has_ignored_pixels_and_they_lie_at_the_bottom():
    drawn = {
        domain: np.stack([scene(domain, index)[1] for index in range(12)]) == labels.IGNORE
        for domain in miniature.CONTENTS
    }
    assert not drawn["gta5"].any() and not drawn["synthia"].any()
    assert 0 < drawn["cityscapes"].mean() < 0.06
    assert not drawn["cityscapes"][:, : SIZE[0] * 3 // 4].any()


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        ({"domain": "kitti"}, "no domain 'kitti'"),
        ({"domain": "synthia", "split": "val"}, "no split 'val'"),
        ({"look": "night"}, "no look 'night'"),
        ({"index": -1}, "-1 is negative"),
        ({"seed": -1}, "-1 is negative"),
        ({"size": (8, 64)}, "at least 16 x 16 pixels, not 8 x 64"),
    ],
)
def test_an_impossible_scene_is_refused_in_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        scene(**({"domain": "gta5"} | call))


@pytest.mark.parametrize("layout", miniature.CONTENTS)
def test_native_ids_invert_the_label_table(layout):
    train_ids = np.append(np.arange(19), labels.IGNORE).astype(np.uint8)
    native = miniature.native_ids(layout)[train_ids]
    np.testing.assert_array_equal(labels.TABLES[layout][native], train_ids)


def test_gta5_holds_images_and_palette_labels_under_running_numbers(world):
    names = [f"{number:05d}.png" for number in range(1, 7)]
    for folder in ("images", "labels"):
        assert sorted(path.name for path in (world / "gta5" / folder).iterdir()) == names
    split, index = "val", 1
    image, train_ids = scene("gta5", index, split)
    np.testing.assert_array_equal(read(world / "gta5/images/00005.png"), image)
    label = Image.open(world / "gta5/labels/00005.png")
    assert label.mode == "P"
    np.testing.assert_array_equal(labels.TABLES["gta5"][np.asarray(label)], train_ids)
    np.testing.assert_array_equal(np.asarray(label.convert("RGB")), labels.colour(train_ids))


def test_gta5_split_mat_holds_disjoint_columns_and_mapping_mat_the_classes(world):
    split = loadmat(world / "gta5/split.mat")
    ids = [split[key] for key in ("trainIds", "valIds", "testIds")]
    assert [column.shape for column in ids] == [(3, 1), (2, 1), (1, 1)]
    assert np.concatenate(ids).ravel().tolist() == [1, 2, 3, 4, 5, 6]
    classes = [str(cell[0]) for cell in loadmat(world / "gta5/mapping.mat")["classes"].ravel()]
    assert classes[7] == "road" and classes[33] == "bicycle" and classes[0] == "unlabelled"


def test_gta5_mat_files_do_not_hold_the_time_of_day(world):
    for name in ("split.mat", "mapping.mat"):
        header = (world / "gta5" / name).read_bytes()[:116]
        assert header.rstrip() == b"MATLAB 5.0 MAT-file"


def test_synthia_holds_class_and_instance_in_the_first_two_16_bit_channels(world):
    image, train_ids = scene("synthia", 2)
    np.testing.assert_array_equal(read(world / "synthia/RGB/0000002.png"), image)
    path = world / "synthia/GT/LABELS/0000002.png"
    blue, green, red = cv2.split(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
    assert red.dtype == np.uint16
    np.testing.assert_array_equal(labels.to_train_ids(red, "synthia"), train_ids)
    assert len(np.unique(green)) > 2 and not blue.any()
    colours = read(world / "synthia/GT/COLOR/0000002.png")
    np.testing.assert_array_equal(colours, labels.colour(train_ids))


def test_pillow_loses_the_16_bit_class_ids_of_synthia(world):
    assert not np.asarray(Image.open(world / "synthia/GT/LABELS/0000000.png"))[..., 0].any()


def test_cityscapes_holds_label_ids_beside_images_and_the_bonnet_as_ego_vehicle(world):
    root = world / "cityscapes"
    images = sorted((root / "leftImg8bit/train").glob("*/*_leftImg8bit.png"))
    found = [path.relative_to(root / "leftImg8bit/train").as_posix() for path in images]
    assert found[0] == "altenbruck/altenbruck_000000_000019_leftImg8bit.png" and len(found) == 4
    seen = set()
    for city, index in (("altenbruck", 0), ("lindenau", 1), ("moosheim", 2)):
        image, train_ids = scene("cityscapes", index)
        stem = f"train/{city}/{city}_000000_000019"
        np.testing.assert_array_equal(read(root / f"leftImg8bit/{stem}_leftImg8bit.png"), image)
        native = read(root / f"gtFine/{stem}_gtFine_labelIds.png")
        np.testing.assert_array_equal(labels.TABLES["cityscapes"][native], train_ids)
        seen |= set(native[train_ids == labels.IGNORE].tolist())
    assert seen == {miniature.EGO_VEHICLE}


def test_splits_share_no_city_and_no_image(world):
    root = world / "cityscapes/leftImg8bit"
    cities = [{path.name for path in (root / s).iterdir()} for s in ("train", "val", "test")]
    assert sum(map(len, cities)) == len(set.union(*cities))
    folders = ("cityscapes/leftImg8bit", "gta5/images", "synthia/RGB")
    images = [path.read_bytes() for folder in folders for path in (world / folder).rglob("*.png")]
    assert len(images) == 18 and len(set(images)) == 18


def test_a_failed_write_leaves_the_old_world_and_nothing_else(tmp_path, monkeypatch):
    write("synthia", tmp_path / "synthia", train=1)
    before = sorted(tmp_path.rglob("*"))
    draw = miniature.draw

    def fail_at_the_third(domain, split, index, **more):
        if index == 2:
            raise RuntimeError("disk on fire")
        return draw(domain, split, index, **more)

    monkeypatch.setattr(miniature, "draw", fail_at_the_third)
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
        ("kitti", {"train": 1}, "no domain 'kitti'"),
        ("kitti", {}, "no domain 'kitti'"),
    ],
)
def test_an_impossible_world_is_refused_before_anything_is_written(
    tmp_path, domain, images, sentence
):
    with pytest.raises(ValueError, match=sentence):
        write(domain, tmp_path / "world", **images)
    assert not any(tmp_path.iterdir())
