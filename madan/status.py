"""Status: what of a table is done, running, waiting or stale, and in plain words why. No torch."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from madan import certificates, guard, headers
from madan.graph import MODULES, Artefact, Graph

SINGLY = ("translators", "segmenters", "adaptations", "tables")
WORDS = {"done": "green", "running": "cyan", "next": "yellow", "waiting": "default", "stale": "red"}


class Line(NamedTuple):
    """An artefact, its state (one of WORDS), and what is to be said of that."""

    artefact: Artefact
    state: str
    said: str


def lines(graph: Graph, table: str) -> list[Line]:
    """All that a table needs, upstream first."""
    held, found = _locks(), dict[Artefact, Line]()
    for artefact in graph.ancestry([Artefact("tables", table)]):
        found[artefact] = Line(artefact, *_state(graph, artefact, found, held))
    return list(found.values())


def show(found: list[Line], graph: Graph) -> None:
    """Print a line for every run and table, and one for each other kind of job."""
    from rich.console import Console
    from rich.table import Table

    shown = Table("", "state", "")
    groups: dict[str, list[Line]] = {}
    for line in found:
        kind, name, seed = line.artefact
        several = len(graph.params.every_seed) > 1 and kind != "tables"
        single = f"{kind}/{name}" + (f" seed {seed}" if several else "")
        groups.setdefault(single if kind in SINGLY else kind, []).append(line)
    for group, of_group in groups.items():
        first = min(of_group, key=lambda line: list(WORDS)[::-1].index(line.state))
        done = sum(line.state == "done" for line in of_group)
        count = f"{done} of {len(of_group)} done; " if len(of_group) > 1 else ""
        if len(of_group) > 1 and first.said:
            count += f"{first.artefact.name}: "
        shown.add_row(group, f"[{WORDS[first.state]}]{first.state}", count + first.said)
    Console(width=None if os.isatty(1) else 140).print(shown, highlight=False)


def _state(
    graph: Graph, artefact: Artefact, found: Mapping[Artefact, Line], held: set[tuple[int, int]]
) -> tuple[str, str]:
    if _held(Path("state/locks", graph.folder(artefact)), held):
        return "running", _progress(graph, artefact)
    behind = [found[other] for other in graph.inputs(artefact)]
    open_ones = [line for line in behind if line.state != "done"]
    if graph.certificate(artefact).exists():
        if guard.sound(graph, artefact) and not open_ones:
            return "done", ""
        return "stale", _reason(graph, artefact, open_ones)
    if open_ones:
        return "waiting", f"for {_called(open_ones[0].artefact)}, {open_ones[0].state}"
    return "next", "all that it needs is there"


def _reason(graph: Graph, artefact: Artefact, open_ones: list[Line]) -> str:
    """Why it would be made again."""
    if open_ones:
        first = open_ones[0]
        why = "is missing" if first.state in ("next", "waiting") else f"is {first.state}"
        return f"follows {_called(first.artefact)}, which {why}"
    said, (settings, code) = certificates.read(graph.certificate(artefact)), graph.promise(artefact)
    told = _story(graph.folder(artefact) / "weights.safetensors")
    if said["settings"] != settings:
        was, now = _flat(told.get("settings", {})), _flat(graph.settings(artefact))
        changed = [key for key in sorted(was.keys() | now.keys()) if was.get(key) != now.get(key)]
        if not was or not changed:
            return "params.yaml says something else of it than when it was made"
        words = (
            f"{key} was {was.get(key, 'not there')}, is {now.get(key, 'gone')}" for key in changed
        )
        return "settings: " + "; ".join(words)
    if said["code"] != code:
        modules = certificates.module_digests(graph.package, *MODULES[artefact.kind])
        before = told.get("modules", {})
        others = [name for name in sorted(modules) if before.get(name) != modules[name]]
        if before and others:
            return f"code: {', '.join(f'{name}.py' for name in others)} changed"
        return f"code: a module behind {' or '.join(MODULES[artefact.kind])} changed"
    if guard.outdated(graph, artefact):
        return "was made from other files than lie there now"
    return "files of it are missing"


def _called(artefact: Artefact) -> str:
    return f"{artefact.kind}/{artefact.name}"


def _progress(graph: Graph, artefact: Artefact) -> str:
    """Where a running job is, as the last line of its log tells."""
    kind, name, seed = artefact
    log = Path("logs", graph.params.scale, kind, name, f"seed{seed}.log")
    told = re.findall(r": (\d+/\d+) .*?(\d+) s left", log.read_text()) if log.exists() else []
    return f"{told[-1][0]}, {int(told[-1][1])} s left" if told else "just begun"


def _locks() -> set[tuple[int, int]]:
    """Device and inode of all files that a process on this machine has locked.

    Asked of the kernel: to try a lock would refuse the job that wants it at that moment.
    """
    path = Path("/proc/locks")
    told = re.findall(r"(\w+):(\w+):(\d+) ", path.read_text()) if path.exists() else []
    return {(os.makedev(int(a, 16), int(b, 16)), int(inode)) for a, b, inode in told}


def _held(lock: Path, held: set[tuple[int, int]]) -> bool:
    if not lock.is_file():
        return False
    there = lock.stat()
    return (there.st_dev, there.st_ino) in held


def _story(weights: Path) -> dict[str, Any]:
    """What a weights file says of itself; nothing where there is none or it cannot be read."""
    try:
        return dict(json.loads(headers.metadata(weights)["madan"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    def walk(value: Any, key: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping):
            for name, inner in value.items():
                yield from walk(inner, f"{key}.{name}" if key else name)
        else:
            yield key, list(value) if isinstance(value, tuple) else value

    return dict(walk(settings, ""))
