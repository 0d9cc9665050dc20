"""Commands that train or apply networks: translate, stylise, segment, adapt, predict."""

from pathlib import Path
from typing import Annotated, Any

import typer

from madan import config
from madan.cli.app import (
    PIXEL,
    SEGMENTERS,
    Planned,
    Processes,
    Seed,
    Source,
    Translation,
    app,
    make,
    name_of,
)
from madan.errors import Refusal, known
from madan.inert import inert
from madan.pipeline import artefacts, checks, settings
from madan.pipeline.graph import Graph


@app.command(rich_help_panel=PIXEL)
def translate(
    run: Annotated[str, name_of("One of `translators` in params.yaml.")],
    seed: Seed = None,
    processes: Processes = None,
    planned: Planned = None,
) -> None:
    """Train generators from sources to a target: madan translate cyclegan-gta5"""
    make(f"translators/{run}", seed, planned, processes=processes)


@app.command(rich_help_panel=PIXEL)
def stylise(
    run: Translation,
    source: Source,
    seed: Seed = None,
    planned: Planned = None,
    images: Annotated[
        list[Path] | None, typer.Option(help="Your own photos, or folders of photos.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Output folder for --images.")] = Path("stylised"),
    height: Annotated[
        int | None,
        typer.Option(
            min=0, help="Height in pixels at which G sees photos. Default 0: their own height."
        ),
    ] = None,
) -> None:
    """Translate all images of a source by its generator: madan stylise madan gta5

    RUN@STEP is the generator of a saved step: madan stylise madan@100 gta5

    For your own photos: madan stylise madan gta5 --images holiday --out stylised
    """
    if images:
        return _stylise_photos(run, source, seed, images, out, height or 0)
    if height is not None:
        raise Refusal(
            "--height is only for photos (--images); stylised sources have the training size of F."
        )
    make(f"stylised/{run}/{source}", seed, planned)


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
    precision = settings.stylise_precision(artefact.run, params)
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
def segment(
    run: Annotated[str, name_of("One of `segmenters` in params.yaml.")],
    seed: Seed = None,
    processes: Processes = None,
    planned: Planned = None,
) -> None:
    """Train a segmenter on labelled images: madan segment source-gta5"""
    make(f"segmenters/{run}", seed, planned, processes=processes)


@app.command(rich_help_panel=SEGMENTERS)
def adapt(
    run: Annotated[str, name_of("One of `adaptations` in params.yaml.")],
    seed: Seed = None,
    processes: Processes = None,
    planned: Planned = None,
) -> None:
    """Adapt a segmenter to the target: madan adapt madan"""
    make(f"adaptations/{run}", seed, planned, processes=processes)


@app.command(rich_help_panel=SEGMENTERS)
def predict(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PHOTOS", help="Images, videos, or folders of them.")
    ],
    model: Annotated[
        str,
        typer.Option(help="A row of a table, a run such as segmenters/oracle, or a weights file."),
    ],
    out: Annotated[Path, typer.Option(help="Output folder.")] = Path("predictions"),
    height: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Height in pixels at which F sees photos. Default: as trained. 0: their own.",
        ),
    ] = None,
) -> None:
    """Segment your own photos: madan predict holiday/ street.jpg --model madan

    Writes overlays, Cityscapes label ids in the size of each photo, and a mosaic of the first
    photos.
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
