"""Status: what of a table is done, running, waiting or stale, and in plain words why. No torch."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from madan.files import lock_of
from madan.pipeline import artefacts, checks
from madan.pipeline.artefacts import Artefact
from madan.pipeline.graph import Graph
from madan.pipeline.staleness import Staleness

SINGLY = (*artefacts.Trained.__args__, artefacts.Table)  # A line each in the overview.
WORDS = {"done": "green", "running": "cyan", "next": "yellow", "waiting": "default", "stale": "red"}


class Line(NamedTuple):
    """An artefact, its state (one of WORDS), and what is to be said of that."""

    artefact: Artefact
    state: str
    said: str


def lines(graph: Graph, table: str) -> list[Line]:
    """All that a table needs, inputs first."""
    locks, staleness, found = _locks(), Staleness(graph), dict[Artefact, Line]()
    no_truth = ""
    target, split = graph.params.tables[table].target, graph.params.evaluation.split
    if bare := checks.without_labels(graph.params, [target], split):
        no_truth = f"for labels: {bare[0]}/{split} has none, so there is no truth to score"
    for artefact in graph.ancestry([artefacts.Table(table)]):
        state, said = _state(staleness, artefact, found, locks)
        scores = isinstance(artefact, artefacts.Score | artefacts.Table)
        if no_truth and scores and state != "done":
            state, said = "waiting", no_truth
        found[artefact] = Line(artefact, state, said)
    return list(found.values())


def show(found: list[Line], graph: Graph) -> None:
    """Print a line for every run and table, and one for each other kind of job."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("", "state", "")
    groups: dict[str, list[Line]] = {}
    for line in found:
        artefact = line.artefact
        single = str(artefact) if len(graph.params.every_seed) > 1 else artefact.address
        name = single if isinstance(artefact, SINGLY) else artefact.kind
        groups.setdefault(name, []).append(line)
    for group, of_group in groups.items():
        first = min(of_group, key=lambda line: list(WORDS)[::-1].index(line.state))
        done = sum(line.state == "done" for line in of_group)
        count = f"{done} of {len(of_group)} done; " if len(of_group) > 1 else ""
        if len(of_group) > 1 and first.said:
            count += f"{first.artefact.name}: "
        shown.add_row(group, f"[{WORDS[first.state]}]{first.state}", count + first.said)
    Console(width=None if os.isatty(1) else 140).print(shown, highlight=False)


def _state(
    staleness: Staleness, artefact: Artefact, found: Mapping[Artefact, Line],
    locks: set[tuple[int, int]],
) -> tuple[str, str]:  # fmt: skip
    graph = staleness.graph
    if _is_locked(lock_of(graph.folder(artefact)), locks):
        return "running", _progress(graph, artefact)
    unfinished = [found[other] for other in graph.inputs(artefact) if found[other].state != "done"]
    reason = staleness.reason(artefact)
    if reason is None:
        return "done", ""
    if reason.why == "missing" and unfinished:
        return "waiting", f"for {unfinished[0].artefact.address}, {unfinished[0].state}"
    if reason.why == "missing":
        return "next", "all that it needs is there"
    return "stale", reason.text


def _progress(graph: Graph, artefact: Artefact) -> str:
    """Where a running job is, as the last line of its log tells."""
    folder = graph.folder(artefact).relative_to(Path("results", graph.params.scale))
    log = Path("logs", graph.params.scale, folder).with_suffix(".log")
    told = re.findall(r": (\d+/\d+) .*?(\d+) s left", log.read_text()) if log.exists() else []
    return f"{told[-1][0]}, {int(told[-1][1])} s left" if told else "just begun"


def _locks() -> set[tuple[int, int]]:
    """Device and inode of all files that a process on this machine has locked.

    Asked of the kernel: to try a lock would refuse the job that wants it at that moment.
    """
    path = Path("/proc/locks")
    told = re.findall(r"(\w+):(\w+):(\d+) ", path.read_text()) if path.exists() else []
    return {(os.makedev(int(a, 16), int(b, 16)), int(inode)) for a, b, inode in told}


def _is_locked(lock: Path, locks: set[tuple[int, int]]) -> bool:
    if not lock.is_file():
        return False
    there = lock.stat()
    return (there.st_dev, there.st_ino) in locks
