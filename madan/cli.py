"""The command line: one command for each rule, and the same for people."""

import json
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from madan import certificates, config
from madan.config import Refusal
from madan.graph import Artefact, Graph

app = typer.Typer(
    help="MADAN: multi-source domain adaptation for semantic segmentation. Commands work on the "
    "runs that params.yaml names; Snakemake calls them in the right order: "
    "snakemake --cores 8 results/miou.csv",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

COLUMNS = 6  # of pictures in a figure
Seed = Annotated[int | None, typer.Option(help="One of params.yaml's seeds; else its first.")]
Processes = Annotated[
    int,
    typer.Option(min=0, help="Processes that train together, a GPU for each where there are any."),
]
Planned = Annotated[
    str | None,
    typer.Option(help="Settings and code this was planned with; refused if they are others now."),
]


def main() -> None:
    """Run a command; what a person has to mend ends as one sentence and exit code 1."""
    try:
        app()
    except Refusal as refusal:
        sys.exit(f"madan: {refusal}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"madan: {where}{error.strerror or error}.")


@app.command()
def miniature(domain: str, planned: Planned = None) -> None:
    """Draw a domain of the miniature world in its native layout: madan miniature gta5"""
    from madan import miniature as world

    graph, artefact, _ = _begin("miniature", domain, 0, planned)
    drawn = graph.params.miniature
    layout = graph.params.dataset(domain).layout
    images = {str(split): count for split, count in drawn.images[domain].items()}
    # Domains that share a layout show other scenes.
    seed = drawn.seed if domain == layout else drawn.seed + zlib.crc32(domain.encode())
    with graph.publish(artefact) as out:
        world.write(layout, out, images=images, size=drawn.size, seed=seed)


@app.command()
def prepare(shard: str, planned: Planned = None) -> None:
    """Turn a shard of a dataset into arrays at training size: madan prepare gta5/train/0"""
    from madan import datasets

    graph, artefact, _ = _begin("prepared", shard, 0, planned)
    name, split, k = shard.split("/")
    dataset = graph.params.dataset(name)
    with graph.publish(artefact) as out:
        part = int(k), dataset.shards
        datasets.prepare(dataset.layout, dataset.root, split, dataset.size, part, out)


@app.command()
def translate(
    run: str, seed: Seed = None, processes: Processes = 1, planned: Planned = None
) -> None:
    """Train generators from the sources to the target: madan translate cyclegan-gta5"""
    from madan import segmentation
    from madan.translation import Translator

    graph, artefact, seed = _begin("translators", run, seed, planned)
    params, settings = graph.params, graph.params.translators[run]
    job = _training(graph, artefact, processes)
    sources = {i: _pictures(graph, i, labelled=settings.task is not None) for i in settings.sources}
    judges, task, weights = {}, None, None
    if settings.semantic != "none":
        judges = {i: _segmenter(graph, f"segmenters/{n}", seed) for i, n in settings.judges.items()}
    if settings.task:
        task = _segmenter(graph, f"segmenters/{settings.task.start}", seed)
        weights = segmentation.class_weights(list(sources.values()), params.training.segmenter)
    method = Translator(
        settings,
        params.training.translator,
        params.networks,
        sources,
        _pictures(graph, settings.target),
        steps=job.steps,
        seed=seed,
        judges=judges,
        task=task,
        class_weights=weights,
    )
    method.start(
        (params.translators[name], _weights(graph, f"translators/{name}", seed))
        for name in settings.start
    )
    _train(graph, artefact, method, job, method.networks())


@app.command()
def stylise(run: str, source: str, seed: Seed = None, planned: Planned = None) -> None:
    """Send all images of a source through its generator: madan stylise madan gta5"""
    from madan import checkpoints, stylisation, training
    from madan.generator import Generator

    graph, artefact, seed = _begin("stylised", f"{run}/{source}", seed, planned)
    params = graph.params
    _take_gpus()
    training.begin(seed, params.training.threads)
    generator = Generator(**params.networks.generator.model_dump())
    checkpoints.load(_weights(graph, f"translators/{run}", seed), f"G_{source}", generator)
    generator.to(training.device())
    with graph.publish(artefact) as out:
        precision = params.training.translator.stylise_precision
        stylisation.stylise(generator, _pictures(graph, source), out, precision)


@app.command()
def segment(run: str, seed: Seed = None, processes: Processes = 1, planned: Planned = None) -> None:
    """Train a segmenter on labelled sets: madan segment source-gta5"""
    from madan import checkpoints, segmentation

    graph, artefact, seed = _begin("segmenters", run, seed, planned)
    params, settings = graph.params, graph.params.segmenters[run]
    job = _training(graph, artefact, processes)
    net = segmentation.build(params.networks.segmenter)
    if settings.start:
        name = "FA" if settings.start.startswith("translators/") else "F"
        checkpoints.load(_weights(graph, settings.start, seed), name, net)
    sets = [_pictures(graph, item, seed, labelled=True) for item in settings.train_on]
    method = segmentation.Supervised(net, sets, params.training.segmenter, job.steps, seed)
    _train(graph, artefact, method, job, method.modules)


@app.command()
def adapt(run: str, seed: Seed = None, processes: Processes = 1, planned: Planned = None) -> None:
    """Align a segmenter's features with the target's: madan adapt madan"""
    from madan.adaptation import Adda

    graph, artefact, seed = _begin("adaptations", run, seed, planned)
    params, settings = graph.params, graph.params.adaptations[run]
    job = _training(graph, artefact, processes)
    method = Adda(
        _segmenter(graph, f"segmenters/{settings.start}", seed),
        [_pictures(graph, item, seed) for item in params.segmenters[settings.start].train_on],
        _pictures(graph, settings.target),
        params.training.adaptation,
        params.networks.feature_discriminator,
        seed,
    )
    _train(graph, artefact, method, job, {"F": method.net}, method.check)


@app.command()
def evaluate(run: str, on: str, seed: Seed = None, planned: Planned = None) -> None:
    """Score a segmenter on a split: madan evaluate segmenters/pooled cityscapes-val"""
    from madan import checkpoints, evaluation, training

    graph, artefact, seed = _begin("scores", f"{run}/{on}", seed, planned)
    params = graph.params
    _take_gpus()
    training.begin(seed, params.training.threads)
    target, _, split = on.rpartition("-")
    pictures = _pictures(graph, target, split=split, labelled=True)
    precision = params.training.segmenter.precision
    net = _segmenter(graph, run, seed)
    confusion = evaluation.evaluate(net, pictures, params.evaluation.batch, precision)
    sizes = sorted({"x".join(map(str, pictures.label(k).shape)) for k in range(len(pictures))})
    protocol = {
        "scale": params.scale,
        "run": run,
        "seed": seed,
        "target": target,
        "split": split,
        "images": len(pictures),
        "resolution": " ".join(sizes),
        "checkpoint": "last step",
        "step": checkpoints.story(_weights(graph, run, seed))["step"],
    }
    with graph.publish(artefact) as out:
        evaluation.write(out / "score.json", confusion, protocol)


@app.command()
def table(name: str, planned: Planned = None) -> None:
    """Collect the scores of a table of params.yaml: madan table miou"""
    from madan import tables

    graph, artefact, _ = _begin("tables", name, 0, planned)
    rows = [row for row in graph.params.tables[name].rows for _ in graph.params.seeds]
    found = [
        tables.Score(
            row.row,
            row.setting,
            graph.folder(score) / "score.json",
            certificates.read(graph.certificate(score)),
        )
        for row, score in zip(rows, graph.scores(name), strict=True)
    ]
    made = tables.lines(found)
    path = graph.table(name)
    certificates.write_whole(path, made.to_csv(index=False))
    if name == "miou":
        text = json.dumps(tables.metrics(found), indent=1) + "\n"
        certificates.write_whole(path.with_name("metrics.json"), text)
    certificates.write_whole(
        graph.certificate(artefact), graph.certify(artefact, path.parent, [path])
    )
    print(made[["row", "seed", "miou19", "miou16", "miou13"]].to_string(index=False))


@app.command()
def figure(run: str, seed: Seed = None, planned: Planned = None) -> None:
    """Show what a translator did to its sources: madan figure madan"""
    from madan import figures

    graph, artefact, seed = _begin("figures", run, seed, planned)
    settings = graph.params.translators[run]
    rows = {}
    for source in settings.sources:
        before = _pictures(graph, source, labelled=True)
        after = _pictures(graph, f"{run}/{source}", seed)
        shown = range(min(COLUMNS, len(before)))
        rows[source] = [before.image(k) for k in shown]
        rows[f"{source}, stylised"] = [after.image(k) for k in shown]
        rows[f"{source}, labels"] = [before.label(k) for k in shown]
    target = _pictures(graph, settings.target)
    shown = range(min(COLUMNS, len(target)))
    rows[f"{settings.target} (target)"] = [target.image(k) for k in shown]
    with graph.publish(artefact) as out:
        figures.translation(rows, out / "translation.png")


def _begin(
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


def _take_gpus(processes: int = 1) -> None:
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


def _training(graph: Graph, artefact: Artefact, processes: int) -> Any:
    """The run of a training command, with threads and seed fixed before networks are built."""
    from madan import training

    _take_gpus(processes)
    settings = graph.params.training
    training.begin(artefact.seed, settings.threads)
    return training.Run(
        title=f"{artefact.kind}/{artefact.name} seed {artefact.seed}",
        seed=artefact.seed,
        steps=graph.steps(artefact),
        threads=settings.threads,
        save_every=settings.save_every,
        log_every=settings.log_every,
        state=Path(
            "state", graph.params.scale, artefact.kind, artefact.name, f"seed{artefact.seed}"
        ),
        key=graph.planned(artefact),
        settings=graph.settings(artefact),
    )


def _train(
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


def _weights(graph: Graph, address: str, seed: int) -> Path:
    kind, name = address.split("/")
    return graph.folder(Artefact(kind, name, seed)) / "weights.safetensors"


def _segmenter(graph: Graph, address: str, seed: int) -> Any:
    from madan import checkpoints, segmentation

    net = segmentation.build(graph.params.networks.segmenter)
    checkpoints.load(_weights(graph, address, seed), "F", net)
    return net


def _pictures(
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
