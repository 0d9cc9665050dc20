"""What commands share: an artefact is begun, its parts put together, trained and published."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from madan import certificates, config
from madan.graph import Artefact, Graph
from madan.schema import Refusal


def begin(
    kind: str, name: str, seed: int | None, planned: str | None
) -> tuple[Graph, Artefact, int]:
    """Load params.yaml, find the artefact, and check that it is still what was planned."""
    graph = Graph(config.load())
    artefact = Artefact(kind, name, graph.params.seeds[0] if seed is None else seed)
    graph.check(artefact)
    if planned and planned != graph.planned(artefact):
        raise Refusal(
            f"params.yaml or the code changed since {kind}/{name} was planned; nothing was made. "
            "Run snakemake again to plan with what stands there now."
        )
    graph.upstream(artefact)
    graph.verify(artefact)
    return graph, artefact, artefact.seed


def take_gpus(processes: int = 1) -> None:
    """Lease GPUs, where there are any; if several processes are to train, this one starts them."""
    from madan import devices, parallel

    started = parallel.expected()
    if started > 1:
        if processes not in (0, 1, started):
            raise Refusal(f"--processes is {processes}, but {started} processes were started.")
        return  # Whoever started them gave them their GPUs.
    leased = devices.lease(max(1, processes))
    if processes > 1:
        sys.exit(parallel.launch(processes, leased.gpus, leased.locks))


def training_run(graph: Graph, artefact: Artefact, processes: int | None) -> Any:
    """The run of a training command, with threads and seed fixed before networks are built."""
    from madan import training

    take_gpus(graph.processes(artefact) if processes is None else processes)
    settings = graph.params.training
    training.begin(artefact.seed, settings.threads)
    return training.Run(
        title=f"{artefact.kind}/{artefact.name} seed {artefact.seed}",
        seed=artefact.seed,
        steps=graph.steps(artefact),
        save_every=settings.save_every,
        log_every=settings.log_every,
        state=Path(
            "state", graph.params.scale, artefact.kind, artefact.name, f"seed{artefact.seed}"
        ),
        key=graph.planned(artefact),
        settings=graph.settings(artefact),
    )


def train(
    graph: Graph, artefact: Artefact, method: Any, run: Any, modules: Any,
    check: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Train, publish weights and log, and drop the state that was kept meanwhile."""
    from madan import checkpoints, parallel, training

    if parallel.rank():  # Of several processes, the first publishes.
        training.fit(method, run, Path(os.devnull))
        return
    # Whoever asks it to leave after the last step has it finish instead of losing steps.
    with training.signals(), graph.publish(artefact) as out:
        training.fit(method, run, out / "log.csv")
        check()
        story = {
            "settings": run.settings,
            "seed": run.seed,
            "step": run.steps,
            "code": graph.promise(artefact)[1],
            "processes": parallel.size(),
        }
        checkpoints.save(out / "weights.safetensors", modules, story)
    certificates.settle(graph.folder(artefact))
    training.forget(run)


def weights(graph: Graph, address: str, seed: int) -> Path:
    """The weights file of the run `kind/name`."""
    kind, name = address.split("/")
    return graph.folder(Artefact(kind, name, seed)) / "weights.safetensors"


def generator(graph: Graph, run: str, source: str, seed: int) -> Any:
    """G_i of a translator for one source, trained, on the device of this process."""
    from madan import checkpoints, training
    from madan.generator import Generator

    take_gpus()
    training.begin(seed, graph.params.training.threads)
    net = Generator(**graph.params.networks.generator.model_dump())
    checkpoints.load(weights(graph, f"translators/{run}", seed), f"G_{source}", net)
    return net.to(training.device())


def to_predict(graph: Graph, run: str, on: str, seed: int) -> tuple[Any, Any, dict[str, Any]]:
    """A run's segmenter, labelled pictures, and what is said of all that is predicted on them."""
    from madan import checkpoints, training

    take_gpus()
    training.begin(seed, graph.params.training.threads)
    target, _, split = on.rpartition("-")
    shown = pictures(graph, target, split=split, labelled=True)
    sizes = sorted({"x".join(map(str, shown.label(k).shape)) for k in range(len(shown))})
    protocol = {
        "scale": graph.params.scale,
        "run": run,
        "seed": seed,
        "target": target,
        "split": split,
        "images": len(shown),
        "resolution": " ".join(sizes),
        "checkpoint": "last step",
        "step": checkpoints.story(weights(graph, run, seed))["step"],
    }
    return segmenter(graph, run, seed), shown, protocol


def segmenter(graph: Graph, address: str | None, seed: int) -> Any:
    """The segmenter of a run, or a translator's F_A; without an address one with fresh weights."""
    from madan import checkpoints, segmentation

    net = segmentation.build(graph.params.networks.segmenter)
    if address:
        name = "FA" if address.startswith("translators/") else "F"
        checkpoints.load(weights(graph, address, seed), name, net)
    return net


def pictures(
    graph: Graph, item: str, seed: int = 0, split: str = "train", labelled: bool = False
) -> Any:
    """The images of a domain, or of `<translator>/<domain>` with the labels of that domain."""
    from madan.datasets import Pictures

    source = [graph.folder(shard) for shard in graph.prepared(item.rpartition("/")[2], split)]
    images = source
    if "/" in item:
        stylised = graph.folder(Artefact("stylised", item, seed))
        images = [stylised / str(k) for k in range(len(source))]
    return Pictures(item, images, source if labelled else ())
