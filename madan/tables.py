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


def metrics(found: Sequence[Score]) -> dict[str, dict[str, float | None]]:
    """Mean over seeds of each row's mIoU, in percent; None where no class counted."""
    means: dict[str, dict[str, float | None]] = {}
    for row in dict.fromkeys(score.row for score in found):
        confusions = [_confusion(json.loads(s.path.read_text())) for s in found if s.row == row]
        for name, ids in SUBSETS.items():
            mean = float(np.mean([100 * scores.mean_iou(each, ids) for each in confusions]))
            means.setdefault(row, {})[name] = round(mean, 2) if np.isfinite(mean) else None
    return means


def _confusion(said: dict[str, Any]) -> np.ndarray:
    return np.array(said["confusion"], np.int64)


def _line(score: Score) -> dict[str, Any]:
    said = json.loads(score.path.read_text())
    confusion = _confusion(said)
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
        "torch": said["torch"],
        "settings": score.certificate["settings"],
        "data": score.certificate["data"],
        "code": score.certificate["code"],
    }
