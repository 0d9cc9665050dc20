"""Pages: a table as people read it, in Markdown and in LaTeX, and its lines as CSV.

Rows and columns are those of the paper. What the table says is stated above it in sentences.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from madan import labels
from madan.config.schema import Params
from madan.report import budgets, escaping, tables, verdicts
from madan.report.budgets import Budget

ABSENT = "–"
MEANS = {"miou16": "mIoU16", "miou19": "mIoU19", "miou13": "mIoU13"}
_ABOUT_DIFFERENCES = (
    "The next table compares rows in mIoU16 (scale {scale}): difference is the row minus the row "
    "in the column against, in points, averaged over the n seeds that both have. The interval "
    "holds the mean difference with 95 % confidence by Student's t. One seed gives no interval."
)
_ABOUT_VERDICTS = (
    "published is the published mIoU16. difference is mIoU16 minus the published one, in points.",
    "The verdict is reproduced if the difference is at most {points} in size. It is within seed "
    "noise if the difference is larger, but at most {deviations} standard deviations of at least "
    "{seeds} seeds. Otherwise it is off.",
    "The verdict is published figure unconfirmed if only one source has the figure, so nothing can "
    "be concluded. It is not compared if images or classes are not those of the published figure. "
    "It is not run if the row has no score.",
    "The verdict {only} marks a row of the published table that is not run here: all its numbers "
    "are published ones.",
    "The words in brackets say whose training and evaluation the published figure comes from.",
)
_ABOUT_CLASSES = (
    "The next table has the IoU of each class in percent: measured here, published, and their "
    "difference in points. It has the rows whose class values are published."
)
_ABOUT_BUDGETS = (
    "L_task steps is the number of training steps with the supervised loss behind a row's "
    "segmenter. L_task images is the number of images in these steps."
)
_ABOUT_MEMBERS = (
    "The target is a union. The next table has the scores on each of its datasets in percent, "
    "averaged over n seeds. Means are over the classes that the labels of that dataset contain."
)
_ABOUT_NOTES = (
    "The column budget of L_task says whether the two rows have the same L_task steps and images. "
    "If not, the difference does not show the effect of the method alone."
)


class Block(NamedTuple):
    """A part of a page: sentences, then a table of text cells whose first columns are words."""

    sentences: Sequence[str]
    cells: pd.DataFrame
    words: int


def files(
    made: pd.DataFrame,
    name: str,
    params: Params,
    spent: Mapping[str, Budget] | None = None,
    members: pd.DataFrame | None = None,
) -> dict[str, str]:
    """Write the text of each file of a table, by the names that `Table.pages` gives them.

    `made` has the lines of `tables.lines`. `spent` has the budget of L_task of each row by its
    name; without it the page has no columns of it. `members` has the lines of `tables.members`.
    """
    table = params.tables[name]
    apart = tables.differences(made, table)
    blocks = page(made, name, params, spent or {})
    if members is not None and len(members):
        blocks.append(Block([_ABOUT_MEMBERS], _members(members), 2))
    return {
        "csv": escaping.csv(_spent(verdicts.lines(made, table, params), spent or {})),
        "differences": escaping.csv(apart),
        "md": markdown(f"Table {name}", blocks),
        "tex": latex(f"Table {name}", blocks),
    }


def page(made: pd.DataFrame, name: str, params: Params, spent: Mapping[str, Budget]) -> list[Block]:
    """Put a page together: the table, the published IoU by class at full size, differences."""
    table = params.tables[name]
    found = verdicts.compared(made, table, params)
    shown = _shown(found, spent)
    about = [*_protocol(made, name, params), *_means_over(made), *_columns(shown, params)]
    blocks = [Block([*about, *verdicts.notes(table, params)], shown, 2)]
    by_class = _by_class(found)
    if len(by_class):
        blocks.append(Block([_ABOUT_CLASSES], by_class, 2))
    apart = _intervals(tables.differences(made, table), spent)
    if len(apart):
        said = [_ABOUT_DIFFERENCES.format(scale=params.scale)]
        blocks.append(Block([*said, *([_ABOUT_NOTES] if spent else [])], apart, 2))
    return blocks


def markdown(title: str, blocks: Sequence[Block]) -> str:
    """Write a page in GitHub's Markdown: above each table its sentences as a list."""
    parts = [f"# {escaping.markdown(title)}\n"]
    for block in blocks:
        parts.append("".join(f"- {escaping.markdown(each)}\n" for each in block.sentences))
        parts.append(_markdown(block))
    return "\n".join(parts)


def latex(title: str, blocks: Sequence[Block]) -> str:
    """Write a page for LaTeX, to be read by a document that loads the package graphicx.

    The sentences are comments, one on a line.
    """
    parts = [escaping.comment(title) + "\n"]
    for block in blocks:
        said = "".join(f"{escaping.comment(each)}\n" for each in block.sentences)
        parts.append(said + _latex(block))
    return "\n".join(parts)


def _protocol(made: pd.DataFrame, name: str, params: Params) -> list[str]:
    table = params.tables[name]
    images = f"{_either(made['images'])} images" if len(made) else "no score yet"
    sizes = f", {_either(made['resolution'])} pixels (height x width)" if len(made) else ""
    seeds = ", ".join(str(seed) for seed in params.seeds_of(name))
    split = params.evaluation.split
    return [
        f"Scale: {params.scale}. Target: {table.target}, split {split}, {images}.",
        f"Evaluation size: the size of each label{sizes}. Class scores are resized to it.",
        f"Seeds: {seeds}. The weights are those after the last training step; imported weights are "
        "used as they are. No weights are chosen by their score.",
        f"Digests of the prepared data: {', '.join(sorted(made['data'].unique())) or ABSENT}.",
    ]


def _means_over(made: pd.DataFrame) -> list[str]:
    """Say which classes each mean is over; the same for all lines (`tables.lines`)."""
    if made.empty:
        return ["Each mean is over the classes that the labels of the split contain."]
    over = made["mean_over"].iloc[0].split(", ")
    counted = {
        mean: [labels.CLASSES[k] for k in ids if labels.CLASSES[k] in over]
        for mean, ids in tables.SUBSETS.items()
    }
    said = [f"mIoU16 is the mean over {_count(counted['miou16'])}: {_listed(counted['miou16'])}."]
    for mean in ("miou19", "miou13"):
        more = [each for each in counted[mean] if each not in counted["miou16"]]
        less = [each for each in counted["miou16"] if each not in counted[mean]]
        change = f" and {_listed(more)}" if more else f" without {_listed(less)}" if less else ""
        said.append(f"{MEANS[mean]} is over {_count(counted[mean])}: those of mIoU16{change}.")
    missing = [each for each in labels.CLASSES if each not in over]
    if missing:
        said.append(f"The labels of the split do not contain {_listed(missing)}.")
    first = (
        "Each mean is over the classes that the labels of the split contain, the same in all rows."
    )
    return [first, *said]


def _columns(shown: pd.DataFrame, params: Params) -> list[str]:
    near = params.evaluation.verdict
    limits = {"points": f"{near.points:g}", "deviations": f"{near.deviations:g}"}
    limits |= {"seeds": str(verdicts.SEEDS), "only": verdicts.ONLY}
    said = [
        "row is the name of the row in params.yaml. setting describes how it was trained.",
        f"The columns {tables.SHOWN[0]} to {tables.SHOWN[-1]} have the IoU of each class in "
        f"percent, averaged over the seeds. The sign {ABSENT} means that there is no number.",
        "mIoU16, mIoU19 and mIoU13 are in percent: the mean over the seeds and, from two seeds on, "
        "± the sample standard deviation. n is the number of seeds with a score.",
    ]
    if "verdict" in shown:
        said += [each.format(**limits) for each in _ABOUT_VERDICTS]
    if budgets.COLUMNS[0] in shown:
        said.append(_ABOUT_BUDGETS)
    return said


def _shown(found: pd.DataFrame, spent: Mapping[str, Budget]) -> pd.DataFrame:
    """Turn rows into cells of text; rows that are published only show the published numbers."""
    rows = [_row(row) for row in found.to_dict("records")]
    cells = pd.DataFrame(rows)
    for at, (title, column) in enumerate(budgets.columns(found["row"], spent).items(), 2):
        if spent:
            cells.insert(at, title, column)
    return cells


def _row(row: Mapping[Any, Any]) -> dict[str, str]:
    cells = {"row": row["row"], "setting": row["setting"]}
    cells |= {name: _number(row[name]) for name in tables.SHOWN}
    for name, title in MEANS.items():
        cells[title] = _mean(row[name], row[f"{name}_sd"], row["n"])
    cells["n"] = str(row["n"])
    if "verdict" not in row:
        return cells
    if row["origin"] == verdicts.ONLY:
        cells |= {name: _number(row[f"published {name}"]) for name in tables.SHOWN}
        cells |= dict.fromkeys([*MEANS.values(), "n"], ABSENT)
        cells |= {"row": f"{row['row']} (published)", "mIoU16": _number(row["published"])}
    return cells | {
        "published": _number(row["published"]),
        "difference": _number(row["difference"], "+.1f"),
        "verdict": row["verdict"],
    }


def _by_class(found: pd.DataFrame) -> pd.DataFrame:
    """Set the published IoU of each class beside ours, three lines for each row that has one."""
    lines = []
    for row in found.to_dict("records") if "verdict" in found else ():
        theirs = [row[f"published {name}"] for name in tables.SHOWN]
        if row["origin"] == verdicts.ONLY or pd.isna(theirs).all():
            continue
        ours = [row[name] for name in tables.SHOWN]
        compared = pd.notna(row["difference"])
        apart = [a - b if compared else float("nan") for a, b in zip(ours, theirs, strict=True)]
        for what, form, values in (
            (verdicts.MEASURED, ".1f", [*ours, row["miou16"]]),
            ("published", ".1f", [*theirs, row["published"]]),
            ("difference", "+.1f", [*apart, row["difference"]]),
        ):
            lines.append([row["row"], what, *(_number(value, form) for value in values)])
    return pd.DataFrame(lines, columns=["row", "values", *tables.SHOWN, "mIoU16"])


def _intervals(apart: pd.DataFrame, spent: Mapping[str, Budget]) -> pd.DataFrame:
    lines = []
    for line in apart[apart["mean"] == "miou16"].to_dict("records"):
        low, high = (_number(line[end], "+.2f") for end in ("low", "high"))
        cells = {
            "row": line["row"],
            "against": line["against"],
            "difference": _number(line["difference"], "+.2f"),
            "95 % interval": ABSENT if low == ABSENT else f"{low} to {high}",
            "n": str(line["n"]),
        }
        if spent:
            cells["budget of L_task"] = budgets.note(line["row"], line["against"], spent)
        lines.append(cells)
    return pd.DataFrame(lines)


def _members(members: pd.DataFrame) -> pd.DataFrame:
    """Turn the scores on each dataset of a union into cells of text."""
    words = members[["row", "dataset"]]
    numbers = members[[*tables.SHOWN, *MEANS]].map(_number).rename(columns=MEANS)
    return words.join(numbers).assign(n=members["n"].astype(str))


def _spent(lines: pd.DataFrame, spent: Mapping[str, Budget]) -> pd.DataFrame:
    """Append the budgets of L_task to the lines of a CSV, if there are any."""
    if not spent:
        return lines
    found = [spent.get(row) for row in lines["row"]]
    return lines.assign(
        **{
            name: pd.array([getattr(b, name) if b else None for b in found], dtype="Int64")
            for name in Budget._fields
        }
    )


def _number(value: float, form: str = ".1f") -> str:
    return ABSENT if pd.isna(value) else format(value, form)


def _mean(mean: float, deviation: float, n: int) -> str:
    if n == 0:
        return "not run"
    return _number(mean) + ("" if pd.isna(deviation) else f" ± {deviation:.1f}")


def _either(values: pd.Series) -> str:
    return " or ".join(str(value) for value in values.unique())


def _count(names: Sequence[str]) -> str:
    return f"{len(names)} class" + ("" if len(names) == 1 else "es")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _markdown(block: Block) -> str:
    def line(words: Sequence[str]) -> str:
        return "| " + " | ".join(words) + " |\n"

    cells = block.cells
    rule = ["---"] * block.words + ["--:"] * (len(cells.columns) - block.words)
    body = [line([escaping.markdown(word) for word in row]) for row in cells.values.tolist()]
    return line([escaping.markdown(title) for title in cells]) + line(rule) + "".join(body)


def _latex(block: Block) -> str:
    def line(words: Sequence[str]) -> str:
        return " & ".join(words) + " \\\\\n"

    titles = [escaping.latex(title) for title in block.cells]
    turned = [rf"\rotatebox{{90}}{{{title}}}" for title in titles[block.words :]]
    head = line([*titles[: block.words], *turned])
    body = [line([escaping.latex(word) for word in row]) for row in block.cells.values.tolist()]
    form = "l" * block.words + "r" * len(turned)
    return (
        f"\\begin{{tabular}}{{{form}}}\n\\hline\n{head}\\hline\n{''.join(body)}\\hline\n"
        "\\end{tabular}\n"
    )
