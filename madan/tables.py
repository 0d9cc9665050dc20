"""Tables: one line for each row and seed, with the protocol that made the number; what follows
from the lines: means over seeds, paired differences, and how near the paper's figures they come.
"""

import json
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

from madan import labels, published, scores
from madan.schema import Params, Table, Verdict

SUBSETS = {
    "miou19": tuple(range(len(labels.CLASSES))),
    "miou16": labels.CLASSES_16,
    "miou13": labels.CLASSES_13,
}
PROTOCOL = (
    "pixel_accuracy", "classes", "target", "split", "images", "resolution", "step", "torch",
    "settings", "data", "code",
)  # fmt: skip
COLUMNS = ("scale", "row", "setting", "seed", *labels.CLASSES, *SUBSETS, *PROTOCOL)
SHOWN = tuple(labels.CLASSES[k] for k in labels.CLASSES_16)  # the paper's columns
CONFIDENCE = 0.95


class Score(NamedTuple):
    """A line of a table before it is one: where the score lies and whose it is."""

    row: str
    setting: str
    path: Path
    certificate: dict[str, str]


def lines(found: Sequence[Score]) -> pd.DataFrame:
    """IoU per class in percent (empty where a class does not count), means and protocol."""
    return pd.DataFrame([_line(score) for score in found], columns=list(COLUMNS))


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


def summary(made: pd.DataFrame, table: Table, params: Params) -> pd.DataFrame:
    """One line for each row of a table: number of seeds n, means over them, standard deviations.

    Percent; NaN where nothing was made, and deviations of fewer than two seeds. The published
    figure, the difference from it and the verdict are there at `scale: paper` alone.
    """
    found = pd.DataFrame([_means(row.row, row.setting, _of(made, row.row)) for row in table.rows])
    if params.scale != "paper" or not any(row.published for row in table.rows):
        return found
    known = published.figures(table.target)
    figures = [known[row.published] if row.published else None for row in table.rows]
    found["published"] = [figure.miou16 if figure else np.nan for figure in figures]
    found["difference"] = (found["miou16"] - found["published"]).round(2)
    found["verdict"] = [
        verdict(n, difference, deviation, figure, params.evaluation.verdict)
        for n, difference, deviation, figure in zip(
            found["n"], found["difference"], found["miou16_sd"], figures, strict=True
        )
    ]
    return found


def verdict(
    n: int, difference: float, deviation: float, figure: published.Figure | None, near: Verdict
) -> str:
    """What a row's distance from the published figure says, in words; empty without a figure.

    Only confirmed figures are compared with; `deviation` is that of the n seeds, NaN for one.
    """
    if n == 0:
        return "not run"
    if figure is None:
        return ""
    if not figure.confirmed:
        return "published figure unconfirmed"
    if abs(difference) <= near.points:
        return "reproduced"
    if abs(difference) <= near.deviations * deviation:
        return "within seed noise"
    return "off"


def differences(made: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Each row minus the rows it is compared with: over seeds that both have, for each mean.

    Mean difference in points, standard deviation, and the ends of its 95 % confidence interval by
    Student's t, which one seed does not have.
    """
    pairs = [
        (row.row, other)
        for row in table.rows
        for other in dict.fromkeys((table.against, row.against))
        if other and other != row.row
    ]
    found = {row.row: _of(made, row.row) for row in table.rows}
    lines = [
        {"row": row, "against": other} | line
        for row, other in pairs
        for line in _differences(found[row], found[other])
    ]
    return pd.DataFrame(
        lines,
        columns=["scale", "row", "against", "mean", "n", "difference", "sd", "low", "high", "data"],
    )


def _of(made: pd.DataFrame, row: str) -> pd.DataFrame:
    return made[made["row"] == row]


def _means(row: str, setting: str, mine: pd.DataFrame) -> dict[str, Any]:
    values = mine[[*SHOWN, *SUBSETS]].astype(float)
    return {
        "row": row,
        "setting": setting,
        "n": len(mine),
        **values.mean().to_dict(),
        **{f"{name}_sd": values[name].std() for name in SUBSETS},
    }


def _differences(mine: pd.DataFrame, others: pd.DataFrame) -> list[dict[str, Any]]:
    """A line for each mean; the two rows are paired by seed."""
    means = list(SUBSETS)
    pair = [lines.set_index("seed")[means].astype(float) for lines in (mine, others)]
    apart = (pair[0] - pair[1]).dropna(how="all")
    once = {what: " ".join(mine[what].unique()) for what in ("scale", "data")}
    return [once | {"mean": mean} | _interval(apart[mean].dropna().to_numpy()) for mean in means]


def _interval(apart: np.ndarray) -> dict[str, Any]:
    n, middle = len(apart), apart.mean() if len(apart) else np.nan
    deviation = apart.std(ddof=1) if n > 1 else np.nan
    half = student.ppf((1 + CONFIDENCE) / 2, n - 1) * deviation / sqrt(n) if n > 1 else np.nan
    numbers = {"difference": middle, "sd": deviation, "low": middle - half, "high": middle + half}
    return {"n": n} | {name: round(float(number), 2) for name, number in numbers.items()}
