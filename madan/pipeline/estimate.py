"""Plan: will it fit? Time, memory and disk of all that tables need, from a short calibration.

Every kind of job is tried for a few steps on noise of the right size, by as many processes at once
as will run together; what it cost is kept for the same settings, code and device.
"""

import contextlib
import heapq
import itertools
import json
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any, NamedTuple

from madan import config, layouts, startup, verify
from madan.config import digest
from madan.files import write_whole
from madan.pipeline import artefacts, settings, trials
from madan.pipeline.artefacts import Artefact
from madan.pipeline.graph import Graph
from madan.pipeline.staleness import Staleness
from madan.schema import Params, Refusal, Translator

SINGLY = (*artefacts.Trained.__args__, artefacts.Stylised)  # A line each in the overview.


class Cost(NamedTuple):
    """Seconds until the first unit (step, image) is done, and of each; bytes of memory, weights."""

    start: float
    unit: float
    memory: int
    weights: int


class Line(NamedTuple):
    """An artefact, whether it is done, its units, seconds, and bytes of memory and disk."""

    artefact: Artefact
    done: bool
    units: int
    seconds: float
    memory: int
    disk: int


def lines(graph: Graph, tables: Sequence[str], together: int, seconds: float) -> list[Line]:
    """All that these tables need, inputs first, with what it costs where so many run at once."""
    needed = graph.ancestry(artefacts.Table(table) for table in tables)
    costs, found = calibrate(graph, needed, together, seconds), []
    staleness = Staleness(graph)
    for artefact in needed:
        cost, units = costs[_alike(graph, artefact)], _units(artefact, graph.params)
        took = cost.start + cost.unit * max(0, units - 1)
        disk = cost.weights or _bytes(artefact, graph.params)
        done = staleness.is_current(artefact)
        found.append(Line(artefact, done, units, took, cost.memory, disk))
    return found


def duration(graph: Graph, found: Sequence[Line], together: int) -> float:
    """Seconds until all is made by so many jobs at a time, the longest chain first."""
    seconds = {line.artefact: line.seconds for line in found if not line.done}
    waiting = {a: {b for b in graph.inputs(a) if b in seconds} for a in seconds}
    now, running, order = 0.0, list[tuple[float, int, Artefact]](), itertools.count()
    while waiting or running:
        ready = [artefact for artefact, needed in waiting.items() if not needed]
        ready.sort(key=graph.priority, reverse=True)
        for artefact in ready[: together - len(running)]:
            heapq.heappush(running, (now + seconds[artefact], next(order), artefact))
            del waiting[artefact]
        now, _, ended = heapq.heappop(running)
        for needed in waiting.values():
            needed.discard(ended)
    return now


def calibrate(
    graph: Graph, needed: Sequence[Artefact], together: int, seconds: float
) -> dict[str, Cost]:
    """Cost of every kind of job, tried for so long by so many processes, or as tried before."""
    kept = Path("state/plan", f"{_device()}-{together}.json")
    known = json.loads(kept.read_text()) if kept.exists() else {}
    for artefact in needed:
        alike = _alike(graph, artefact)
        if alike not in known:
            print(f"trying {artefact}", flush=True)
            known[alike] = _tried(artefact, together, seconds)
            write_whole(kept, json.dumps(known))
    return {alike: Cost(*cost) for alike, cost in known.items()}


def _device() -> str:
    import torch

    there = torch.cuda.is_available()
    return (torch.cuda.get_device_name() if there else platform.node()).replace(" ", "-")


def _alike(graph: Graph, artefact: Artefact) -> str:
    """Artefacts with the same key cost the same for every unit."""
    params = graph.params
    about = {"threads": params.training.threads, "scale": params.scale}
    about |= _about(artefact, params, graph.settings(artefact))
    return f"{artefact.kind}-{digest([about, graph.code(artefact)])}"


@singledispatch
def _about(artefact: Artefact, params: Params, own: dict[str, Any]) -> dict[str, Any]:
    """What decides the cost of a unit, beside the code."""
    return {}


@_about.register(artefacts.Drawn)
@_about.register(artefacts.Verified)
@_about.register(artefacts.Prepared)
def _(artefact: Any, params: Params, own: dict[str, Any]) -> dict[str, Any]:
    dataset = params.dataset(artefact.domain)
    native = trials.native_size(params, dataset)
    return {"layout": dataset.layout, "size": dataset.size, "native": native}


@_about.register
def _(artefact: artefacts.Stylised, params: Params, own: dict[str, Any]) -> dict[str, Any]:
    own = {key: value for key, value in own.items() if key != "step"}
    return {"training": own, "networks": params.networks.model_dump()}


@_about.register
def _(artefact: artefacts.Score, params: Params, own: dict[str, Any]) -> dict[str, Any]:
    network = params.architecture(artefact.run)
    return {"training": own, "networks": params.networks.model_dump(), "network": network}


@_about.register(artefacts.Translator)
@_about.register(artefacts.Segmenter)
@_about.register(artefacts.Adaptation)
def _(artefact: artefacts.Trained, params: Params, own: dict[str, Any]) -> dict[str, Any]:
    run = params.run(artefact.kind, artefact.run)
    # Steps do not count: gates are fractions of them.
    training = {key: _without_steps(value) for key, value in own["training"].items()}
    about = {"training": training, "networks": own["networks"]}
    if isinstance(run, Translator):
        about |= run.model_dump(include={"shared", "semantic", "sad", "ccd"})
        about |= {"sources": len(run.sources), "task": run.task and run.task.update_every}
        return about | {"kept": len(run.keep)}
    # A segmenter's batch is one, of however many sets; MDAN has a network for each.
    sets = len(params.sets(run)) if isinstance(artefact, artefacts.Adaptation) else 1
    return about | {"method": getattr(run, "method", "task"), "sets": sets}


def _without_steps(section: Any) -> Any:
    return (
        {k: v for k, v in section.items() if k != "steps"} if isinstance(section, dict) else section
    )


def _tried(artefact: Artefact, together: int, seconds: float) -> Cost:
    """Mean cost of so many processes that try the same job at once."""
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(together), context.Queue()
    words = artefact, seconds, barrier, answers, time.time()
    workers = [context.Process(target=_try, args=words) for _ in range(together)]
    for worker in workers:
        worker.start()
    found = [answers.get() for _ in workers]
    for worker in workers:
        worker.join()
    broken = [each for each in found if isinstance(each, str)]
    if broken:
        raise Refusal(f"{artefact} could not be tried: {broken[0]}")
    start, unit, memory, weights = (sum(column) / together for column in zip(*found, strict=True))
    return Cost(start, unit, int(memory), int(weights))


def _try(artefact: Artefact, seconds: float, barrier: Any, answers: Any, begun: float) -> None:
    """In a process of its own: do a job's units for a while and tell what they cost."""
    startup.begin()
    try:
        graph = Graph(config.load())
        graph.planned(artefact)  # Every command computes it.
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(None):
            trials.start(artefact, graph.params)
            trial = trials.trial(artefact, graph.params, Path(scratch))
            trial.do(trial.units[0])
            first, done = time.time() - begun, 0
            barrier.wait()
            started = time.monotonic()
            for unit in trial.units:
                trial.do(unit)
                done += trial.at_once
                if time.monotonic() - started > seconds:
                    break
            each = (time.monotonic() - started) / done
        answers.put(Cost(first, each, _peak(), trial.weights))
    except Exception as error:
        barrier.abort()
        answers.put(f"{type(error).__name__}: {error}")


def _peak() -> int:
    """Most bytes that this process has held: on the GPU if it used one, else in memory."""
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available() and torch.cuda.max_memory_reserved():
            return torch.cuda.max_memory_reserved()
    said = Path("/proc/self/status").read_text()
    return int(said.split("VmHWM:")[1].split()[0]) * 1024


@singledispatch
def _units(artefact: Artefact, params: Params) -> int:
    """Steps of a training run, images of what reads or writes images."""
    return 1


@_units.register(artefacts.Translator)
@_units.register(artefacts.Segmenter)
@_units.register(artefacts.Adaptation)
def _(artefact: artefacts.Trained, params: Params) -> int:
    return settings.steps(artefact, params)


@_units.register
def _(artefact: artefacts.Drawn, params: Params) -> int:
    return sum(params.miniature.images[artefact.domain].values())


@_units.register(artefacts.Verified)
@_units.register(artefacts.Score)
def _(artefact: artefacts.Verified | artefacts.Score, params: Params) -> int:
    return _images(params, artefact.domain, artefact.split)


@_units.register
def _(artefact: artefacts.Prepared, params: Params) -> int:
    images = _images(params, artefact.domain, artefact.split)
    return -(-images // params.dataset(artefact.domain).shards)


@_units.register
def _(artefact: artefacts.Stylised, params: Params) -> int:
    return sum(_images(params, member, "train") for member in params.members(artefact.source))


def _images(params: Params, domain: str, split: str) -> int:
    """Images of a split: those drawn, those verified, or else those published; of a union all."""
    if params.domains[domain].union:
        return sum(_images(params, member, split) for member in params.members(domain))
    if params.scale == "miniature":
        return {str(each): n for each, n in params.miniature.images[domain].items()}.get(split, 0)
    verified = artefacts.Verified(domain, split).folder(params) / "items.json"
    if verified.exists():
        return len(verify.read(verified).pairs)
    dataset = params.dataset(domain)
    return layouts.of(dataset).counts.get("all" if dataset.splits == "all" else split, 0)


@singledispatch
def _bytes(artefact: Artefact, params: Params) -> int:
    """Bytes that images and labels of an artefact take; scores and tables take next to none."""
    return 0


@_bytes.register
def _(artefact: artefacts.Stylised, params: Params) -> int:
    members = {name: params.dataset(name).size for name in params.members(artefact.source)}
    return sum(3 * h * w * _images(params, name, "train") for name, (h, w) in members.items())


@_bytes.register
def _(artefact: artefacts.Prepared, params: Params) -> int:
    dataset = params.dataset(artefact.domain)
    height, width = dataset.size
    native = trials.native_size(params, dataset)
    h, w = dataset.size if artefact.split == "train" else native
    return _units(artefact, params) * (3 * height * width + h * w)


def show(graph: Graph, found: Sequence[Line], jobs: int) -> None:
    """Print what is still to be made, by kind and run, the sums, and what other numbers change."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "done", "jobs", "units", "time", "memory", "disk")
    groups: dict[str, list[Line]] = {}
    for line in found:
        artefact = line.artefact
        single = isinstance(artefact, SINGLY)
        groups.setdefault(artefact.address if single else artefact.kind, []).append(line)
    for group, of_group in groups.items():
        open_ones = [line for line in of_group if not line.done]
        table.add_row(
            group, f"{len(of_group) - len(open_ones)}/{len(of_group)}", str(len(open_ones)),
            str(sum(line.units for line in open_ones)),
            _time(sum(line.seconds for line in open_ones)),
            _size(max(line.memory for line in of_group)),
            _size(sum(line.disk for line in of_group)),
        )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table, highlight=False)
    left = [line for line in found if not line.done]
    print(f"all of it: {_time(sum(line.seconds for line in left))} of work, ", end="")
    print(f"{_size(sum(line.disk for line in found))} of disk")
    for many in dict.fromkeys((jobs, 1, 2, 4, 8)):
        print(f"{many} at a time: {_time(duration(graph, found, many))}")
    print(
        f"Times are of {jobs} at a time on this machine; more of them are taken not to slow down."
    )


def _time(seconds: float) -> str:
    """Such as 48 s, 12 min, 3.4 h or 5.6 days."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _size(amount: float) -> str:
    """Such as 3 MB or 57.2 GB; nothing for none."""
    return f"{amount / 1e9:.1f} GB" if amount >= 1e9 else f"{amount / 1e6:.0f} MB" if amount else ""
