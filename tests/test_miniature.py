"""The miniature world: repeatable, the same scene in every look, a class mix of its own."""

import hashlib

import numpy as np
import pytest

from madan import labels
from madan.miniature import world

SIZE = (32, 64)


def scene(domain: str, index: int = 0, split: str = "train", **more):
    return world.draw(domain, split, index, **({"seed": 0, "size": SIZE} | more))


def classes_of(domain: str, scenes: int) -> set[str]:
    drawn = [scene(domain, index, size=(64, 128))[1] for index in range(scenes)]
    return {labels.CLASSES[k] for k in np.unique(drawn) if k != labels.IGNORE}


@pytest.mark.parametrize("domain", world.CONTENTS)
def test_same_seed_draws_the_same_bytes(domain):
    for once, again in zip(scene(domain), scene(domain), strict=True):
        assert once.tobytes() == again.tobytes()


def digest_of(domain: str, looks) -> str:
    sha = hashlib.sha256()
    for split in world.SPLITS[domain]:
        for index in range(3):
            for look in (None, *looks):
                for part in scene(domain, index, split, size=(64, 128), look=look):
                    sha.update(part.tobytes())
    return sha.hexdigest()[:16]


@pytest.mark.parametrize(
    ("domain", "digest"),
    [
        ("gta5", "280c4d038b1c9ed5"),
        ("synthia", "79a25b4fc14d74cf"),
        ("cityscapes", "10f9a8477faf4f98"),
    ],
)
def test_a_further_domain_leaves_the_pixels_of_the_first_three_as_they_were(domain, digest):
    assert digest_of(domain, ("gta5", "synthia", "cityscapes")) == digest


def test_the_second_target_is_another_place_and_another_camera():
    """Darker, redder and on wider roads than the first; its pixels are these."""
    drawn = {
        target: [scene(target, index, size=(64, 128)) for index in range(20)]
        for target in ("cityscapes", "bdd100k")
    }
    mean = {
        target: np.mean([image for image, _ in pairs], (0, 1, 2)) for target, pairs in drawn.items()
    }
    assert mean["bdd100k"].sum() < 0.8 * mean["cityscapes"].sum()
    red = {target: values[0] / values[2] for target, values in mean.items()}
    assert red["bdd100k"] > 1.2 * red["cityscapes"]
    road = {t: np.mean([label == 0 for _, label in pairs]) for t, pairs in drawn.items()}
    assert road["bdd100k"] > road["cityscapes"]
    assert digest_of("bdd100k", ()) == "0b6cfdcda5adde25"


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


@pytest.mark.parametrize("domain", world.CONTENTS)
@pytest.mark.parametrize("look", world.LOOKS)
def test_a_look_changes_the_image_but_never_the_label(domain, look):
    for index in range(4):
        image, label = scene(domain, index)
        seen, same_label = scene(domain, index, look=look)
        np.testing.assert_array_equal(label, same_label)
        assert (image != seen).any() == (look != domain)


@pytest.mark.parametrize("size", [(16, 16), (24, 80), (96, 48)])
@pytest.mark.parametrize("domain", world.CONTENTS)
def test_the_size_asked_for_is_the_size_drawn(domain, size):
    image, label = scene(domain, size=size)
    assert image.shape == (*size, 3) and image.dtype == np.uint8
    assert label.shape == size and label.dtype == np.uint8


def test_a_scene_fills_its_bottom_rows_with_ground_at_any_size():
    for size in ((32, 64), (96, 48), (48, 160)):
        for index in range(6):
            bottom = scene("synthia", index, size=size)[1][-1]
            assert labels.CLASSES.index("sky") not in bottom


@pytest.mark.parametrize("target", ["cityscapes", "bdd100k"])
def test_each_target_shows_all_19_classes(target):
    assert classes_of(target, 40) == set(labels.CLASSES)


def test_each_source_misses_classes_and_together_they_cover_all_19():
    gta5, synthia = classes_of("gta5", 40), classes_of("synthia", 40)
    assert set(labels.CLASSES) - gta5 == {"bicycle", "bus", "motorcycle", "rider"}
    assert set(labels.CLASSES) - synthia == {"terrain", "train", "truck", "wall"}
    assert gta5 | synthia == set(labels.CLASSES)


def test_only_the_targets_have_ignored_pixels_and_they_lie_at_the_bottom():
    drawn = {
        domain: np.stack([scene(domain, index)[1] for index in range(12)]) == labels.IGNORE
        for domain in world.CONTENTS
    }
    assert not drawn["gta5"].any() and not drawn["synthia"].any()
    for target in ("cityscapes", "bdd100k"):
        assert 0 < drawn[target].mean() < 0.06
        assert not drawn[target][:, : SIZE[0] * 3 // 4].any()


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
