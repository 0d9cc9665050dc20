"""Tables: one line for each row and seed, with the protocol that made the number."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from madan import labels, scores

SUBSETS = {
    "miou19": tuple(range(len(labels.CLASSES))),
    "miou16": labels.CLASSES_16,
    "miou13": labels.CLASSES_13,
}


class Score(NamedTuple):
    """A line of a table before it is one: where the score lies and whose it is."""

    row: str
    setting: str
    path: Path
    certificate: dict[str, str]


def lines(found: Sequence[Score]) -> pd.DataFrame:
    """IoU per class in percent (empty where a class does not count), means and protocol."""
    return pd.DataFrame([_line(score) for score in found])


def metrics(table: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Mean over seeds of each row's mIoU, in percent."""
    means = table.groupby("row", sort=False)[list(SUBSETS)].mean()
    return {str(row): values.round(2).to_dict() for row, values in means.iterrows()}


def _line(score: Score) -> dict[str, Any]:
    said = json.loads(score.path.read_text())
    confusion = np.array(said["confusion"], np.int64)
    ious = 100 * scores.iou(confusion)
    return {
        "scale": said["scale"],
        "row": score.row,
        "setting": score.setting,
        "seed": said["seed"],
        **{name: round(iou, 2) for name, iou in zip(labels.CLASSES, ious.tolist(), strict=True)},
        **{n: round(100 * scores.mean_iou(confusion, ids), 2) for n, ids in SUBSETS.items()},
        "pixel_accuracy": round(100 * scores.pixel_accuracy(confusion), 2),
        "classes": int(np.isfinite(ious).sum()),
        "target": said["target"],
        "split": said["split"],
        "images": said["images"],
        "resolution": said["resolution"],
        "step": said["step"],
        "settings": score.certificate["settings"],
        "data": score.certificate["data"],
        "code": score.certificate["code"],
    }
