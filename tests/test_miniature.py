"""The miniature world: repeatable, the same scene in every look, a class mix of its own."""

import numpy as np
import pytest

from madan import labels, miniature

SIZE = (32, 64)


def scene(domain: str, index: int = 0, split: str = "train", **more):
    return miniature.draw(domain, split, index, **({"seed": 0, "size": SIZE} | more))


def classes_of(domain: str, scenes: int) -> set[str]:
    drawn = [scene(domain, index, size=(64, 128))[1] for index in range(scenes)]
    return {labels.CLASSES[k] for k in np.unique(drawn) if k != labels.IGNORE}


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
