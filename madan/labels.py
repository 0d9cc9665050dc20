"""The one label table: 19 Cityscapes classes, their subsets and colours, every dataset's ids.

Not a box of the paper's figure but what its three datasets share: GTA5, SYNTHIA and BDDS or
Cityscapes are compared on the 19 classes (Cordts et al., 2016), or the 16 that SYNTHIA has too.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.uint8]

IGNORE = 255
UNKNOWN = 254  # in a table: an id or a colour that the dataset does not have

CLASSES = (
    "road",
    "sidewalk",
    "building",
    "wall",
    "fence",
    "pole",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "train",
    "motorcycle",
    "bicycle",
)

# SYNTHIA has no terrain, truck or train that counts; the older 13-class protocol
# leaves out wall, fence and pole as well.
CLASSES_16 = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)
CLASSES_13 = (0, 1, 2, 6, 7, 8, 10, 11, 12, 13, 15, 17, 18)

PALETTE: Labels = np.array(
    [
        (128, 64, 128),
        (244, 35, 232),
        (70, 70, 70),
        (102, 102, 156),
        (190, 153, 153),
        (153, 153, 153),
        (250, 170, 30),
        (220, 220, 0),
        (107, 142, 35),
        (152, 251, 152),
        (70, 130, 180),
        (220, 20, 60),
        (255, 0, 0),
        (0, 0, 142),
        (0, 0, 70),
        (0, 60, 100),
        (0, 80, 100),
        (0, 0, 230),
        (119, 11, 32),
    ],
    dtype=np.uint8,
)

# The position is the train id, the number the Cityscapes label id; GTA5 uses the same label ids.
_LABEL_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# Native id: train id.
_CITYSCAPES = {label_id: train_id for train_id, label_id in enumerate(_LABEL_IDS)}
_SYNTHIA = {
    1: 10,
    2: 2,
    3: 0,
    4: 1,
    5: 4,
    6: 8,
    7: 5,
    8: 13,
    9: 7,
    10: 11,
    11: 18,
    12: 17,
    15: 6,
    16: 9,
    17: 12,
    18: 14,
    19: 15,
    20: 16,
    21: 3,
}
_CAMVID = {0: 10, 1: 2, 2: 5, 3: 0, 4: 1, 5: 8, 6: 7, 7: 4, 8: 13, 9: 11, 10: 12}


def _table(pairs: dict[int, int], otherwise: int) -> Labels:
    table = np.full(256, otherwise, dtype=np.uint8)
    for native, onto in pairs.items():
        table[native] = onto
    table.setflags(write=False)
    return table


TABLES: dict[str, Labels] = {
    "cityscapes": _table(_CITYSCAPES, IGNORE),
    "gta5": _table(_CITYSCAPES, IGNORE),
    "synthia": _table(_SYNTHIA, IGNORE),
    "bdd100k": _table({train_id: train_id for train_id in range(len(CLASSES))}, IGNORE),
    "camvid": _table(_CAMVID, IGNORE),
}

_TO_LABEL_IDS = _table(dict(enumerate(_LABEL_IDS)), 0)

# Colours of what is not counted: the Cityscapes scripts' (labels.py), and GTA5's for `static`.
VOID_COLOURS = (
    (0, 0, 0),
    (20, 20, 20),
    (111, 74, 0),
    (81, 0, 81),
    (250, 170, 160),
    (230, 150, 140),
    (180, 165, 180),
    (150, 100, 100),
    (150, 120, 90),
    (0, 0, 90),
    (0, 0, 110),
)
# Label ids that are not counted but have a class's colour: a group of poles, a licence plate.
SHARED_COLOURS = {18: (153, 153, 153), 34: (0, 0, 142)}

_COLOURS = np.zeros((256, 3), dtype=np.uint8)
_COLOURS[: len(CLASSES)] = PALETTE


def look_up(table: Labels, ids: NDArray[np.integer]) -> Labels:
    """The table's entries (uint8 [n]) at ids of any shape; quick for [h,w] uint8 and n = 256."""
    if ids.dtype != np.uint8 or ids.ndim != 2 or not ids.size or len(table) != 256:
        return np.take(table, ids)
    import cv2

    return np.asarray(cv2.LUT(ids, table))


def to_train_ids(native: NDArray[np.integer], layout: str) -> Labels:
    """Map native ids (any integers, any shape) of a layout onto train ids 0..18 or IGNORE, uint8.

    Raises ValueError for a layout without a table and for an id outside 0..255: no layout has such
    ids, so they mean that a wrong channel was read.
    """
    if layout not in TABLES:
        raise ValueError(f"No label table for layout {layout!r}; there are {', '.join(TABLES)}.")
    return _look_up(TABLES[layout], native, f"{layout} label ids")


def to_label_ids(train_ids: NDArray[np.integer]) -> Labels:
    """Map train ids (any shape) to the label ids of the Cityscapes server, uint8, the rest to 0.

    Raises ValueError for an id outside 0..255.
    """
    return _look_up(_TO_LABEL_IDS, train_ids, "train ids")


def colour(train_ids: NDArray[np.integer]) -> Labels:
    """Colour train ids [h,w] with the Cityscapes palette as RGB uint8 [h,w,3]; ignored is black.

    Raises ValueError for an id outside 0..255.
    """
    return _look_up(_COLOURS, train_ids, "train ids")


def key(colour: Sequence[int]) -> int:
    """Write a colour (red, green, blue, each 0..255) as one number below 2 ** 24."""
    red, green, blue = (int(part) for part in colour)
    return red << 16 | green << 8 | blue


# The train id that each colour of the releases stands for.
BY_COLOUR = {key(colour): IGNORE for colour in VOID_COLOURS} | {
    key(colour): train_id for train_id, colour in enumerate(PALETTE)
}


def _look_up(table: Labels, ids: NDArray[np.integer], what: str) -> Labels:
    if not np.issubdtype(ids.dtype, np.integer):
        raise ValueError(f"{what.capitalize()} must be integers, not {ids.dtype}.")
    if ids.dtype != np.uint8 and ids.size and (ids.min() < 0 or ids.max() > 255):
        raise ValueError(f"{what.capitalize()} must lie in 0..255, found {ids.min()}..{ids.max()}.")
    return look_up(table, ids) if table.ndim == 1 else np.take(table, ids, axis=0)
