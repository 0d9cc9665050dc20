"""Plan: will it fit? Time, memory and disk of all that tables need, from a short calibration.

Every kind of job is tried for a few steps on noise of the right size, by as many processes at once
as will run together; what it cost is kept for the same settings, code and device.
"""

import contextlib
import heapq
import json
import multiprocessing
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from madan import certificates, config, datasets, layouts, native, startup, verify
from madan.config import digest
from madan.datasets import Verified
from madan.graph import MODULES, Artefact, Graph
from madan.schema import Dataset, Params, Refusal, Segmenter, Translator

DATA = ("miniature", "verified", "prepared")
TRAINING = ("translators", "segmenters", "adaptations")


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


class Noise:
    """Pictures of noise, so many, of a domain's prepared and native size."""

    def __init__(self, name: str, size: tuple[int, int], native: tuple[int, int], count: int):
        rng = np.random.default_rng(0)
        self.name, self._count = name, count
        self._image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        self._label = rng.integers(0, 19, native, dtype=np.uint8)
        self.shards = [np.broadcast_to(self._image, (count, *size, 3))]

    def __len__(self) -> int:
        """Count the images."""
        return self._count

    def image(self, index: int) -> np.ndarray:
        """Noise [h, w, 3] uint8."""
        return self._image

    def label(self, index: int) -> np.ndarray:
        """Random train ids [H, W] uint8."""
        return self._label

    def pixels(self) -> np.ndarray:
        """As many of each class, int64 [19]."""
        return np.full(19, 1000)


def lines(graph: Graph, tables: Sequence[str], together: int, seconds: float) -> list[Line]:
    """All that these tables need, upstream first, with what it costs where so many run at once."""
    needed = graph.ancestry(Artefact("tables", table) for table in tables)
    costs, found = calibrate(graph, needed, together, seconds), []
    for artefact in needed:
        cost, units = costs[_alike(graph, artefact)], _units(graph, artefact)
        path = graph.certificate(artefact)
        said = certificates.read(path) if path.exists() else {}
        done = (said.get("settings"), said.get("code")) == graph.promise(artefact)
        took = cost.start + cost.unit * max(0, units - 1)
        disk = cost.weights or _bytes(graph, artefact, units)
        found.append(Line(artefact, done, units, took, cost.memory, disk))
    return found


def duration(graph: Graph, found: Sequence[Line], together: int) -> float:
    """Seconds until all is made by so many jobs at a time, the longest chain first."""
    seconds = {line.artefact: line.seconds for line in found if not line.done}
    waiting = {a: {b for b in graph.inputs(a) if b in seconds} for a in seconds}
    now, running = 0.0, list[tuple[float, Artefact]]()
    while waiting or running:
        ready = [artefact for artefact, needed in waiting.items() if not needed]
        ready.sort(key=graph.priority, reverse=True)
        for artefact in ready[: together - len(running)]:
            heapq.heappush(running, (now + seconds[artefact], artefact))
            del waiting[artefact]
        now, ended = heapq.heappop(running)
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
            print(f"trying {artefact.kind}/{artefact.name}", flush=True)
            known[alike] = _tried(artefact, together, seconds)
            certificates.write_whole(kept, json.dumps(known))
    return {alike: Cost(*cost) for alike, cost in known.items()}


def _device() -> str:
    import torch

    there = torch.cuda.is_available()
    return (torch.cuda.get_device_name() if there else platform.node()).replace(" ", "-")


def _alike(graph: Graph, artefact: Artefact) -> str:
    """Artefacts with the same key cost the same for every unit."""
    kind, name, _ = artefact
    params, said = graph.params, graph.settings(artefact)
    about: dict[str, Any] = {"threads": params.training.threads, "scale": params.scale}
    if kind in DATA:
        dataset = params.dataset(name.split("/")[0])
        about |= {
            "layout": dataset.layout,
            "size": dataset.size,
            "native": _native(params, dataset),
        }
    elif kind in TRAINING:
        run = params.run(kind, name)
        # Steps do not count: gates are fractions of them.
        training = {key: _without_steps(value) for key, value in said["training"].items()}
        about |= {"training": training, "networks": said["networks"]}
        if isinstance(run, Translator):
            about |= run.model_dump(include={"shared", "semantic", "sad", "ccd"})
            about |= {"sources": len(run.sources), "task": run.task and run.task.update_every}
            about |= {"kept": len(run.keep)}
        else:
            about["method"] = getattr(run, "method", "task")
            # A segmenter's batch is one, of however many sets; MDAN has a network for each.
            about["sets"] = len(params.sets(run)) if kind == "adaptations" else 1
    else:
        training = {key: value for key, value in said.items() if key != "step"}
        about |= {"training": training, "networks": params.networks.model_dump()}
        if kind in ("scores", "predictions"):
            about["network"] = params.architecture(name.rpartition("/")[0])
    code = certificates.code_digest(graph.package, *MODULES[kind])
    return f"{kind}-{digest([about, code])}"


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
        raise Refusal(f"{artefact.kind}/{artefact.name} could not be tried: {broken[0]}")
    start, unit, memory, weights = (sum(column) / together for column in zip(*found, strict=True))
    return Cost(start, unit, int(memory), int(weights))


def _try(artefact: Artefact, seconds: float, barrier: Any, answers: Any, begun: float) -> None:
    """In a process of its own: do a job's units for a while and tell what they cost."""
    startup.begin()
    try:
        graph = Graph(config.load())
        graph.promise(artefact)  # Every command works it out.
        with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(None):
            do, samples, per, weights = _job(graph, artefact, Path(scratch))
            do(samples[0])
            first, done = time.time() - begun, 0
            barrier.wait()
            started = time.monotonic()
            for sample in samples:
                do(sample)
                done += per
                if time.monotonic() - started > seconds:
                    break
            unit = (time.monotonic() - started) / done
        answers.put(Cost(first, unit, _peak(), weights))
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


Job = tuple[Callable[[int], object], Sequence[int], int, int]


def _job(graph: Graph, artefact: Artefact, scratch: Path) -> Job:
    """How to do a job's unit, which ones to try, units done at once, and the bytes of weights."""
    kind = artefact.kind
    if kind in ("tables", "released"):
        import madan.tables  # noqa: F401

        return lambda _: None, range(1), 1, 0
    if kind in DATA:
        return _data_job(graph, artefact, scratch)
    from madan import training

    training.begin(artefact.seed, graph.params.training.threads)
    return (_training_job if kind in TRAINING else _image_job)(graph, artefact, scratch)


def _data_job(graph: Graph, artefact: Artefact, scratch: Path) -> Job:
    """Drawing, verifying or preparing pairs of the native size, those of noise-free scenes."""
    params, name = graph.params, artefact.name.split("/")[0]
    dataset = params.dataset(name)
    size = _native(params, dataset)
    # A layout of one's own costs what another of its size does.
    layout = "bdd100k" if dataset.own else dataset.layout
    drawn = dataset.model_copy(
        update={"layout": layout, "own": None, "root": scratch / "drawn", "shards": 1}
    )

    def draw(k: int) -> None:
        native.write(layout, scratch / "drawn", images={"train": 1}, size=size, seed=k)

    if artefact.kind == "miniature":
        return draw, range(1000), 1, 0
    draw(0)
    [item] = layouts.items(drawn, "train")
    how = layouts.form(drawn, "train").values, layouts.of(drawn).table
    if artefact.kind == "verified":
        return lambda _: verify.inspect(item, *how, quick=False), range(1000), 1, 0
    verified = Verified({item.name: datasets.read(item, *how).digests}, {})
    return lambda _: datasets.prepare(drawn, "train", 0, verified, scratch), range(1000), 1, 0


def _image_job(graph: Graph, artefact: Artefact, scratch: Path) -> Job:
    """Stylising or scoring a batch of images."""
    from madan import evaluation, segmentation, stylisation, training
    from madan.generator import Generator

    params = graph.params
    if artefact.kind == "stylised":
        generator = Generator(**params.networks.generator.model_dump()).to(training.device())
        precision = params.training.translator.stylise_precision
        source: Any = _noise(params, artefact.name.split("/")[1], stylisation.BATCH)

        def stylise(k: int) -> None:
            out = Path(tempfile.mkdtemp(dir=scratch))
            stylisation.stylise(generator, source, out, precision)

        return stylise, range(1000), stylisation.BATCH, 0
    net = segmentation.build(params.network(artefact.name.rpartition("/")[0]))
    batch, precision = params.evaluation.batch, params.training.segmenter.precision
    target: Any = _noise(params, artefact.name.split("/")[2].rpartition("-")[0], batch)
    return lambda _: evaluation.evaluate(net, target, batch, precision), range(1000), batch, 0


def _training_job(graph: Graph, artefact: Artefact, scratch: Path) -> Job:
    """Steps of a run, taken from all over its length, since gates open on the way."""
    from madan import adaptation, segmentation, translation

    params, networks = graph.params, graph.params.networks
    run, steps, seed = (
        params.run(artefact.kind, artefact.name),
        graph.steps(artefact),
        artefact.seed,
    )

    def noise(domain: str) -> Any:
        return _noise(params, domain.rpartition("/")[2], 1000)

    def build(segmenter: str) -> Any:
        return segmentation.build(params.network(params.judge(segmenter)))

    method: Any
    if isinstance(run, Translator):
        own = params.network(f"translators/{artefact.name}") if run.task else None
        task = segmentation.build(own) if own else None
        method = translation.Translator(
            run, params.training.translator, networks, {i: noise(i) for i in run.sources},
            noise(run.target), steps=steps, seed=seed, task=task,
            judges={i: build(judge) for i, judge in run.judges.items()},
        )  # fmt: skip
        given = [*method.networks().values(), *list(method.generators.values()) * len(run.keep)]
    elif isinstance(run, Segmenter):
        net = build(artefact.name)
        sets = [noise(item) for item in run.train_on]
        method = segmentation.Supervised(net, sets, params.learning(run.network), steps, seed)
        given = [net]
    else:
        net = segmentation.build(params.network(f"adaptations/{artefact.name}"))
        sets = [noise(item) for item in params.sets(run)]
        method = adaptation.build(params, run, net, sets, noise(run.target), steps, seed)
        if isinstance(method, adaptation.Adda):
            # With its gate open, which is the dearer half.
            method.settings = method.settings.model_copy(update={"gate": -1})
        given = [net]
    weights = sum(4 * tensor.numel() for each in given for tensor in each.state_dict().values())
    places = [int(part * max(0, steps - 2)) for part in (1, 0.45, 0.1, 0.7, 0.3, 0.9)]
    # In pairs, since F_A moves every second step.
    samples = [min(steps - 1, place + k) for place in places for k in (0, 1)]
    return method.update, samples, 1, weights


def _noise(params: Params, domain: str, count: int) -> Noise:
    dataset = params.dataset(params.members(domain)[0])
    return Noise(domain, dataset.size, _native(params, dataset), count)


def _native(params: Params, dataset: Dataset) -> tuple[int, int]:
    """Height and width of a dataset's own images, as far as they are known without reading it."""
    if params.scale == "miniature":
        return params.miniature.size
    return (*layouts.of(dataset).sizes, dataset.size)[0]


def _units(graph: Graph, artefact: Artefact) -> int:
    """Steps of a training run, images of the others."""
    kind, name, _ = artefact
    params, parts = graph.params, name.split("/")
    if kind in TRAINING:
        return graph.steps(artefact)
    if kind == "miniature":
        return sum(params.miniature.images[name].values())
    if kind == "verified":
        return _images(graph, *parts)
    if kind == "prepared":
        return -(-_images(graph, *parts[:2]) // params.dataset(parts[0]).shards)
    if kind == "stylised":
        return sum(_images(graph, member, "train") for member in params.members(parts[1]))
    return _images(graph, *parts[2].rsplit("-", 1)) if kind == "scores" else 1


def _images(graph: Graph, domain: str, split: str) -> int:
    """Images of a split: those drawn, those verified, or else those published."""
    params = graph.params
    if params.scale == "miniature":
        return {str(each): n for each, n in params.miniature.images[domain].items()}.get(split, 0)
    verified = graph.folder(Artefact("verified", f"{domain}/{split}")) / "items.json"
    if verified.exists():
        return len(verify.read(verified).pairs)
    dataset = params.dataset(domain)
    counts = layouts.of(dataset).counts
    return counts.get("all" if dataset.splits == "all" else split, 0)


def _bytes(graph: Graph, artefact: Artefact, units: int) -> int:
    """Bytes that the images and labels of an artefact take; scores and tables next to none."""
    kind, name, _ = artefact
    params, parts = graph.params, name.split("/")
    if kind == "stylised":
        members = [params.dataset(member) for member in params.members(parts[1])]
        counts = [_images(graph, member, "train") for member in params.members(parts[1])]
        return sum(3 * d.size[0] * d.size[1] * n for d, n in zip(members, counts, strict=True))
    if kind == "prepared":
        dataset = params.dataset(parts[0])
        height, width = dataset.size
        h, w = dataset.size if parts[1] == "train" else _native(params, dataset)
        return units * (3 * height * width + h * w)
    return 0


def show(graph: Graph, found: Sequence[Line], jobs: int) -> None:
    """Print what is still to be made, by kind and run, the sums, and what other numbers change."""
    from rich.console import Console
    from rich.table import Table

    table = Table("", "done", "jobs", "units", "time", "memory", "disk")
    groups: dict[str, list[Line]] = {}
    for line in found:
        kind, name, _ = line.artefact
        single = kind in TRAINING or kind == "stylised"
        groups.setdefault(f"{kind}/{name}" if single else kind, []).append(line)
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
