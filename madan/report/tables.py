"""Tables: a line for each row and seed with its protocol, means over seeds, paired differences."""

import json
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import t as student

from madan import labels, published
from madan.config.schema import Table
from madan.errors import Refusal
from madan.evaluation import metrics

SUBSETS = {
    "miou19": tuple(range(len(labels.CLASSES))),
    "miou16": labels.CLASSES_16,
    "miou13": labels.CLASSES_13,
}
PROTOCOL = (
    "pixel_accuracy", "classes", "target", "split", "images", "resolution", "step", "torch",
    "settings", "data", "code", "mean_over",
)  # fmt: skip
COLUMNS = ("scale", "row", "setting", "seed", *labels.CLASSES, *SUBSETS, *PROTOCOL)
SHOWN = published.CLASSES  # the columns of the paper's tables
CONFIDENCE = 0.95


class Score(NamedTuple):
    """A score on disk: the row and setting it belongs to, its score.json, its certificate."""

    row: str
    setting: str
    path: Path
    certificate: dict[str, str]


def lines(found: Sequence[Score]) -> pd.DataFrame:
    """Read scores into the lines of a table, in percent: IoU of each class, means and protocol.

    A class that the truth does not label has NaN. `mean_over` names the classes that the means are
    over, `classes` is their number. Raises Refusal if that set is not the same in every score.
    """
    read = _read(found)
    return pd.DataFrame([_line(*each) for each in zip(found, read, strict=True)], columns=COLUMNS)


def averages(found: Sequence[Score]) -> dict[str, dict[str, float | None]]:
    """Average each row's mIoU over its seeds, in percent; None where the truth labels no class.

    Raises Refusal if the scores are not over the same classes.
    """
    confusions: dict[str, list[np.ndarray]] = {}
    for score, read in zip(found, _read(found), strict=True):
        confusions.setdefault(score.row, []).append(_confusion(read))
    means: dict[str, dict[str, float | None]] = {row: {} for row in confusions}
    for row, of_row in confusions.items():
        for name, ids in SUBSETS.items():
            mean = float(np.mean([100 * metrics.mean_iou(each, ids) for each in of_row]))
            means[row][name] = round(mean, 2) if np.isfinite(mean) else None
    return means


def members(found: Sequence[Score]) -> pd.DataFrame:
    """Score each dataset of a union by itself: a line for each row and dataset, in percent.

    Columns: row, dataset, the number of seeds n, and the mean over the seeds of the IoU of each
    class and of each mIoU. No lines if the target is one dataset.
    """
    lines = [
        {"row": score.row, "dataset": name, "n": 1} | _percent(np.array(confusion, np.int64))
        for score in found
        for name, confusion in json.loads(score.path.read_text()).get("members", {}).items()
    ]
    if not lines:
        return pd.DataFrame()
    means = dict.fromkeys([*labels.CLASSES, *SUBSETS], "mean")
    grouped = pd.DataFrame(lines).groupby(["row", "dataset"], sort=False, as_index=False)
    return grouped.agg({"n": "sum"} | means)


def _percent(confusion: np.ndarray) -> dict[str, float]:
    """The IoU of each class and each mIoU of a confusion matrix, in percent."""
    ious = (100 * metrics.iou(confusion)).tolist()
    classes = {name: round(iou, 2) for name, iou in zip(labels.CLASSES, ious, strict=True)}
    means = {n: round(100 * metrics.mean_iou(confusion, ids), 2) for n, ids in SUBSETS.items()}
    return classes | means


def _read(found: Sequence[Score]) -> list[dict[str, Any]]:
    """Read score.json of every score; Refusal where two are over different classes."""
    read = [json.loads(score.path.read_text()) for score in found]
    for score, each in zip(found, read, strict=True):
        if _mean_over(each) != _mean_over(read[0]):
            raise Refusal(
                f"{found[0].path} is over {_listed(_mean_over(read[0]))}, but {score.path} is over "
                f"{_listed(_mean_over(each))}; the rows of one table need the same labels, so "
                f"evaluate both again: madan evaluate {each['run']} "
                f"{each['target']}/{each['split']} --seed {each['seed']}"
            )
    return read


def _confusion(read: dict[str, Any]) -> np.ndarray:
    return np.array(read["confusion"], np.int64)


def _mean_over(read: dict[str, Any]) -> list[str]:
    return [labels.CLASSES[k] for k in np.flatnonzero(metrics.labelled(_confusion(read)))]


def _listed(names: Sequence[str]) -> str:
    return f"{len(names)} class{'es' * (len(names) != 1)} ({', '.join(names) or 'none'})"


def _line(score: Score, read: dict[str, Any]) -> dict[str, Any]:
    confusion = _confusion(read)
    over = _mean_over(read)
    return {
        "scale": read["scale"],
        "row": score.row,
        "setting": score.setting,
        "seed": read["seed"],
        **_percent(confusion),
        "pixel_accuracy": round(100 * metrics.pixel_accuracy(confusion), 2),
        "classes": len(over),
        "target": read["target"],
        "split": read["split"],
        "images": read["images"],
        "resolution": read["resolution"],
        "step": read["step"],
        "torch": read["torch"],
        "settings": score.certificate["settings"],
        "data": score.certificate["data"],
        "code": score.certificate["code"],
        "mean_over": ", ".join(over),
    }


def summary(made: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Average the lines of each row of a table over its seeds, in percent.

    Columns: row, setting, the number of seeds n, the mean of each class and of each mIoU, and the
    sample standard deviation of each mIoU (`miou16_sd`). NaN where a row has no line, and for the
    deviation of fewer than two seeds.
    """
    return pd.DataFrame([_means(row.row, row.setting, of(made, row.row)) for row in table.rows])


def pairs(table: Table) -> list[tuple[str, str]]:
    """List which row is compared with which: with the table's `against`, then with its own."""
    return [
        (row.row, other)
        for row in table.rows
        for other in dict.fromkeys((table.against, row.against))
        if other and other != row.row
    ]


def differences(made: pd.DataFrame, table: Table) -> pd.DataFrame:
    """Subtract from each row the rows it is compared with, seed by seed, for each mIoU.

    The mean difference over the seeds that both rows have, in points, its standard deviation, and
    the ends of its 95 % confidence interval by Student's t; one seed has neither.
    """
    found = {row.row: of(made, row.row) for row in table.rows}
    lines = [
        {"row": row, "against": other} | line
        for row, other in pairs(table)
        for line in _differences(found[row], found[other])
    ]
    return pd.DataFrame(
        lines,
        columns=["scale", "row", "against", "mean", "n", "difference", "sd", "low", "high", "data"],
    )


def of(made: pd.DataFrame, row: str) -> pd.DataFrame:
    """Select the lines of one row, a line for each seed."""
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
    """Compare two rows, paired by seed: a line for each mIoU."""
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
