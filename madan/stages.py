"""The graph as the paper's stages: boxes of like artefacts, arrows where one is made from another.

A box holds what is of one kind and stands on as many translators, one made from the other: on none
before stage 1, on one in it, on two in stages 2 and 3, on more in further rounds.
"""

from collections.abc import Collection

from madan.figures import COLOURS, Step
from madan.graph import Graph
from madan.schema import Figure, Params, Translator, started

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
        for other in inputs:
            arrow = place[other], place[address]
            if arrow[0] < arrow[1]:
                words[arrow] = words.get(arrow) or _word(graph.params, address, other)
    scores = [kind for _, kind in order].index("scores")
    kept = {a: w for a, w in words.items() if w or a[1] == scores or not _implied(words, *a)}
    return [_step(*box, found[box]) for box in order], kept, scores


def _step(depth: int, kind: str, names: list[str]) -> Step:
    title, command, colour = KINDS[kind]
    if kind == "segmenters":
        title += " on stylised sources" if depth else " on images as they are"
    if kind == "scores":  # Of many runs, all on one split of the target.
        title = f"{title} on {names[0].split('/')[2]}"
        names = list(dict.fromkeys(name.split("/")[1] for name in names))
    return Step(title, names, command, _stage(depth, kind), colour)


def _stage(depth: int, kind: str) -> str:
    last = {"translators": 2, "stylised": 2, "segmenters": 3, "adaptations": 3}.get(kind, 0)
    first = min(depth, 1) if last and kind != "adaptations" else 0
    again = f": round {depth - 1}, " if depth > 2 else ": "
    return STAGES[last if depth > 1 else first].replace(": ", again, 1)


def _word(params: Params, address: str, other: str) -> str:
    """Which network goes on, or judges, where a run stands on another run; else nothing."""
    kind, name = address.split("/", 1)
    if kind not in ("translators", "segmenters", "adaptations"):
        return ""
    run, translated = params.run(kind, name), other.startswith("translators/")
    if not isinstance(run, Translator):
        return ("$F_A$ goes on" if translated else "$F$ goes on") if other in started(run) else ""
    if other in map(params.judge, run.judges.values()):
        return "$F_i$ judge"
    if run.task and other == f"segmenters/{run.task.start}":
        return "$F$ becomes $F_A$"
    return "$G_i$ go on" if translated else ""


def _implied(arrows: Collection[Arrow], start: int, end: int) -> bool:
    """Whether arrows lead from one box to another by way of a third."""
    after = {b for a, b in arrows if a == start and b < end}
    return any((b, end) in arrows or _implied(arrows, b, end) for b in after)
