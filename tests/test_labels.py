"""The label tables against the Cityscapes scripts and the released code's tables."""

from pathlib import Path

import numpy as np
import pytest
from cityscapesscripts.helpers import labels as official
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from madan import labels

GOLDEN = np.load(Path(__file__).parent / "golden" / "labels.npz")
EVALUATED = [label for label in official.labels if 0 <= label.trainId < labels.IGNORE]


def test_classes_and_palette_are_those_of_cityscapes():
    for label in EVALUATED:
        assert labels.CLASSES[label.trainId] == label.name
        assert tuple(labels.PALETTE[label.trainId]) == label.color
    assert len(labels.CLASSES) == len(labels.PALETTE) == len(EVALUATED) == 19


def test_subsets_leave_out_what_synthia_lacks():
    missing = {labels.CLASSES[i] for i in set(range(19)) - set(labels.CLASSES_16)}
    assert missing == {"terrain", "truck", "train"}
    missing = {labels.CLASSES[i] for i in set(labels.CLASSES_16) - set(labels.CLASSES_13)}
    assert missing == {"wall", "fence", "pole"}


@pytest.mark.parametrize("layout", ["cityscapes", "gta5"])
def test_cityscapes_ids_are_the_official_ones(layout):
    expected = np.full(256, labels.IGNORE)
    for label in EVALUATED:
        expected[label.id] = label.trainId
    assert (labels.TABLES[layout] == expected).all()
    assert (labels.TABLES[layout] == GOLDEN["cityscapes"]).all()


def test_the_wrong_table_of_the_release_is_not_repeated():
    # Its segmentation half maps Cityscapes and GTA5 with SYNTHIA's table: 4 of 34 ids come right.
    agree = labels.TABLES["cityscapes"][:34] == GOLDEN["cityscapes_as_shipped"][:34]
    assert agree.sum() == 4


def test_synthia_ids_are_the_released_ones():
    assert (labels.TABLES["synthia"] == GOLDEN["synthia"]).all()


def test_bdd100k_ids_are_train_ids():
    table = labels.TABLES["bdd100k"]
    assert table[:19].tolist() == list(range(19))
    assert (table[19:] == labels.IGNORE).all()


def test_camvid_ids_by_name():
    names = ["sky", "building", "pole", "road", "sidewalk", "vegetation", "traffic sign", "fence"]
    names += ["car", "person", "rider"]
    table = labels.TABLES["camvid"]
    assert [labels.CLASSES[i] for i in table[: len(names)]] == names
    assert (table[len(names) :] == labels.IGNORE).all()


@given(
    hnp.arrays(st.sampled_from([np.uint8, np.uint16, np.int64]), st.just((3, 4))),
    st.sampled_from(sorted(labels.TABLES)),
)
def test_every_id_maps_to_a_class_or_ignore_and_others_are_refused(native, layout):
    if native.min() < 0 or native.max() > 255:
        with pytest.raises(ValueError, match="must lie in 0..255"):
            labels.to_train_ids(native, layout)
        return
    train_ids = labels.to_train_ids(native, layout)
    assert train_ids.dtype == np.uint8
    assert train_ids.shape == native.shape
    assert set(np.unique(train_ids)) <= {*range(19), labels.IGNORE}


@given(hnp.arrays(np.uint8, (5, 7)))
def test_label_ids_go_back_to_the_same_train_ids(train_ids):
    back = labels.to_train_ids(labels.to_label_ids(train_ids), "cityscapes")
    assert (back == np.where(train_ids < 19, train_ids, labels.IGNORE)).all()


def test_ignored_pixels_are_unlabelled_for_the_server_and_black():
    ignored = np.array([[labels.IGNORE, 0]], dtype=np.uint8)
    assert labels.to_label_ids(ignored).tolist() == [[0, 7]]
    assert labels.colour(ignored).tolist() == [[[0, 0, 0], [128, 64, 128]]]
    assert labels.colour(ignored).dtype == np.uint8


def test_an_unknown_layout_is_named_with_the_known_ones():
    with pytest.raises(ValueError, match="'kitti'.*cityscapes, gta5"):
        labels.to_train_ids(np.zeros((2, 2), np.uint8), "kitti")


def test_floating_labels_are_refused():
    with pytest.raises(ValueError, match="must be integers"):
        labels.to_train_ids(np.zeros((2, 2)), "gta5")  # type: ignore[arg-type]
