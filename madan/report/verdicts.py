"""Published figures beside ours: difference, verdict, rows of other methods, remarks.

All of it is for `scale: paper`; numbers of the miniature are never compared with published ones.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from madan import published
from madan.config.schema import Params, Row, Table, Verdict
from madan.data import layouts
from madan.report import tables

# Fewer seeds do not tell how much a result varies with the seed.
SEEDS = 3
SPLIT = "val"  # The published figures are measured on the val split of Cityscapes and BDD100K.
# Where the numbers of a row come from.
MEASURED, ONLY = "measured", "published only"
OWN_NETWORK = "VGG-16"
NOTE_ON_NETWORK = (
    "Rows with ResNet-101 are of DeepLabV2 on ResNet-101, another network than FCN-8s on VGG-16, "
    "which the runs here have: the two cannot be compared."
)


class Line(NamedTuple):
    """A line of a page: a row of params.yaml, a published figure, or both."""

    name: str
    setting: str
    row: Row | None
    figure: published.Figure | None


def applies(table: Table, params: Params) -> bool:
    """Tell whether a table is set beside published figures: at full size, if a row names one."""
    return params.scale == published.SCALE and any(row.published for row in table.rows)


def arranged(table: Table, params: Params) -> list[Line]:
    """List the rows of a table, at full size with the published rows that it does not run.

    These are all other lines of the published tables that its rows name, in the order of print:
    each follows the last row whose figure is printed before it.
    """
    if not applies(table, params):
        return [Line(row.row, row.setting, row, None) for row in table.rows]
    known = published.figures(table.target)
    order = list(known)
    lines = [Line(r.row, r.setting, r, known.get(r.published or "")) for r in table.rows]
    named = {row.published for row in table.rows if row.published}
    printed = {known[key].table for key in named}
    for key, figure in known.items():
        if key in named or figure.table not in printed:
            continue
        before = set(map(known.get, order[: order.index(key)]))
        after = [at for at, line in enumerate(lines, 1) if line.figure and line.figure in before]
        lines.insert(max(after, default=0), Line(figure.method, figure.setting, None, figure))
    return lines


def verdict(
    n: int,
    difference: float,
    deviation: float,
    figure: published.Figure | None,
    near: Verdict,
    mismatch: str = "",
) -> str:
    """Judge the distance of a row's mean from its published figure; empty without a figure.

    `difference` and `deviation`, the standard deviation of the n seeds, are in points; `mismatch`
    says why the two are not measured alike, if they are not (function `mismatch`).
    """
    if n == 0:
        return "not run"
    if figure is None:
        return ""
    if mismatch:
        return f"not compared: {mismatch}"
    if not figure.confirmed:
        return "published figure unconfirmed"
    if abs(difference) <= near.points:
        return "reproduced"
    if n >= SEEDS and abs(difference) <= near.deviations * deviation:
        return "within seed noise"
    return "off"


def stated(word: str, figure: published.Figure | None) -> str:
    """Add to a verdict whose training and evaluation the published figure comes from."""
    if figure is None or not figure.protocol or word == "not run":
        return word
    return f"{word} (published with {figure.protocol})"


def mismatch(mine: pd.DataFrame, table: Table, params: Params) -> str:
    """Say why lines are not measured as the published figures are; empty if they are.

    The figures are of all images of the release's val split, 500 of Cityscapes and 1000 of BDD100K,
    and their mean is over 16 classes.
    """
    split = params.evaluation.split
    if split != SPLIT:
        return f"measured on {split}, published on {SPLIT}"
    layout = layouts.LAYOUTS.get(params.domains[table.target].layout or "")
    released = layout.counts.get(SPLIT) if layout else None
    if released is None:
        return "the number of images of the release is not known"
    counts = sorted(set(mine["images"].tolist()))
    if counts not in ([], [released]):
        return f"{' or '.join(map(str, counts))} of {released} images"
    over = [name for name in tables.SHOWN if all(name in x.split(", ") for x in mine["mean_over"])]
    if len(over) < len(tables.SHOWN):
        return f"mean over {len(over)} of {len(tables.SHOWN)} classes"
    return ""


def compared(made: pd.DataFrame, table: Table, params: Params) -> pd.DataFrame:
    """Average rows over seeds (`tables.summary`) and set published figures beside them.

    At full size there are the published rows that the table does not run, too, with n = 0, and the
    columns origin (measured, or published only), published, difference (points, NaN where nothing
    is compared), verdict and, for each of the 16 classes, `published <class>`.
    """
    found = tables.summary(made, table)
    if not applies(table, params):
        return found
    means = {row["row"]: row for row in found.to_dict("records")}
    lines = [
        _beside(line, means.get(line.name if line.row else ""), made, table, params)
        for line in arranged(table, params)
    ]
    return pd.DataFrame(lines)


def _beside(
    line: Line, mean: Mapping[Any, Any] | None, made: pd.DataFrame, table: Table, params: Params
) -> dict[str, Any]:
    """Make a row of `compared`; `mean` is its line of the summary, None if it is not run here."""
    figure = line.figure
    classes: Sequence[float] = figure.ious if figure and figure.ious else [np.nan] * 16
    found: dict[str, Any] = {
        "origin": MEASURED if line.row else ONLY,
        "published": figure.miou16 if figure else np.nan,
        "difference": np.nan,
        **{f"published {name}": iou for name, iou in zip(tables.SHOWN, classes, strict=True)},
    }
    if mean is None:
        seen = "" if figure and figure.confirmed else ", seen in one source"
        return {"row": line.name, "setting": line.setting, "n": 0, "verdict": ONLY + seen} | found
    reason = mismatch(tables.of(made, line.name), table, params) if figure else ""
    if figure and not reason:
        found["difference"] = round(mean["miou16"] - figure.miou16, 2)
    word = verdict(
        mean["n"], found["difference"], mean["miou16_sd"], figure, params.evaluation.verdict, reason
    )
    return dict(mean) | found | {"verdict": stated(word, figure)}


def lines(made: pd.DataFrame, table: Table, params: Params) -> pd.DataFrame:
    """Complete the lines of a table for its CSV: at full size with what is published.

    The columns that are appended then: origin (measured, or published only), published, difference
    (of this line's mIoU16, in points), verdict (of the row, over its seeds), what
    `published.Figure` says of the figure, and the published value and the difference of each class.
    """
    if not applies(table, params):
        return made
    known = [line.figure for line in arranged(table, params)]
    appended = []
    for (_, row), figure in zip(compared(made, table, params).iterrows(), known, strict=True):
        if row["origin"] == ONLY:
            bare = {"scale": params.scale, "target": table.target}
            appended.append(bare | row[["row", "setting"]].to_dict() | _about(row, figure))
        for line in tables.of(made, row["row"]).to_dict("records"):
            appended.append(line | _about(row, figure) | _measured(line, row))
    columns = dict.fromkeys([*made.columns, *(name for line in appended for name in line)])
    whole = pd.DataFrame(appended, columns=list(columns))
    integers = [name for name in made.columns if made[name].dtype.kind == "i"]
    return whole.astype(dict.fromkeys(integers, "Int64"))


def _about(row: pd.Series, figure: published.Figure | None) -> dict[str, Any]:
    """Say in columns of the CSV what is published for a row."""
    return {
        "origin": row["origin"],
        "published": row["published"],
        "difference": np.nan,
        "verdict": row["verdict"],
        "published_mark": figure.mark if figure else "",
        "published_network": figure.network if figure else "",
        "published_protocol": figure.protocol if figure else "",
        "published_source": figure.source if figure else "",
        **{f"published {name}": row[f"published {name}"] for name in tables.SHOWN},
        **{f"difference {name}": np.nan for name in tables.SHOWN},
    }


def _measured(line: Mapping[Any, Any], row: pd.Series) -> dict[str, Any]:
    """Subtract the published values of a row from one of its lines, where they are compared."""
    if pd.isna(row["difference"]):
        return {}
    apart = {f"difference {n}": round(line[n] - row[f"published {n}"], 2) for n in tables.SHOWN}
    return {"difference": round(line["miou16"] - row["published"], 2)} | apart


def notes(table: Table, params: Params) -> list[str]:
    """Say what a reader has to know of the published figures of a table, a sentence each."""
    if not applies(table, params):
        return []
    known = published.figures(table.target)
    found = []
    for name, _, _, figure in arranged(table, params):
        if figure is None:
            continue
        other = known.get(figure.also)
        if other and other.miou16 != figure.miou16:
            found.append(_two_figures(name, figure, other))
        found.append(figure.note)
        found.append(NOTE_ON_NETWORK if figure.network != OWN_NETWORK else "")
    return list(dict.fromkeys(note for note in found if note))


def _two_figures(name: str, figure: published.Figure, other: published.Figure) -> str:
    return (
        f"{name} has two published figures: {figure.miou16} ({figure.setting}, {figure.method}) "
        f"and {other.miou16} ({other.setting}, {other.method}). Its difference and verdict are "
        f"about the first, {figure.miou16}."
    )
