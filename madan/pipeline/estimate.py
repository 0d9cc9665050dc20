"""Plan: will it fit? Time, memory and disk of all that tables need, from a short calibration.

Every kind of job is tried for a few steps on noise of the right size, by as many processes at once
as will run together; what it cost is kept for the same settings, code and device. Of jobs on GPUs
there are as many at once as GPUs, each with its own. A job that needs more memory than there is
gets a row that says so.
"""

import heapq
import itertools
import json
import platform
import sys
from collections.abc import Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any, NamedTuple

from madan.config.loading import digest
from madan.config.schema import Params, Translator
from madan.data import layouts, verify
from madan.files import write_whole
from madan.pipeline import artefacts, calibration, settings, shares, trials
from madan.pipeline.artefacts import Artefact
from madan.pipeline.calibration import Cost
from madan.pipeline.graph import Graph
from madan.pipeline.staleness import Staleness

SINGLY = (*artefacts.Trained.__args__, artefacts.Stylised)  # A line each in the overview.


class Line(NamedTuple):
    """An artefact, whether it is done, its units, seconds, and bytes of memory and disk."""

    artefact: Artefact
    done: bool
    units: int
    seconds: float
    memory: int
    disk: int
    fits: bool = True


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
        found.append(Line(artefact, done, units, took, cost.memory, disk, cost.fits))
    return found


def duration(graph: Graph, found: Sequence[Line], together: int, gpus: int = 0) -> float:
    """Seconds until all is made by so many jobs at a time, the longest chain first.

    Of jobs that compute with torch there are at most `gpus` at a time, where that is not 0.
    """
    seconds = {line.artefact: line.seconds for line in found if not line.done}
    waiting = {a: {b for b in graph.inputs(a) if b in seconds} for a in seconds}
    now, running, order = 0.0, list[tuple[float, int, Artefact]](), itertools.count()
    while waiting or running:
        ready = [artefact for artefact, needed in waiting.items() if not needed]
        ready.sort(key=graph.priority, reverse=True)
        free = gpus - sum(isinstance(job, trials.ON_GPU) for _, _, job in running)
        for artefact in ready:
            on_gpu = bool(gpus) and isinstance(artefact, trials.ON_GPU)
            if len(running) == together or (on_gpu and not free):
                continue
            free -= on_gpu
            heapq.heappush(running, (now + seconds[artefact], next(order), artefact))
            del waiting[artefact]
        now, _, ended = heapq.heappop(running)
        for needed in waiting.values():
            needed.discard(ended)
    return now


def calibrate(
    graph: Graph, needed: Sequence[Artefact], together: int, seconds: float
) -> dict[str, Cost]:
    """Cost of every kind of job, tried for so long by so many processes, or as tried before.

    Of a job that does not fit nothing is kept, since other programs may have held the memory.
    """
    kept, places = Path("state/plan", f"{_device()}-{together}.json"), shares.gpu_places()
    known = json.loads(kept.read_text()) if kept.exists() else {}
    misfits = dict[str, Cost]()
    for artefact in needed:
        alike = _alike(graph, artefact)
        if alike not in known and alike not in misfits:
            print(f"trying {artefact}", flush=True)
            on_gpu = bool(places) and isinstance(artefact, trials.ON_GPU)
            cost = calibration.tried(
                artefact, min(together, places) if on_gpu else together, seconds
            )
            if cost.fits:
                known[alike] = cost[:-1]  # All that is kept fits.
                write_whole(kept, json.dumps(known))
            else:
                misfits[alike] = cost
    return {alike: Cost(*cost) for alike, cost in known.items()} | misfits


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
    networks = params.networks_of(params.translator(artefact.run))
    return {"training": own, "networks": networks.model_dump()}


@_about.register
def _(artefact: artefacts.Score, params: Params, own: dict[str, Any]) -> dict[str, Any]:
    network = params.architecture(artefact.run)
    networks = params.networks_of(artefact.run)
    return {"training": own, "networks": networks.model_dump(), "network": network}


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
    return sum(params.drawn(artefact.domain).values())


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
    if drawn := params.drawn(domain):
        return drawn.get(split, 0)
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
            _time(sum(line.seconds for line in open_ones))
            if all(line.fits for line in open_ones)
            else "does not fit",
            _size(max(line.memory for line in of_group)),
            _size(sum(line.disk for line in of_group)),
        )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 110)
    console.print(table, highlight=False)
    left, places = [line for line in found if not line.done], shares.gpu_places()
    print(f"all of it: {_time(sum(line.seconds for line in left))} of work, ", end="")
    print(f"{_size(sum(line.disk for line in found))} of disk")
    for many in dict.fromkeys((jobs, 1, 2, 4, 8)):
        print(f"{many} at a time: {_time(duration(graph, found, many, places))}")
    if places:
        print(f"Of jobs on GPUs there are at most {places} at a time.")
    if misfits := [str(line.artefact) for line in left if not line.fits]:
        print(
            f"{len(misfits)} jobs do not fit into memory and count as no time: "
            f"{', '.join(misfits)}. docs/cluster.md says what each method needs and how "
            "`accumulate` lowers it."
        )
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
