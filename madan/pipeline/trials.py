"""Trials: how to do some units of a job on noise of the right size, to see what they cost."""

import tempfile
from collections.abc import Callable, Sequence
from functools import singledispatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from madan.config.data_settings import Dataset
from madan.config.schema import Params
from madan.data import datasets, layouts
from madan.data import verify as verification
from madan.data.datasets import Verified
from madan.miniature import writer
from madan.pipeline import artefacts, settings
from madan.pipeline.artefacts import Artefact

ON_GPU = (*artefacts.Trained.__args__, artefacts.Stylised, artefacts.Score)


class Trial(NamedTuple):
    """How to do a unit, the units to try, the units done at once, and the bytes of weights."""

    do: Callable[[int], object]
    units: Sequence[int] = range(1000)
    at_once: int = 1
    weights: int = 0


class Noise:
    """An image set of noise: so many images of a domain's prepared and native size."""

    def __init__(self, name: str, size: tuple[int, int], native: tuple[int, int], count: int):
        rng = np.random.default_rng(0)
        self.name, self._count = name, count
        self._image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        self._label = rng.integers(0, 19, native, dtype=np.uint8)
        self._shards = [np.broadcast_to(self._image, (count, *size, 3))]

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

    @property
    def shards(self) -> list[np.ndarray]:
        """One shard of all images."""
        return self._shards


def start(artefact: Artefact, params: Params) -> None:
    """Lease a GPU for a trial that computes with torch, if there is any; fix threads and seed."""
    if isinstance(artefact, ON_GPU):
        from madan.pipeline.jobs import inputs

        inputs.start_process(params.training.threads, artefact.seed)


@singledispatch
def trial(artefact: Artefact, params: Params, scratch: Path) -> Trial:
    """Return how to try the job of an artefact, in an empty folder `scratch`."""
    import madan.report.tables  # noqa: F401  # Loading it is what a table costs.

    return Trial(lambda _: None, range(1))


@trial.register
def _(artefact: artefacts.Drawn, params: Params, scratch: Path) -> Trial:
    drawn, size = _drawn(artefact.domain, params, scratch)
    return Trial(lambda k: _draw(drawn, size, k))


@trial.register
def _(artefact: artefacts.Verified, params: Params, scratch: Path) -> Trial:
    drawn, size = _drawn(artefact.domain, params, scratch)
    _draw(drawn, size, 0)
    [item] = layouts.items(drawn, "train")
    meaning = layouts.meaning(drawn, "train")
    return Trial(lambda _: verification.inspect(item, meaning, quick=False))


@trial.register
def _(artefact: artefacts.Prepared, params: Params, scratch: Path) -> Trial:
    drawn, size = _drawn(artefact.domain, params, scratch)
    _draw(drawn, size, 0)
    [item] = layouts.items(drawn, "train")
    meaning = layouts.meaning(drawn, "train")
    usable = Verified({item.name: datasets.read(item, meaning).digests}, {})
    return Trial(lambda _: datasets.prepare(drawn, "train", 0, usable, scratch))


@trial.register
def _(artefact: artefacts.Stylised, params: Params, scratch: Path) -> Trial:
    from madan.engine import training
    from madan.methods import stylisation
    from madan.models.generator import Generator

    networks = params.networks_of(params.translator(artefact.run))
    generator = Generator(**networks.generator.model_dump()).to(training.device())
    precision = settings.stylise_precision(artefact.run, params)
    source = noise(params, artefact.source, stylisation.BATCH)

    def stylise(k: int) -> None:
        out = Path(tempfile.mkdtemp(dir=scratch))
        stylisation.stylise(generator, source, out, precision)

    return Trial(stylise, at_once=stylisation.BATCH)


@trial.register
def _(artefact: artefacts.Score, params: Params, scratch: Path) -> Trial:
    from madan.evaluation import evaluate
    from madan.methods import segmentation

    net = segmentation.build(params.network(artefact.run))
    batch, precision = params.evaluation.batch, params.training.segmenter.precision
    target = noise(params, artefact.domain, batch)
    return Trial(lambda _: evaluate.evaluate(net, target, batch, precision), at_once=batch)


@trial.register
def _(artefact: artefacts.Translator, params: Params, scratch: Path) -> Trial:
    from madan.methods import segmentation
    from madan.pipeline.jobs import translate

    run = params.translators[artefact.run]
    own = segmentation.build(params.network(artefact.address)) if run.task else None
    judges = {i: params.network(params.judge(judge)) for i, judge in run.judges.items()}
    method = translate.method(
        params,
        artefact,
        sources={source: noise(params, source) for source in run.sources},
        target=noise(params, run.target),
        judges={i: segmentation.build(network) for i, network in judges.items()},
        task=own,
    )
    kept = list(method.generators.values()) * len(run.keep)
    return _training(artefact, params, method, [*method.networks().values(), *kept])


@trial.register
def _(artefact: artefacts.Segmenter, params: Params, scratch: Path) -> Trial:
    from madan.methods import segmentation
    from madan.pipeline.jobs import segment

    net = segmentation.build(params.network(artefact.address))
    sets = [noise(params, item) for item in params.segmenters[artefact.run].train_on]
    method = segment.method(params, artefact, sets=sets, net=net)
    return _training(artefact, params, method, [net])


@trial.register
def _(artefact: artefacts.Adaptation, params: Params, scratch: Path) -> Trial:
    from madan.methods import adaptation, segmentation
    from madan.pipeline.jobs import adapt

    run = params.adaptations[artefact.run]
    net = segmentation.build(params.network(artefact.address))
    sets = [noise(params, item) for item in params.sets(run)]
    target = noise(params, run.target)
    method = adapt.method(params, artefact, sets=sets, target=target, net=net)
    if isinstance(method, adaptation.Adda):
        # With an open gate a step costs more.
        method.settings = method.settings.model_copy(update={"gate": -1})
    return _training(artefact, params, method, [net])


def _training(
    artefact: artefacts.Trained, params: Params, method: Any, networks: Sequence[Any]
) -> Trial:
    """Steps from all over a run, since gates open during it; in pairs, since F_A may skip one."""
    weights = sum(4 * t.numel() for each in networks for t in each.state_dict().values())
    steps = settings.steps(artefact, params)
    places = [int(part * max(0, steps - 2)) for part in (1, 0.45, 0.1, 0.7, 0.3, 0.9)]
    units = [min(steps - 1, place + k) for place in places for k in (0, 1)]
    return Trial(method.update, units, weights=weights)


def noise(params: Params, item: str, count: int = 1000) -> Noise:
    """Return a set of noise in the place of a domain, or of `TRANSLATOR/DOMAIN`."""
    domain = item.rpartition("/")[2]
    dataset = params.dataset(params.members(domain)[0])
    return Noise(domain, dataset.size, native_size(params, dataset), count)


def native_size(params: Params, dataset: Dataset) -> tuple[int, int]:
    """Return height and width of a dataset's own images, as far as its layout says them."""
    drawn = [name for name, each in params.domains.items() if each.root == str(dataset.root)]
    if params.miniature and any(map(params.drawn, drawn)):
        return params.miniature.size
    return (*layouts.of(dataset).sizes, dataset.size)[0]


def _drawn(domain: str, params: Params, scratch: Path) -> tuple[Dataset, tuple[int, int]]:
    """A dataset of drawn pairs of a domain's native size; an own layout costs as bdd100k does."""
    dataset = params.dataset(domain)
    layout = "bdd100k" if dataset.own else dataset.layout
    own = {"layout": layout, "own": None, "root": scratch / "drawn", "shards": 1}
    return dataset.model_copy(update=own), native_size(params, dataset)


def _draw(drawn: Dataset, size: tuple[int, int], seed: int) -> None:
    writer.write(drawn.layout, drawn.root, images={"train": 1}, size=size, seed=seed)
