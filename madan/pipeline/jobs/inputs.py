"""The inputs of jobs as objects: image sets, segmenters and generators from their artefacts."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from madan.config import runs
from madan.data import datasets
from madan.data.datasets import Pictures
from madan.engine import distributed, gpu, training
from madan.errors import Refusal
from madan.methods import segmentation
from madan.models import checkpoints
from madan.models.generator import Generator
from madan.pipeline import artefacts
from madan.pipeline.artefacts import Artefact
from madan.pipeline.edges import Role
from madan.pipeline.graph import Graph


def start_process(threads: int, seed: int, processes: int = 1, gpus: int = 0) -> None:
    """Lease a GPU if there is any, and fix threads and seed; several processes are started here.

    `gpus` is the number that params.yaml asks for. Refusal if torch cannot use a GPU that is there
    or asked for, or if another number of processes was started than `processes` says.
    """
    started = distributed.expected()
    if started > 1 and processes not in (0, 1, started):
        raise Refusal(f"--processes is {processes}, but {started} processes were started.")
    if started == 1:  # Otherwise whoever started the processes gave them their GPUs.
        leased = gpu.lease(max(1, processes))
    # Only now: asking torch starts CUDA, which then no longer reads what the lease has set.
    gpu.require_cuda(gpus)
    if started == 1 and processes > 1:
        sys.exit(distributed.launch(processes, leased.gpus, leased.locks))
    training.begin(seed, threads)


def image_set(
    graph: Graph, name: str, shards: Iterable[Artefact], labelled: bool = False,
    listed: bool = False,
) -> Pictures:  # fmt: skip
    """Open prepared shards as one set of images, with their labels if `labelled`.

    `listed` images have names and sizes also without labels. Refusal if they are to have labels and
    have none.
    """
    folders = [graph.folder(shard) for shard in shards]
    return Pictures(name, folders, folders if labelled else (), folders if listed else ())


def labelled(graph: Graph, shards: Iterable[Artefact]) -> bool:
    """Whether prepared shards have labels."""
    return datasets.labelled(graph.folder(shard) for shard in shards)


def stylised_set(
    graph: Graph, name: str, stylised: Artefact, source: Sequence[Artefact], labelled: bool = False
) -> Pictures:
    """Open a stylised source as a set of images, with the labels of the source if `labelled`."""
    images = [graph.folder(stylised) / str(k) for k in range(len(source))]
    return Pictures(name, images, [graph.folder(shard) for shard in source] if labelled else ())


def training_sets(
    graph: Graph, names: Iterable[str], images: Role, stylised: Role, labelled: bool = True
) -> list[Pictures]:
    """Open the sets that a run learns from: `DOMAIN`, or `TRANSLATOR/SOURCE`."""
    found = []
    for name in names:
        source = images[name.rpartition("/")[2]]
        if name in stylised:
            found.append(stylised_set(graph, name, stylised[name][0], source, labelled))
        else:
            found.append(image_set(graph, name, source, labelled))
    return found


def weights(graph: Graph, artefact: Artefact, step: int | None = None) -> Path:
    """Return the weights file of a run, or of a step that it keeps."""
    file = "weights.safetensors" if step is None else f"weights-step{step}.safetensors"
    return graph.folder(artefact) / file


def segmenter(graph: Graph, artefact: Artefact) -> Any:
    """Load the trained segmenter F of a run; of a translator, its task segmenter F_A."""
    net = segmentation.build(graph.params.network(artefact.address))
    name = "FA" if isinstance(artefact, artefacts.Translator) else "F"
    checkpoints.load(weights(graph, artefact), name, net)
    return training.compiled(net, graph.params.training.compile)


def starting_segmenter(graph: Graph, address: str, start: Role) -> Any:
    """Return the segmenter with which a run begins.

    That of the run in `start`; one with an imported backbone; or one with random weights.
    """
    before = [artefact for named in start.values() for artefact in named]
    if before and before[0].address != runs.pretrained(graph.params, address):
        return segmenter(graph, before[0])
    net = segmentation.build(graph.params.network(address))
    if before:
        segmentation.pretrain(net, weights(graph, before[0]))
    return training.compiled(net, graph.params.training.compile)


def generator(graph: Graph, artefact: Artefact, source: str, step: int | None, seed: int) -> Any:
    """Load the generator G_i of a translator, or an imported one, for one source."""
    start_process(graph.params.training.threads, seed)
    net = Generator(**graph.params.networks_of(artefact.address).generator.model_dump())
    name = "G" if isinstance(artefact, artefacts.Imported) else f"G_{source}"
    checkpoints.load(weights(graph, artefact, step), name, net)
    return training.compiled(net.to(training.device()), graph.params.training.compile)
