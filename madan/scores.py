"""From labels and predictions to the numbers of the paper's tables: count first, divide last.

One confusion matrix is summed over a split, and only then IoU and mIoU are lines on it, as in the
Cityscapes protocol (Cordts et al., 2016).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from madan.labels import IGNORE

Counts = NDArray[np.int64]

# Pixels counted at a time: OpenCV gives counts as fp32, which holds whole numbers up to here.
_EXACT = 2**24


def confusion(label: NDArray[np.integer], prediction: NDArray[np.integer], classes: int) -> Counts:
    """Count pixels by label (row) and prediction (column): two arrays of one shape to [C,C].

    Labels IGNORE are not counted, whatever is predicted there. Raises ValueError for shapes that
    differ, and for a counted label or prediction outside 0..classes-1.
    """
    if label.shape != prediction.shape:
        raise ValueError(f"The label is {label.shape} but the prediction {prediction.shape}.")
    pairs = _pairs(_bytes(label, "label", classes), _bytes(prediction, "prediction", classes))
    pairs[IGNORE] = 0
    for name, counts in (("label", pairs.sum(axis=1)), ("prediction", pairs.sum(axis=0))):
        wrong = (np.flatnonzero(counts[classes:]) + classes).tolist()
        if wrong:
            raise ValueError(f"A {name} must be one of 0..{classes - 1}, found {wrong}.")
    return pairs[:classes, :classes]


def iou(confusion: Counts) -> NDArray[np.float64]:
    """Intersection over union of each class, [C,C] to [C] in 0..1.

    NaN where a class has neither label nor prediction: it is absent, not wrong.
    """
    intersection = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return _ratio(intersection, union)


def mean_iou(confusion: Counts, subset: Sequence[int]) -> float:
    """Average the IoU, 0..1, over those classes of the subset that occur; NaN if none does."""
    values = iou(confusion)[list(subset)]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def pixel_accuracy(confusion: Counts) -> float:
    """Share of counted pixels whose class is right, 0..1; NaN if none was counted."""
    return float(_ratio(np.trace(confusion), confusion.sum()))


def _pairs(label: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Counts:
    """How often each value of one array meets each of the other, [256,256]."""
    import cv2

    total = np.zeros((256, 256), np.int64)
    label, prediction = label.reshape(-1, 1), prediction.reshape(-1, 1)
    for first in range(0, len(label), _EXACT):
        part = [label[first : first + _EXACT], prediction[first : first + _EXACT]]
        total += cv2.calcHist(part, [0, 1], None, [256, 256], [0, 256] * 2).astype(np.int64)
    return total


def _bytes(ids: NDArray[np.integer], name: str, classes: int) -> NDArray[np.uint8]:
    if ids.dtype != np.uint8 and ids.size and (ids.min() < 0 or ids.max() > IGNORE):
        wrong = np.unique(ids[(ids < 0) | (ids > IGNORE)]).tolist()
        raise ValueError(f"A {name} must be one of 0..{classes - 1}, found {wrong}.")
    return np.ascontiguousarray(ids, np.uint8)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.divide(part, whole, dtype=np.float64)
