"""How much supervised training stands behind the rows of a table, as columns and remarks.

Two rows whose segmenters saw different numbers of labelled images differ in more than their method.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

COLUMNS = ("L_task steps", "L_task images")
ABSENT = "–"


class Budget(NamedTuple):
    """Steps with L_task behind a row's segmenter, and the images in these steps' batches."""

    task_steps: int
    task_images: int


def columns(rows: Sequence[str], budgets: Mapping[str, Budget]) -> dict[str, list[str]]:
    """Format the two columns for rows in this order; a row without a budget has a dash."""
    found = [budgets.get(row) for row in rows]
    return {
        title: [ABSENT if budget is None else str(budget[k]) for budget in found]
        for k, title in enumerate(COLUMNS)
    }


def note(row: str, other: str, budgets: Mapping[str, Budget]) -> str:
    """Say whether the budgets of two compared rows are the same and, if not, how they differ."""
    unknown = [each for each in (row, other) if each not in budgets]
    if unknown:
        return f"unknown for {' and '.join(unknown)}"
    mine, theirs = budgets[row], budgets[other]
    if mine == theirs:
        return "the same"
    return (
        f"differs: {mine.task_steps} against {theirs.task_steps} steps, {mine.task_images} against "
        f"{theirs.task_images} images"
    )
