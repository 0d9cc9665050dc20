"""Commands about the state of results: check-results, accept, estimate, status."""

from pathlib import Path
from typing import Annotated

import typer

from madan import config
from madan.cli.app import CORES, STATE, app
from madan.errors import Refusal, known
from madan.pipeline import artefacts, checks
from madan.pipeline.graph import Graph


@app.command(rich_help_panel=STATE)
def status(
    table: Annotated[str, typer.Argument(help="A table of params.yaml.")] = "miou",
) -> None:
    """Show what is done, running, waiting or out of date, and why: madan status miou"""
    from madan.pipeline.status import lines, show

    graph = Graph(config.load())
    known("the command line", table, graph.params.tables)
    show(lines(graph, table), graph)


@app.command(rich_help_panel=STATE)
def estimate(
    tables: Annotated[
        list[str] | None, typer.Argument(help="Tables of params.yaml. Default: miou.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of parallel jobs, or of GPUs.")] = CORES,
    seconds: Annotated[float, typer.Option(help="Seconds to try each kind of job.")] = 4,
) -> None:
    """Estimate time, memory and disk of tables: madan estimate ablation --jobs 4

    The first call tries every kind of job for some seconds. Later calls reuse these measurements.
    """
    from madan.pipeline.estimate import lines, show

    graph, tables = Graph(config.load()), tables or ["miou"]
    for name in tables:
        checks.check(artefacts.Table(name), graph.params)
    show(graph, lines(graph, tables, jobs, seconds), jobs)


@app.command(rich_help_panel=STATE)
def check_results(
    quiet: Annotated[bool, typer.Option(help="Print nothing, only set the exit code.")] = False,
) -> None:
    """Check that results match params.yaml and the code: madan check-results

    The exit code is 1 if a table or figure is out of date.
    """
    from madan.pipeline import staleness

    try:
        staleness.check(Graph(config.load()))
    except Refusal:
        if not quiet:
            raise
        raise typer.Exit(1) from None


@app.command(rich_help_panel=STATE)
def accept(
    paths: Annotated[list[Path], typer.Argument(help="Folders of results, or their files.")],
    code: Annotated[
        bool, typer.Option(help="Accept other code, if you know that it does not change results.")
    ] = False,
) -> None:
    """Check results byte by byte and accept them: madan accept --code results

    With --code, the certificates then name today's code and keep the code that made the results.
    """
    from madan.pipeline import acceptance

    graph = Graph(config.load())
    chosen = acceptance.below(graph, paths)
    accepted = acceptance.accept(graph, chosen, code)
    print("\n".join(f"accepted: {graph.certificate(artefact)}" for artefact in accepted))


RENAMED = {"vouch": "accept", "check": "check-results", "plan": "estimate"}
ANYTHING = {"ignore_unknown_options": True, "allow_extra_args": True}


@app.command("vouch", hidden=True, context_settings=ANYTHING)
@app.command("check", hidden=True, context_settings=ANYTHING)
@app.command("plan", hidden=True, context_settings=ANYTHING)
def renamed(context: typer.Context) -> None:
    """Name the command of today."""
    old = str(context.info_name)
    raise Refusal(f"madan {old} is now madan {RENAMED[old]}.")
