"""The command line: one command for each rule, and the same for people."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from madan import config
from madan.engine import process
from madan.errors import Refusal, known
from madan.inert import inert
from madan.pipeline import artefacts, checks
from madan.pipeline.graph import JOBS, Graph
from madan.pipeline.publishing import open_job

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
drafts = typer.Typer(
    help="Draft entries of params.yaml: madan init data FOLDER", no_args_is_help=True
)
# In this order `madan --help` shows them.
DATA, PIXEL, SEGMENTERS = "Data", "Pixel level: G", "Segmenters: F"
SHOWN, STANDING = "Scores, figures, exports", "What stands and what is to come"
app.add_typer(exports, name="export", rich_help_panel=SHOWN)
app.add_typer(drafts, name="init", rich_help_panel=DATA)

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
    typer.Option(
        hidden=True,
        help="Internal: digest passed by Snakemake; the command stops if settings or code have "
        "changed since.",
    ),
]


def _name(what: str, form: str | None = None) -> typer.models.ArgumentInfo:
    """An argument that names something in params.yaml."""
    found: typer.models.ArgumentInfo = typer.Argument(help=what, metavar=form)
    return found


Translation = Annotated[str, _name("One of `translators` in params.yaml, or RUN@STEP.", "RUN")]
Source = Annotated[str, _name("One of its `sources`.", "SOURCE")]
Scored = Annotated[str, _name("A run with a segmenter, such as segmenters/pooled.", "KIND/RUN")]
Split = Annotated[str, _name("A domain and its split.", "DOMAIN/SPLIT")]


def main() -> None:
    """Run a command; what a person has to mend ends as one sentence and exit code 1."""
    process.begin()
    try:
        app()
    except Refusal as refusal:
        sys.exit(f"madan: {inert(str(refusal))}")
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        sys.exit(f"madan: {inert(f'{where}{error.strerror or error}')}.")


def _make(address: str, seed: int | None, planned: str | None, **options: Any) -> Any:
    """Make an artefact by the function of its rule, which takes the inputs by their roles."""
    job = open_job(address, seed, planned, _processes(options))
    if job is None:
        return None
    module = JOBS[type(job.artefact)]
    function = getattr(importlib.import_module(f"madan.{module}"), module.rpartition(".")[2])
    return function(job, **job.roles, **options)


def _processes(options: dict[str, Any]) -> int | None:
    """How many processes train a run, if they were started so or --processes says it."""
    if "processes" not in options:
        return None
    from madan.engine import distributed

    started = distributed.expected()
    wanted: int | None = options["processes"]
    return started if started > 1 else wanted


@app.command(rich_help_panel=DATA)
def miniature(
    domain: Annotated[str, _name("One of `domains` in params.yaml.")], planned: Planned = None
) -> None:
    """Draw a domain of the miniature world in its native layout: madan miniature gta5"""
    _make(f"miniature/{domain}", 0, planned)


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
                    address = f"verified/{domain}/{split}"
                    status = _make(address, 0, planned, jobs=jobs, quick=quick)
                    found.append(status or 0)
    raise typer.Exit(max(found))


@contextlib.contextmanager
def _said(found: list[int]) -> Iterator[None]:
    """Say what stands in the way of a dataset, so that the next one has its turn."""
    from madan.data import verify as door

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
    drawn = [name for name in found if graph.certificate(artefacts.Drawn(name)).exists()]
    return drawn or found


def _splits(graph: Graph, domain: str) -> list[str]:
    """The splits of a dataset that lie there; of a drawn one those that are drawn."""
    from madan.data import layouts

    dataset = graph.params.dataset(domain)
    if graph.params.scale == "miniature":
        return [str(split) for split in graph.params.miniature.images[domain]]
    return layouts.splits(dataset) or ["train"]


@app.command(rich_help_panel=DATA)
def prepare(
    shard: Annotated[str, _name("Shards count from 0.", "DOMAIN/SPLIT/SHARD")],
    planned: Planned = None,
) -> None:
    """Turn a shard of a dataset into arrays at training size: madan prepare gta5/train/0"""
    _make(f"prepared/{shard}", 0, planned)


@app.command(rich_help_panel=PIXEL)
def translate(
    run: Annotated[str, _name("One of `translators` in params.yaml.")],
    seed: Seed = None,
    processes: Processes = None,
    planned: Planned = None,
) -> None:
    """Train generators from the sources to the target: madan translate cyclegan-gta5"""
    _make(f"translators/{run}", seed, planned, processes=processes)


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
    height: Annotated[
        int | None,
        typer.Option(min=0, help="Height at which G sees photos; 0, as without it, is their own."),
    ] = None,
) -> None:
    """Send all images of a source through its generator: madan stylise madan gta5

    RUN@STEP is the generator of a step that the run keeps: madan stylise madan@100 gta5

    Photos of your own, in their size: madan stylise madan gta5 --images holiday --out stylised
    """
    if images:
        return _stylise_photos(run, source, seed, images, out, height or 0)
    if height is not None:
        raise Refusal("--height is for photos (--images): stylised sources have the size of F's.")
    _make(f"stylised/{run}/{source}", seed, planned)


def _stylise_photos(
    run: str, source: str, seed: int | None, images: list[Path], out: Path, height: int
) -> None:
    from madan.inference import photos, predict
    from madan.pipeline.jobs import inputs

    graph = Graph(config.load())
    params = graph.params
    artefact = artefacts.Stylised(run, source, params.seeds[0] if seed is None else seed)
    checks.check(artefact, params)
    found = photos.find(images, "stylise")
    [[trained]] = graph.roles(artefact)["translator"].values()
    generator = inputs.generator(graph, trained, source, artefact.step, artefact.seed)
    precision = params.training.translator.stylise_precision
    unread = predict.stylise(generator, found, out, params.export, precision, height)
    _tell(found, unread, f"pictures in {out}")


def _tell(found: Any, unread: dict[str, str], what: str) -> None:
    """Say what was written and what was left out; end with exit code 1 where something was."""
    for note in found.notes:
        print(inert(note))
    left_out = [str(path) for path in found.files.values() if str(path) in unread]
    print(inert(f"written for {len(found.files) - len(left_out)} files: {what}"))
    if unread:
        for reason in unread.values():
            typer.echo(f"madan: {inert(reason)}", err=True)
        raise typer.Exit(1)


@app.command(rich_help_panel=SEGMENTERS)
def predict(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PHOTOS", help="Images, videos, or folders of them.")
    ],
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
    from madan.inference import photos, predict
    from madan.pipeline.jobs import inputs

    found = photos.find(paths, "predict")
    if model.endswith(".safetensors") and not Path("params.yaml").exists():
        weights, sight = Path(model), predict.as_trained(Path(model))
    else:
        graph = Graph(config.load())
        params, weights = graph.params, _weights(graph, model)
        usual = params.dataset(params.members(params.tables["miou"].target)[0]).size[0]
        precision, threads = params.training.segmenter.precision, params.training.threads
        sight = predict.Sight(usual, params.export, precision, threads)
    if height is not None:
        sight = sight._replace(height=height)
    inputs.start_process(sight.threads, 0)
    unread = predict.predict(predict.segmenter(weights), found, out, sight)
    _tell(found, unread, f"labelIds, overlay, colour and mosaic.png in {out}")


def _weights(graph: Graph, name: str) -> Path:
    """Return the weights that a row of a table, a run or a file names; of seeds the first."""
    from madan.pipeline.jobs import inputs

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
    return inputs.weights(graph, artefacts.parse(rows.get(name, name), graph.params.seeds[0]))


@app.command(rich_help_panel=SEGMENTERS)
def segment(
    run: Annotated[str, _name("One of `segmenters` in params.yaml.")],
    seed: Seed = None,
    processes: Processes = None,
    planned: Planned = None,
) -> None:
    """Train a segmenter on labelled sets: madan segment source-gta5"""
    _make(f"segmenters/{run}", seed, planned, processes=processes)


@app.command(rich_help_panel=SEGMENTERS)
def adapt(
    run: Annotated[str, _name("One of `adaptations` in params.yaml.")],
    seed: Seed = None,
    processes: Processes = None,
    planned: Planned = None,
) -> None:
    """Align a segmenter's features with the target's: madan adapt madan"""
    _make(f"adaptations/{run}", seed, planned, processes=processes)


@app.command(rich_help_panel=SHOWN)
def evaluate(run: Scored, on: Split, seed: Seed = None, planned: Planned = None) -> None:
    """Score a segmenter on a split: madan evaluate segmenters/pooled cityscapes/val"""
    _make(f"scores/{run}/{on}", seed, planned)


@app.command(rich_help_panel=SHOWN)
def table(
    name: Annotated[str, _name("One of `tables` in params.yaml.")],
    partial: Annotated[
        bool, typer.Option(help="Show what there is by now; nothing is written.")
    ] = False,
    planned: Planned = None,
) -> None:
    """Collect the scores of a table of params.yaml: madan table ablation --partial"""
    if partial:
        from madan.pipeline.jobs import table as job

        graph, artefact = Graph(config.load()), artefacts.Table(name)
        checks.check(artefact, graph.params)
        print(job.partial(graph, artefact), end="")
        return
    made = _make(f"tables/{name}", 0, planned)
    if made is not None:
        print(made[["row", "seed", "miou19", "miou16", "miou13"]].to_string(index=False))


@app.command(rich_help_panel=SHOWN)
def figure(
    name: Annotated[str, _name("One of `figures` in params.yaml.")], planned: Planned = None
) -> None:
    """Draw a figure of params.yaml: madan figure translation"""
    _make(f"figures/{name}", 0, planned)


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
    from madan.models import pretrained

    if what not in config.load().released and Path(what).suffix:
        networks, path = config.load(scale="paper").networks, Path(what)
        out, report = path.with_suffix(".safetensors"), path.with_suffix(".json")
        pretrained.bring(what, None, networks, as_released, out, report)
        return
    _make(f"released/{what}", 0, planned, as_released=as_released)


@app.command(rich_help_panel=STANDING)
def check(
    quiet: Annotated[bool, typer.Option(help="Print nothing; the exit code says it.")] = False,
) -> None:
    """Refuse results that are not what params.yaml and the package say now: madan check"""
    from madan.pipeline import staleness

    try:
        staleness.check(Graph(config.load()))
    except Refusal:
        if not quiet:
            raise
        raise typer.Exit(1) from None


@app.command(rich_help_panel=STANDING)
def vouch(
    paths: Annotated[list[Path], typer.Argument(help="Folders with results, or their files.")],
    code: Annotated[
        bool, typer.Option(help="You know that other code made no difference.")
    ] = False,
) -> None:
    """Check results byte by byte; accept a change of code that alters none: madan vouch results"""
    from madan.pipeline import acceptance

    graph = Graph(config.load())
    found = acceptance.below(graph, paths)
    accepted = acceptance.accept(graph, found, code)
    print("\n".join(f"vouched: {graph.certificate(artefact)}" for artefact in accepted))


@app.command(rich_help_panel=STANDING)
def plan(
    tables: Annotated[list[str] | None, typer.Argument(help="Else miou alone.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs, or GPUs, that work at a time.")] = CORES,
    seconds: Annotated[float, typer.Option(help="How long each kind of job is tried.")] = 4,
) -> None:
    """Say what tables will take in time, memory and disk: madan plan ablation --jobs 4

    The first time every kind of job is tried for some seconds; then what it cost is remembered.
    """
    from madan.pipeline import estimate as ahead

    graph, tables = Graph(config.load()), tables or ["miou"]
    for name in tables:
        checks.check(artefacts.Table(name), graph.params)
    ahead.show(graph, ahead.lines(graph, tables, jobs, seconds), jobs)


@app.command(rich_help_panel=STANDING)
def status(
    table: Annotated[str, typer.Argument(help="A table of params.yaml.")] = "miou",
) -> None:
    """Say what is done, running, waiting or stale, and why: madan status miou"""
    from madan.pipeline import status as standing

    graph = Graph(config.load())
    known("the command line", table, graph.params.tables)
    standing.show(standing.lines(graph, table), graph)


@app.command(rich_help_panel=SHOWN)
def publish(
    out: Annotated[Path, typer.Argument(help="Where they go.")] = Path("docs/miniature"),
) -> None:
    """Copy the miniature's tables and figures where git has them: madan publish docs/miniature"""
    from madan.pipeline import publication

    for path in publication.publish(Graph(config.load()), out):
        print(f"written: {path}")


@drafts.command("data")
def init_data(
    folder: Annotated[Path, typer.Argument(help="It holds images and masks.", metavar="FOLDER")],
) -> None:
    """Draft layouts and domains of a folder of images and masks; params.yaml stays as it is."""
    from madan.data import drafting

    typer.echo(drafting.draft(folder), nl=False)


@exports.command("stylised")
def export_stylised(
    run: Translation,
    source: Source,
    seed: Seed = None,
    planned: Planned = None,
    height: Annotated[
        int | None,
        typer.Option(min=0, help="Height at which G sees images: export.height of params.yaml."),
    ] = None,
) -> None:
    """Stylise a source's raw images as a release: madan export stylised madan gta5"""
    _make(f"releases/{run}/{source}", seed, planned, height=height)


@exports.command("predictions")
def export_predictions(run: Scored, on: Split, seed: Seed = None, planned: Planned = None) -> None:
    """Write label ids and overlays: madan export predictions segmenters/pooled cityscapes/val"""
    _make(f"predictions/{run}/{on}", seed, planned)
