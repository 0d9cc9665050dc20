"""The command line: one command for each rule, and the same for people."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from madan import assembly, certificates, config, runs, startup
from madan.graph import Artefact, Graph
from madan.schema import Refusal

app = typer.Typer(
    help="MADAN: multi-source domain adaptation for semantic segmentation. Commands work on the "
    "runs that params.yaml names; Snakemake calls them in the right order: "
    "snakemake --cores 8 results/miou.csv",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
exports = typer.Typer(
    help="Write what others read: madan export stylised madan gta5",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
# In this order `madan --help` shows them.
DATA, PIXEL, SEGMENTERS = "Data", "Pixel level: G", "Segmenters: F"
SHOWN, STANDING = "Scores, figures, exports", "What stands and what is to come"
app.add_typer(exports, name="export", rich_help_panel=SHOWN)

CORES = len(os.sched_getaffinity(0))
Seed = Annotated[int | None, typer.Option(help="One of params.yaml's seeds; else its first.")]
Processes = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Processes that train together, a GPU for each where there are any; else `resources`.",
    ),
]
Planned = Annotated[
    str | None,
    typer.Option(help="Settings and code this was planned with; refused if they are others now."),
]


def _name(what: str, form: str | None = None) -> typer.models.ArgumentInfo:
    """An argument that names something in params.yaml."""
    found: typer.models.ArgumentInfo = typer.Argument(help=what, metavar=form)
    return found


Translation = Annotated[str, _name("One of `translators` in params.yaml, or RUN@STEP.", "RUN")]
Source = Annotated[str, _name("One of its `sources`.", "SOURCE")]
Scored = Annotated[str, _name("A run with a segmenter, such as segmenters/pooled.", "KIND/RUN")]
Split = Annotated[str, _name("A domain and its split.", "DOMAIN-SPLIT")]


def main() -> None:
    """Run a command; what a person has to mend ends as one sentence and exit code 1."""
    startup.begin()
    try:
        app()
    except Refusal as refusal:
        sys.exit(f"madan: {refusal}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"madan: {where}{error.strerror or error}.")


@app.command(rich_help_panel=DATA)
def miniature(
    domain: Annotated[str, _name("One of `domains` in params.yaml.")], planned: Planned = None
) -> None:
    """Draw a domain of the miniature world in its native layout: madan miniature gta5"""
    from madan import native

    graph, artefact, _ = assembly.begin("miniature", domain, 0, planned)
    drawn = graph.params.miniature
    layout = graph.params.dataset(domain).layout
    images = {str(split): count for split, count in drawn.images[domain].items()}
    look = drawn.looks.get(domain)
    # Domains that share a layout show other scenes, or the same ones in another look.
    same = look or domain == layout
    seed = drawn.seed if same else drawn.seed + zlib.crc32(domain.encode())
    with graph.publish(artefact) as out:
        native.write(layout, out, images=images, size=drawn.size, seed=seed, look=look)


@app.command(rich_help_panel=DATA)
def verify(
    domains: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DOMAIN[/SPLIT]",
            help="Else all that params.yaml has; of a drawn world what is drawn.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Read headers alone; nothing is certified.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Pairs that are read at a time.")] = CORES,
    planned: Planned = None,
) -> None:
    """Say what is wrong with datasets and how to mend it: madan verify gta5 cityscapes/val

    Ends with 0 if all is fit, 1 if usable without some pairs, 2 if something is unusable.
    """
    found = [0]
    with _said(found):
        graph = Graph(config.load())
        for name in domains or _datasets(graph):
            domain, _, only = name.partition("/")
            with _said(found):
                for split in [only] if only else _splits(graph, domain):
                    found.append(_verify(graph, f"{domain}/{split}", quick, jobs, planned))
    raise typer.Exit(max(found))


@contextlib.contextmanager
def _said(found: list[int]) -> Iterator[None]:
    """Say what stands in the way of a dataset, so that the next one has its turn."""
    from madan import verify as door

    try:
        yield
    except (Refusal, OSError) as error:
        typer.echo(f"madan: {error}", err=True)
        found.append(door.UNUSABLE)


def _datasets(graph: Graph) -> list[str]:
    """All datasets; of the drawn ones those that are drawn, if any are."""
    found = [name for name, domain in graph.params.domains.items() if not domain.union]
    if graph.params.scale != "miniature":
        return found
    return [n for n in found if graph.certificate(Artefact("miniature", n)).exists()] or found


def _splits(graph: Graph, domain: str) -> list[str]:
    """The splits of a dataset that lie there; of a drawn one those that are drawn."""
    from madan import layouts

    dataset = graph.params.dataset(domain)
    if graph.params.scale == "miniature":
        return [str(split) for split in graph.params.miniature.images[domain]]
    return layouts.splits(dataset) or ["train"]


def _verify(graph: Graph, where: str, quick: bool, jobs: int, planned: str | None) -> int:
    """Verify one split: show and write its report; certify it where it is usable."""
    from madan import verify as door

    _, artefact, _ = assembly.begin("verified", where, 0, planned)
    domain, split = where.split("/")
    folder, name = graph.folder(artefact), Path("verify", graph.params.scale, where)
    journal = None if quick else Path("state", f"{name}.jsonl")
    key = certificates.code_digest(graph.package, "verify") + graph.promise(artefact)[0]
    dataset = graph.params.dataset(domain)
    report = door.verify(where, dataset, split, jobs=jobs, quick=quick, journal=journal, key=key)
    door.show(report)
    if journal is None:
        return report.status
    certificates.write_whole(Path("results", f"{name}.json"), door.as_json(report))
    if report.status == door.UNUSABLE:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        with graph.publish(artefact) as out:
            door.write(report, out / "items.json")
    journal.unlink()
    return report.status


@app.command(rich_help_panel=DATA)
def prepare(
    shard: Annotated[str, _name("Shards count from 0.", "DOMAIN/SPLIT/SHARD")],
    planned: Planned = None,
) -> None:
    """Turn a shard of a dataset into arrays at training size: madan prepare gta5/train/0"""
    from madan import datasets
    from madan import verify as door

    graph, artefact, _ = assembly.begin("prepared", shard, 0, planned)
    name, split, k = shard.split("/")
    verified = door.read(graph.folder(Artefact("verified", f"{name}/{split}")) / "items.json")
    with graph.publish(artefact) as out:
        datasets.prepare(graph.params.dataset(name), split, int(k), verified, out)


@app.command(rich_help_panel=PIXEL)
def translate(
    run: Annotated[str, _name("One of `translators` in params.yaml.")],
    seed: Seed = None,
    processes: Processes = None,
    planned: Planned = None,
) -> None:
    """Train generators from the sources to the target: madan translate cyclegan-gta5"""
    from madan import segmentation
    from madan.translation import Translator

    graph, artefact, seed = assembly.begin("translators", run, seed, planned)
    params, settings = graph.params, graph.params.translators[run]
    job = assembly.training_run(graph, artefact, processes)
    sources = {
        i: assembly.pictures(graph, i, labelled=settings.task is not None) for i in settings.sources
    }
    judges, task, weights = {}, None, None
    if settings.semantic != "none":
        judges = {
            i: assembly.segmenter(graph, params.judge(n), seed) for i, n in settings.judges.items()
        }
    if settings.task:
        start = settings.task.start and f"segmenters/{settings.task.start}"
        task = (
            assembly.segmenter(graph, start, seed)
            if start
            else assembly.untrained(graph, f"translators/{run}", seed)
        )
        weights = segmentation.class_weights(list(sources.values()), params.training.segmenter)
    method = Translator(
        settings,
        params.training.translator,
        params.networks,
        sources,
        assembly.pictures(graph, settings.target),
        steps=job.steps,
        seed=seed,
        judges=judges,
        task=task,
        class_weights=weights,
    )
    method.start(
        (params.translators[name], assembly.weights(graph, f"translators/{name}", seed))
        for name in settings.start
    )
    assembly.train(graph, artefact, method, job, method.networks(), kept=method.generators)


@app.command(rich_help_panel=PIXEL)
def stylise(
    run: Translation,
    source: Source,
    seed: Seed = None,
    planned: Planned = None,
    images: Annotated[
        list[Path] | None, typer.Option(help="Photos of your own, or folders of them, instead.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where those go.")] = Path("stylised"),
) -> None:
    """Send all images of a source through its generator: madan stylise madan gta5

    RUN@STEP is the generator of a step that the run keeps: madan stylise madan@100 gta5

    Photos of your own, in their size: madan stylise madan gta5 --images holiday --out stylised
    """
    from madan import stylisation

    if images:
        return _stylise_photos(run, source, seed, images, out)
    graph, artefact, seed = assembly.begin("stylised", f"{run}/{source}", seed, planned)
    generator = assembly.generator(graph, run, source, seed)
    with graph.publish(artefact) as out:
        precision = graph.params.training.translator.stylise_precision
        stylisation.stylise(generator, assembly.pictures(graph, source), out, precision)


def _stylise_photos(run: str, source: str, seed: int | None, images: list[Path], out: Path) -> None:
    from madan import prediction

    graph = Graph(config.load())
    artefact = Artefact(
        "stylised", f"{run}/{source}", graph.params.seeds[0] if seed is None else seed
    )
    graph.check(artefact)
    found = prediction.photos(images)
    generator = assembly.generator(graph, run, source, artefact.seed)
    precision = graph.params.training.translator.stylise_precision
    prediction.stylise(generator, found, out, graph.params.export, precision)
    print(f"written: {len(found)} images in {out}")


@app.command(rich_help_panel=SEGMENTERS)
def predict(
    photos: Annotated[list[Path], typer.Argument(help="Images, or folders of them.")],
    model: Annotated[
        str,
        typer.Option(help="A row of a table, a run such as segmenters/oracle, or a weights file."),
    ],
    out: Annotated[Path, typer.Option(help="Where the pictures go.")] = Path("predictions"),
    height: Annotated[
        int | None,
        typer.Option(min=0, help="Height at which F sees photos: as trained; 0 is their own."),
    ] = None,
) -> None:
    """Label photos of your own: madan predict holiday/ street.jpg --model madan

    Writes overlays, Cityscapes label ids in each photo's size, and a mosaic of the first ones.
    """
    from madan import prediction, training

    graph = Graph(config.load())
    params, found = graph.params, prediction.photos(photos)
    weights = assembly.model(graph, model)
    assembly.take_gpus()
    training.begin(0, params.training.threads)
    net = prediction.segmenter(weights)
    if height is None:
        height = params.dataset(params.tables["miou"].target).size[0]
    precision = params.training.segmenter.precision
    prediction.predict(net, found, out, height, params.export, precision)
    print(f"written: labelIds, overlay and mosaic.png of {len(found)} photos in {out}")


@app.command(rich_help_panel=SEGMENTERS)
def segment(
    run: Annotated[str, _name("One of `segmenters` in params.yaml.")],
    seed: Seed = None,
    processes: Processes = None,
    planned: Planned = None,
) -> None:
    """Train a segmenter on labelled sets: madan segment source-gta5"""
    from madan import segmentation

    graph, artefact, seed = assembly.begin("segmenters", run, seed, planned)
    params, settings = graph.params, graph.params.segmenters[run]
    job = assembly.training_run(graph, artefact, processes)
    net = assembly.start(graph, f"segmenters/{run}", seed)
    sets = [assembly.pictures(graph, item, seed, labelled=True) for item in settings.train_on]
    learning = params.learning(settings.network)
    method = segmentation.Supervised(net, sets, learning, job.steps, seed)
    assembly.train(graph, artefact, method, job, method.modules)


@app.command(rich_help_panel=SEGMENTERS)
def adapt(
    run: Annotated[str, _name("One of `adaptations` in params.yaml.")],
    seed: Seed = None,
    processes: Processes = None,
    planned: Planned = None,
) -> None:
    """Align a segmenter's features with the target's: madan adapt madan"""
    from madan import adaptation

    graph, artefact, seed = assembly.begin("adaptations", run, seed, planned)
    params, settings = graph.params, graph.params.adaptations[run]
    job = assembly.training_run(graph, artefact, processes)
    net = assembly.start(graph, f"adaptations/{run}", seed)
    labelled = settings.method != "adda"
    sets = [assembly.pictures(graph, i, seed, labelled=labelled) for i in params.sets(settings)]
    target = assembly.pictures(graph, settings.target)
    method = adaptation.build(params, settings, net, sets, target, job.steps, seed)
    checks = [method.check] if isinstance(method, adaptation.Adda) else []
    assembly.train(graph, artefact, method, job, {"F": net}, *checks)


@app.command(rich_help_panel=SHOWN)
def evaluate(run: Scored, on: Split, seed: Seed = None, planned: Planned = None) -> None:
    """Score a segmenter on a split: madan evaluate segmenters/pooled cityscapes-val"""
    from madan import evaluation

    graph, artefact, seed = assembly.begin("scores", f"{run}/{on}", seed, planned)
    net, pictures, protocol = assembly.to_predict(graph, run, on, seed)
    batch, precision = graph.params.evaluation.batch, graph.params.training.segmenter.precision
    confusion = evaluation.evaluate(net, pictures, batch, precision)
    with graph.publish(artefact) as out:
        evaluation.write(out / "score.json", confusion, protocol)


@app.command(rich_help_panel=SHOWN)
def table(
    name: Annotated[str, _name("One of `tables` in params.yaml.")],
    partial: Annotated[
        bool, typer.Option(help="Show what there is by now; nothing is written.")
    ] = False,
    planned: Planned = None,
) -> None:
    """Collect the scores of a table of params.yaml: madan table ablation --partial"""
    from madan import pages, tables

    if partial:
        graph = Graph(config.load())
        graph.check(Artefact("tables", name))
        made = tables.lines(assembly.scores(graph, name))
        print(pages.files(made, name, graph.params)["md"], end="")
        return
    graph, artefact, _ = assembly.begin("tables", name, 0, planned)
    found = assembly.scores(graph, name)
    made, paths = tables.lines(found), graph.pages(name)
    texts = pages.files(made, name, graph.params)
    for key, path in paths.items():
        certificates.write_whole(path, texts[key])
    if name == "miou":
        text = json.dumps(tables.metrics(found), indent=1) + "\n"
        certificates.write_whole(paths["csv"].with_name("metrics.json"), text)
    certificates.write_whole(
        graph.certificate(artefact), graph.certify(artefact, paths["csv"].parent, paths.values())
    )
    print(made[["row", "seed", "miou19", "miou16", "miou13"]].to_string(index=False))


@app.command(rich_help_panel=SHOWN)
def figure(
    name: Annotated[str, _name("One of `figures` in params.yaml.")], planned: Planned = None
) -> None:
    """Draw a figure of params.yaml: madan figure translation"""
    from madan import figures, gallery

    graph, artefact, _ = assembly.begin("figures", name, 0, planned)
    with graph.publish(artefact) as out:
        figures.save(gallery.draw(graph, name), out / "figure.png")


@app.command("import", rich_help_panel=DATA)
def import_(
    what: Annotated[str, typer.Argument(metavar="NAME|FILE")],
    as_released: Annotated[
        bool, typer.Option(help="Of a FILE: without skip heads, as the release's loader has it.")
    ] = False,
    planned: Planned = None,
) -> None:
    """Turn released weights into safetensors, accounting for every key: madan import judge.pth

    NAME is one of `released` in params.yaml. A FILE, of full size, gets a .safetensors beside it.
    """
    from madan import released

    if what not in config.load().released and Path(what).suffix:
        networks, path = config.load(scale="paper").networks, Path(what)
        out, report = path.with_suffix(".safetensors"), path.with_suffix(".json")
        released.bring(what, None, networks, as_released, out, report)
        return
    graph, artefact, _ = assembly.begin("released", what, 0, planned)
    entry = graph.params.released[what]
    with graph.publish(artefact) as out:
        released.bring(
            entry.file,
            entry.network,
            graph.params.networks,
            entry.as_released or as_released,
            out / "weights.safetensors",
            out / "report.json",
        )


@app.command(rich_help_panel=STANDING)
def check() -> None:
    """Refuse results that are not what params.yaml and the package say now: madan check"""
    from madan import guard

    guard.check(Graph(config.load()))


@app.command(rich_help_panel=STANDING)
def vouch(
    paths: Annotated[list[Path], typer.Argument(help="Folders with results, or their files.")],
    code: Annotated[
        bool, typer.Option(help="You know that other code made no difference.")
    ] = False,
) -> None:
    """Check results byte by byte and have Snakemake record them: madan vouch results"""
    from madan import guard

    graph = Graph(config.load())
    found = guard.below(graph, paths)
    guard.vouch(graph, found, code)
    certified = [str(graph.certificate(artefact)) for artefact in found]
    # Made with today's settings from what lies there: now Snakemake records it as just that.
    quiet = ["--quiet", "host", "progress", "rules", "reason"]
    touch = ["snakemake", "--touch", "--force", "--cores", "1", *quiet, "--", *certified]
    if subprocess.run(touch).returncode:
        raise Refusal("snakemake could not record what was vouched for; its message stands above.")
    print("\n".join(f"vouched: {path}" for path in certified))


@app.command(rich_help_panel=STANDING)
def plan(
    tables: Annotated[list[str] | None, typer.Argument(help="Else miou alone.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs, or GPUs, that work at a time.")] = CORES,
    seconds: Annotated[float, typer.Option(help="How long each kind of job is tried.")] = 4,
) -> None:
    """Say what tables will take in time, memory and disk: madan plan ablation --jobs 4

    The first time every kind of job is tried for some seconds; then what it cost is remembered.
    """
    from madan import plan as ahead

    graph, tables = Graph(config.load()), tables or ["miou"]
    for name in tables:
        graph.check(Artefact("tables", name))
    ahead.show(graph, ahead.lines(graph, tables, jobs, seconds), jobs)


@app.command(rich_help_panel=STANDING)
def status(
    table: Annotated[str, typer.Argument(help="A table of params.yaml.")] = "miou",
) -> None:
    """Say what is done, running, waiting or stale, and why: madan status miou"""
    from madan import status as standing

    graph = Graph(config.load())
    graph.check(Artefact("tables", table))
    standing.show(standing.lines(graph, table), graph)


@app.command(rich_help_panel=SHOWN)
def publish(
    out: Annotated[Path, typer.Argument(help="Where they go.")] = Path("docs/miniature"),
) -> None:
    """Copy the miniature's tables and figures where git has them: madan publish docs/miniature"""
    from madan import publication

    for path in publication.publish(Graph(config.load()), out):
        print(f"written: {path}")


@exports.command("stylised")
def export_stylised(
    run: Translation, source: Source, seed: Seed = None, planned: Planned = None
) -> None:
    """Stylise a source's raw images as a release: madan export stylised madan gta5"""
    from madan import checkpoints, export
    from madan import verify as door

    graph, artefact, seed = assembly.begin("releases", f"{run}/{source}", seed, planned)
    params, translator = graph.params, runs.translator(graph.params, "the command line", run)
    settings, code = graph.promise(artefact)
    story = {
        "run": run,
        "translator": translator.model_dump(),
        "source": source,
        "target": translator.target,
        "seed": seed,
        "scale": params.scale,
        "step": checkpoints.story(assembly.weights(graph, f"translators/{run}", seed))["step"],
        **graph.settings(artefact),
        "settings": settings,
        "code": code,
    }
    members = []
    for name in params.members(source):
        verified = graph.folder(Artefact("verified", f"{name}/train")) / "items.json"
        members.append(export.Member(name, params.dataset(name), door.read(verified)))
    generator, target = (
        assembly.generator(graph, run, source, seed),
        params.dataset(translator.target),
    )
    precision = params.training.translator.stylise_precision
    with graph.publish(artefact) as out:
        export.release(generator, members, target, out, precision, params.export, story)
    print(f"written: {graph.folder(artefact)}")


@exports.command("predictions")
def export_predictions(run: Scored, on: Split, seed: Seed = None, planned: Planned = None) -> None:
    """Write label ids and overlays: madan export predictions segmenters/pooled cityscapes-val"""
    from madan import export

    graph, artefact, seed = assembly.begin("predictions", f"{run}/{on}", seed, planned)
    net, pictures, protocol = assembly.to_predict(graph, run, on, seed)
    batch, precision = graph.params.evaluation.batch, graph.params.training.segmenter.precision
    settings, code = graph.promise(artefact)
    protocol |= {"settings": settings, "code": code}
    with graph.publish(artefact) as out:
        export.predictions(net, pictures, batch, precision, out, protocol)
    print(f"written: {graph.folder(artefact)}")
