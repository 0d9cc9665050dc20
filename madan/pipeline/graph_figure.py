"""The graph as the paper's stages: boxes of like artefacts, arrows where one is made from another.

A box holds what is of one kind and stands on as many translators, one made from the other: on none
before stage 1, on one in it, on two in stages 2 and 3, on more in further rounds.
"""

import textwrap
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from matplotlib.figure import Figure as Picture
from matplotlib.patches import Rectangle

from madan.config.runs import pretrained
from madan.config.schema import Figure, Params
from madan.pipeline.graph import Graph
from madan.report.plots import COLOURS

Arrow = tuple[int, int]  # from a box to a box
# Kinds of artefacts in their order: in words, the command that makes them, colour.
KINDS = {
    "miniature": ("drawn images and labels", "madan miniature", COLOURS[7]),
    "verified": ("verified: what is usable", "madan verify", COLOURS[7]),
    "prepared": ("prepared: arrays", "madan prepare", COLOURS[7]),
    "released": ("released weights", "madan import", COLOURS[3]),
    "translators": ("translators $G_i$", "madan translate", COLOURS[0]),
    "stylised": ("stylised sources $x'_i$", "madan stylise", COLOURS[5]),
    "segmenters": ("segmenters $F$", "madan segment", COLOURS[1]),
    "adaptations": ("adaptations: $F$ aligned", "madan adapt", COLOURS[4]),
    "scores": ("scores", "madan evaluate", COLOURS[2]),
    "tables": ("tables", "madan table", COLOURS[2]),
}
STAGES = (
    "",
    "Stage 1: a CycleGAN for each source; $F$ on what they make",
    "Stage 2: all sources together: SAD, CCD, DSC",
    "Stage 3: $F$ on what these make, then aligned with the target",
)

NARROW, LEFT, RIGHT = 7.2, 2.55, 6.85  # of the graph, and where its boxes begin and end
MIDDLE = (LEFT + RIGHT) / 2


class Step(NamedTuple):
    """A box of the graph: its kind in words, what is in it, what makes it, its stage."""

    kind: str
    names: Sequence[str]
    command: str
    stage: str
    colour: str


def boxes(graph: Graph, figure: Figure) -> tuple[list[Step], dict[Arrow, str], int]:
    """Boxes upstream first, arrows with the word of each, and the number of the box of scores.

    An arrow that others imply is left out, but for scores and for where a network goes on.
    """
    behind, kinds = graph.behind(figure), list(KINDS)
    depth: dict[str, int] = {}
    found: dict[tuple[int, str], list[str]] = {}
    for address, inputs in behind.items():
        kind, _, name = address.partition("/")
        depth[address] = (kind == "translators") + max((depth[i] for i in inputs), default=0)
        last = kind in ("scores", "tables")
        found.setdefault((len(behind) if last else depth[address], kind), []).append(name)
    order = sorted(found, key=lambda box: (box[0], kinds.index(box[1])))
    place = {f"{kind}/{name}": k for k, (_, kind) in enumerate(order) for name in found[order[k]]}
    words: dict[Arrow, str] = {}
    for address, inputs in behind.items():
        for other, role in inputs.items():
            arrow = place[other], place[address]
            if arrow[0] < arrow[1]:
                words[arrow] = words.get(arrow) or _word(graph.params, address, other, role)
    scores = [kind for _, kind in order].index("scores")
    kept = {a: w for a, w in words.items() if w or a[1] == scores or not _implied(words, *a)}
    return [_step(*box, found[box]) for box in order], kept, scores


def _step(depth: int, kind: str, names: list[str]) -> Step:
    title, command, colour = KINDS[kind]
    if kind == "segmenters":
        title += " on stylised sources" if depth else " on images as they are"
    if kind == "scores":  # Of many runs, all on one split of the target.
        title = f"{title} on {' '.join(names[0].split('/')[2:])}"
        names = list(dict.fromkeys(name.split("/")[1] for name in names))
    return Step(title, names, command, _stage(depth, kind), colour)


def _stage(depth: int, kind: str) -> str:
    last = {"translators": 2, "stylised": 2, "segmenters": 3, "adaptations": 3}.get(kind, 0)
    first = min(depth, 1) if last and kind != "adaptations" else 0
    again = f": round {depth - 1}, " if depth > 2 else ": "
    return STAGES[last if depth > 1 else first].replace(": ", again, 1)


def _word(params: Params, address: str, other: str, role: str) -> str:
    """Which network goes on, or judges, where a run is made from another run; else nothing."""
    if other.startswith("released/") and other == pretrained(params, address):
        return ""
    if address.startswith("translators/"):
        words = {"judges": "$F_i$ judge", "task": "$F$ becomes $F_A$", "start": "$G_i$ go on"}
        return words.get(role, "")
    if role != "start":
        return ""  # So it is of all that is no training run.
    return "$F_A$ goes on" if other.startswith("translators/") else "$F$ goes on"


def _implied(arrows: Collection[Arrow], start: int, end: int) -> bool:
    """Whether arrows lead from one box to another by way of a third."""
    after = {b for a, b in arrows if a == start and b < end}
    return any((b, end) in arrows or _implied(arrows, b, end) for b in after)


def draw(steps: Sequence[Step], arrows: Mapping[Arrow, str], gathered: int) -> Picture:
    """Boxes from top to bottom, bands of stages, and arrows (from, to), each with its word.

    To the next box they go down, to the box `gathered` at the right, to others at the left.
    """
    lines = textwrap.TextWrapper(60, break_on_hyphens=False, max_lines=4, placeholder=" …")
    texts = [lines.fill(", ".join(step.names)) for step in steps]
    aside = sorted(each for each in arrows if each[1] - each[0] > 1 and each[1] != gathered)
    boxes, y = [], 0.15
    for number, text in enumerate(texts):
        leaving = sum(start == number for start, _ in aside)
        boxes.append((y, y + 0.36 + 0.16 * max(text.count("\n") + 1, leaving)))
        y = boxes[-1][1] + 0.3
    figure = plt.figure(figsize=(NARROW, y - 0.15))
    axis = figure.add_axes((0, 0, 1, 1), xlim=(0, NARROW), ylim=(y - 0.15, 0))
    axis.set_axis_off()
    for stage in dict.fromkeys(step.stage for step in steps if step.stage):
        inside = [box for step, box in zip(steps, boxes, strict=True) if step.stage == stage]
        _band(axis, stage, inside[0][0] - 0.1, inside[-1][1] + 0.1)
    for step, text, box in zip(steps, texts, boxes, strict=True):
        _box(axis, step, text, *box)
    lanes = _lanes(aside)
    for (start, end), word in arrows.items():
        (top, bottom), into = boxes[start], boxes[end][0]
        if end == start + 1:
            path, at = [(MIDDLE, bottom), (MIDDLE, into)], (MIDDLE + 0.08, (bottom + into) / 2)
        elif end == gathered:
            path, at = _around(RIGHT, 0.15, (top + bottom) / 2, into), (RIGHT, bottom)
        else:  # Who goes furthest leaves highest, and so crosses no other.
            leave = bottom - 0.08 - 0.16 * [b for a, b in aside if a == start].index(end)
            path = _around(LEFT, -0.85 - 0.13 * lanes[end], leave, into)
            at = LEFT - 0.8, leave - 0.09
        _arrow(axis, path, at, word)
    return figure


def _band(axis: plt.Axes, stage: str, top: float, bottom: float) -> None:
    """The ground of a stage; its name, and what is done in it, at the left."""
    axis.add_patch(Rectangle((0.05, top), NARROW - 0.1, bottom - top, color="#f0f0f0"))
    name, _, what = stage.partition(": ")
    axis.text(0.15, top + 0.1, name, va="top", fontsize=11, fontweight="bold")
    axis.text(0.15, top + 0.34, textwrap.fill(what, 18), va="top", fontsize=8.5)


def _box(axis: plt.Axes, step: Step, text: str, top: float, bottom: float) -> None:
    line: dict[str, Any] = {"facecolor": "white", "edgecolor": step.colour, "linewidth": 1.6}
    axis.add_patch(Rectangle((LEFT, top), RIGHT - LEFT, bottom - top, **line))
    axis.text(LEFT + 0.1, top + 0.2, step.kind, va="center", fontsize=10, fontweight="bold")
    command: dict[str, Any] = {"fontsize": 9, "family": "DejaVu Sans Mono"}
    axis.text(RIGHT - 0.1, top + 0.2, step.command, va="center", ha="right", **command)
    axis.text(LEFT + 0.1, top + 0.33, text, va="top", fontsize=8.5, linespacing=1.1)


def _around(side: float, away: float, leave: float, into: float) -> list[tuple[float, float]]:
    """From a box's side along a lane, so far away, into the same side of another box."""
    lane, enter = side + away, into + 0.14
    return [(side, leave), (lane, leave), (lane, enter), (side, enter)]


def _arrow(
    axis: plt.Axes, path: Sequence[tuple[float, float]], at: tuple[float, float], word: str
) -> None:
    look: dict[str, Any] = {"color": "#333333", "linewidth": 1}
    axis.plot(*zip(*path[:-1], strict=True), **look)
    tip = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, **look}
    axis.annotate("", path[-1], path[-2], arrowprops=tip)
    axis.text(*at, word, va="center", fontsize=8.5)


def _lanes(arrows: Sequence[Arrow]) -> dict[int, int]:
    """By the box that arrows lead to, their lane: the innermost that no others are in."""
    first = {end: start for start, end in sorted(arrows, reverse=True)}
    lanes: dict[int, int] = {}
    for end in sorted(first, key=lambda end: end - first[end]):
        taken = {lanes[other] for other in lanes if first[other] < end and first[end] < other}
        lanes[end] = min(set(range(len(first))) - taken)
    return lanes
