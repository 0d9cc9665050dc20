"""Commands for results: scores, tables, figures, exports, publication."""

from pathlib import Path
from typing import Annotated

import typer

from madan import config
from madan.cli.app import (
    SHOWN,
    Planned,
    Scored,
    Seed,
    Source,
    Split,
    Translation,
    app,
    exports,
    make,
    name_of,
)
from madan.pipeline import artefacts, checks
from madan.pipeline.graph import Graph


@app.command(rich_help_panel=SHOWN)
def evaluate(run: Scored, on: Split, seed: Seed = None, planned: Planned = None) -> None:
    """Score a segmenter on a split: madan evaluate segmenters/pooled cityscapes/val"""
    make(f"scores/{run}/{on}", seed, planned)


@app.command(rich_help_panel=SHOWN)
def table(
    name: Annotated[str, name_of("One of `tables` in params.yaml.")],
    partial: Annotated[
        bool, typer.Option(help="Print the table with the scores that exist; write nothing.")
    ] = False,
    planned: Planned = None,
) -> None:
    """Collect the scores of a table: madan table ablation --partial"""
    if partial:
        from madan.pipeline.jobs import table as job

        graph, artefact = Graph(config.load()), artefacts.Table(name)
        checks.check(artefact, graph.params)
        print(job.partial(graph, artefact), end="")
        return
    made = make(f"tables/{name}", 0, planned)
    if made is not None:
        print(made[["row", "seed", "miou19", "miou16", "miou13"]].to_string(index=False))


@app.command(rich_help_panel=SHOWN)
def figure(
    name: Annotated[str, name_of("One of `figures` in params.yaml.")], planned: Planned = None
) -> None:
    """Draw a figure: madan figure translation"""
    make(f"figures/{name}", 0, planned)


@app.command(rich_help_panel=SHOWN)
def publish(
    out: Annotated[Path, typer.Argument(help="Output folder.")] = Path("docs/miniature"),
) -> None:
    """Copy tables and figures of the miniature into the repository: madan publish docs/miniature"""
    from madan.pipeline import publication

    for path in publication.publish(Graph(config.load()), out):
        print(f"written: {path}")


@exports.command("stylised")
def export_stylised(
    run: Translation,
    source: Source,
    seed: Seed = None,
    planned: Planned = None,
    height: Annotated[
        int | None,
        typer.Option(
            min=0, help="Height in pixels at which G sees images. Default: export.height."
        ),
    ] = None,
) -> None:
    """Export a stylised source in its original layout: madan export stylised madan gta5"""
    make(f"releases/{run}/{source}", seed, planned, height=height)


@exports.command("predictions")
def export_predictions(run: Scored, on: Split, seed: Seed = None, planned: Planned = None) -> None:
    """Export label ids and overlays: madan export predictions segmenters/pooled cityscapes/val"""
    make(f"predictions/{run}/{on}", seed, planned)
