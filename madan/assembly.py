"""What commands share: an artefact is begun, its parts put together, trained and published."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from madan import certificates, config, runs
from madan.graph import MODULES, Artefact, Graph
from madan.schema import Refusal, known, started


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
    place = Path(graph.params.scale, artefact.kind, artefact.name, f"seed{artefact.seed}")
    return training.Run(
        title=f"{artefact.kind}/{artefact.name} seed {artefact.seed}",
        seed=artefact.seed,
        steps=graph.steps(artefact),
        save_every=settings.save_every,
        log_every=settings.log_every,
        state="state" / place,
        key=graph.planned(artefact),
        settings=graph.settings(artefact),
        keep=getattr(graph.params.run(artefact.kind, artefact.name), "keep", ()),
        images=_images(graph, artefact),
        board="logs/tensorboard" / place,
    )


def _images(graph: Graph, artefact: Artefact) -> int:
    """Images that a step of a training run sees, those of the target included."""
    training = graph.params.training
    if artefact.kind == "segmenters":
        return training.segmenter.batch
    if artefact.kind == "adaptations":
        after = graph.params.adaptations[artefact.name].method == "adda"
        return 2 * (training.adaptation if after else training.segmenter).batch
    run = graph.params.translators[artefact.name]
    crops = 1 + (len(training.translator.cag.crops) if run.cag else 0)
    return training.translator.batch * (1 + len(run.sources)) * crops


def _precision(graph: Graph, artefact: Artefact) -> str:
    """What a run is trained in: of generators and in adaptation bf16 loses too much."""
    segmenter = artefact.kind == "segmenters"
    return graph.params.training.segmenter.precision if segmenter else "fp32"


def train(
    graph: Graph, artefact: Artefact, method: Any, run: Any, modules: Any,
    check: Callable[[], None] = lambda: None, kept: Any = None,
) -> None:  # fmt: skip
    """Train, publish weights and log, and drop the state that was kept meanwhile.

    After the steps of `run.keep` the modules `kept` are saved, too.
    """
    from madan import checkpoints, parallel, training

    story = {
        "settings": run.settings,
        "seed": run.seed,
        "step": run.steps,
        "code": graph.promise(artefact)[1],
        "modules": certificates.module_digests(graph.package, *MODULES[artefact.kind]),
        "processes": parallel.size(),
        "precision": training.resolved(_precision(graph, artefact)),
    }
    if parallel.rank():  # Of several processes, the first publishes.
        training.fit(method, run, Path(os.devnull))
        return
    # Whoever asks it to leave after the last step has it finish instead of losing steps.
    with training.signals(), graph.publish(artefact) as out:
        training.fit(method, run, out / "log.csv", lambda done: _keep(run, done, kept, story))
        check()
        checkpoints.save(out / "weights.safetensors", modules, story)
        for step in run.keep:
            shutil.copy(_kept(run, step), out / f"weights-step{step}.safetensors")
    certificates.settle(graph.folder(artefact))
    training.forget(run)


def scores(graph: Graph, table: str) -> list[Any]:
    """The scores behind a table, as far as they are made."""
    from madan import tables

    rows = [row for row in graph.params.tables[table].rows for _ in graph.seeds(table, row.run)]
    return [
        tables.Score(
            row.row,
            row.setting,
            graph.folder(score) / "score.json",
            certificates.read(graph.certificate(score)),
        )
        for row, score in zip(rows, graph.scores(table), strict=True)
        if graph.is_made(score)
    ]


def _kept(run: Any, step: int) -> Path:
    """Where a run that is not done keeps the weights of a step, beside its states."""
    return Path(run.state, f"{run.key}-step{step}.safetensors")


def _keep(run: Any, done: int, modules: Any, story: dict[str, Any]) -> None:
    """Save modules after a step that the run keeps, before any state of that step or a later one.

    Refusal when the weights of a step before are gone, since a resumed run cannot make them.
    """
    from madan import checkpoints, states

    gone = [step for step in run.keep if step < done and not _kept(run, step).exists()]
    if gone:
        raise Refusal(
            f"{_kept(run, gone[0])} is gone, the weights that {run.title} was to keep of step "
            f"{gone[0]}: delete {run.state} to train from the start."
        )
    if done in run.keep:
        fresh = Path(run.state, "weights.new")
        checkpoints.save(fresh, modules, story | {"step": done})
        states.flush(fresh)
        fresh.replace(_kept(run, done))


def weights(graph: Graph, address: str, seed: int) -> Path:
    """The weights file of the run `kind/name`, or of a step that it keeps, `kind/name@step`."""
    address, at, step = address.partition("@")
    file = f"weights-step{step}.safetensors" if at else "weights.safetensors"
    return graph.folder(graph.run(address, seed)) / file


def model(graph: Graph, name: str) -> Path:
    """The weights that a row of a table, a run or a file names; of several seeds the first's.

    Refusal when it is none of these, or not there yet.
    """
    if name.endswith(".safetensors"):
        return Path(name)
    tables = graph.params.tables
    # Where several tables have a row of that name, miou's is meant.
    shown = [row for table in [*tables.values(), tables["miou"]] for row in table.rows]
    rows = {row.row: row.run for row in shown}
    runs = [
        f"{kind}/{run}"
        for kind in ("segmenters", "adaptations", "released")
        for run in getattr(graph.params, kind)
    ]
    known("--model", name, [*rows, *runs])
    return weights(graph, rows.get(name, name), graph.params.seeds[0])


def generator(graph: Graph, run: str, source: str, seed: int) -> Any:
    """G_i of a translator for one source, trained, on the device of this process."""
    from madan import checkpoints, training
    from madan.generator import Generator

    take_gpus()
    training.begin(seed, graph.params.training.threads)
    net = Generator(**graph.params.networks.generator.model_dump())
    address = graph.params.translator(run)
    name = "G" if address.startswith("released/") else f"G_{source}"
    checkpoints.load(weights(graph, address, seed), name, net)
    return training.compiled(net.to(training.device()), graph.params.training.compile)


def to_predict(graph: Graph, run: str, on: str, seed: int) -> tuple[Any, Any, dict[str, Any]]:
    """A run's segmenter, labelled pictures, and what is said of all that is predicted on them."""
    from madan import checkpoints, training

    take_gpus()
    training.begin(seed, graph.params.training.threads)
    target, _, split = on.rpartition("-")
    shown = pictures(graph, target, split=split, labelled=True)
    sizes = sorted({"x".join(map(str, shown.label(k).shape)) for k in range(len(shown))})
    story = checkpoints.story(weights(graph, run, seed))
    protocol = {
        "scale": graph.params.scale,
        "run": run,
        "seed": seed,
        "target": target,
        "split": split,
        "images": len(shown),
        "resolution": " ".join(sizes),
        "checkpoint": story.get("checkpoint", "last step"),
        "step": story["step"],
        "torch": story["torch"],
        "precision": training.resolved(graph.params.training.segmenter.precision),
    }
    return segmenter(graph, run, seed), shown, protocol


def start(graph: Graph, address: str, seed: int) -> Any:
    """The segmenter with which a run begins: that of the run it goes on from, or a fresh one."""
    kind, name = address.split("/")
    params = graph.params
    found = started(params.segmenters[name] if kind == "segmenters" else params.adaptations[name])
    return segmenter(graph, found[0], seed) if found else untrained(graph, address, seed)


def segmenter(graph: Graph, address: str, seed: int) -> Any:
    """The trained segmenter F of the run `kind/name`; of a translator, its F_A."""
    from madan import checkpoints, segmentation, training

    net = segmentation.build(graph.params.network(address))
    name = "FA" if address.startswith("translators/") else "F"
    checkpoints.load(weights(graph, address, seed), name, net)
    return training.compiled(net, graph.params.training.compile)


def untrained(graph: Graph, address: str, seed: int) -> Any:
    """F as a run that starts from no other begins: random, or from VGG-16 trained on ImageNet."""
    from madan import segmentation, training

    net = segmentation.build(graph.params.network(address))
    pretrained = runs.pretrained(graph.params, address)
    if pretrained:
        segmentation.pretrain(net, weights(graph, pretrained, seed))
    return training.compiled(net, graph.params.training.compile)


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
