"""Confusion matrix, IoU and mIoU: pixels are counted over a whole split, then divided once.

The protocol is that of Cityscapes (Cordts et al., 2016). Means are over the classes that the truth
of the split labels, so that every segmenter scored on the split is averaged over the same classes.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from madan.labels import IGNORE

Counts = NDArray[np.int64]

# Pixels counted at a time: OpenCV returns counts as fp32, which is exact up to this number.
_EXACT = 2**24


def confusion(label: NDArray[np.integer], prediction: NDArray[np.integer], classes: int) -> Counts:
    """Count pixels by label (row) and prediction (column): two arrays of one shape to [C,C].

    Pixels with the label IGNORE are not counted, whatever the prediction is. Raises ValueError if
    the shapes differ, or if a counted label or prediction lies outside 0..classes-1.
    """
    if label.shape != prediction.shape:
        raise ValueError(
            f"The label has the shape {label.shape} but the prediction {prediction.shape}."
        )
    pairs = _pairs(_bytes(label, "label", classes), _bytes(prediction, "prediction", classes))
    pairs[IGNORE] = 0
    for name, counts in (("label", pairs.sum(axis=1)), ("prediction", pairs.sum(axis=0))):
        wrong = (np.flatnonzero(counts[classes:]) + classes).tolist()
        if wrong:
            raise ValueError(f"A {name} must be one of 0..{classes - 1}, but it is {wrong}.")
    return pairs[:classes, :classes]


def labelled(confusion: Counts) -> NDArray[np.bool_]:
    """Return which classes have at least one pixel in the truth, [C,C] to [C]."""
    return confusion.sum(axis=1) > 0


def iou(confusion: Counts) -> NDArray[np.float64]:
    """Compute the intersection over union of each class, [C,C] to [C] in 0..1.

    A class without a pixel in the truth has NaN, even if it is predicted somewhere: such pixels
    count as errors of the classes that the truth has there.
    """
    intersection = np.diag(confusion)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - intersection
    return np.where(labelled(confusion), _ratio(intersection, union), np.nan)


def mean_iou(confusion: Counts, subset: Sequence[int]) -> float:
    """Average the IoU, 0..1, over the classes of the subset that the truth labels.

    Which classes these are does not depend on the predictions. NaN if the truth labels none.
    """
    values = iou(confusion)[list(subset)]
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def pixel_accuracy(confusion: Counts) -> float:
    """Compute the share of counted pixels with the right class, 0..1; NaN if none is counted."""
    return float(_ratio(np.trace(confusion), confusion.sum()))


def _pairs(label: NDArray[np.uint8], prediction: NDArray[np.uint8]) -> Counts:
    """Count how often each value of one array meets each value of the other, [256,256]."""
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
        raise ValueError(f"A {name} must be one of 0..{classes - 1}, but it is {wrong}.")
    return np.ascontiguousarray(ids, np.uint8)


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore"):
        return np.divide(part, whole, dtype=np.float64)
