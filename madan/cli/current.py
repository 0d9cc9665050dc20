"""Commands that compare results with params.yaml: check, vouch, plan, status."""

from pathlib import Path
from typing import Annotated

import typer

from madan import config
from madan.cli.app import (
    CORES,
    STANDING,
    app,
)
from madan.errors import Refusal, known
from madan.pipeline import artefacts, checks
from madan.pipeline.graph import Graph


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
