"""Commands for data: draw, verify, prepare, import, draft."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from madan import config, published, shortages
from madan.cli.app import (
    CORES,
    DATA,
    Planned,
    app,
    drafts,
    make,
    name_of,
)
from madan.errors import Refusal
from madan.inert import inert
from madan.pipeline import artefacts
from madan.pipeline.graph import Graph


@app.command(rich_help_panel=DATA)
def miniature(
    domain: Annotated[str, name_of("One of `domains` in params.yaml.")], planned: Planned = None
) -> None:
    """Draw a domain of the miniature world in its native layout: madan miniature gta5"""
    make(f"miniature/{domain}", 0, planned)


@app.command(rich_help_panel=DATA)
def verify(
    domains: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="DOMAIN[/SPLIT]",
            help="Default: all datasets of params.yaml; drawn ones if they exist.",
        ),
    ] = None,
    quick: Annotated[bool, typer.Option(help="Only read headers; write no certificate.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Number of pairs to read in parallel.")] = CORES,
    planned: Planned = None,
) -> None:
    """Check datasets and explain how to fix them: madan verify gta5 cityscapes/val

    The exit code is 0 if all pairs are good, 1 if some pairs are left out, 2 if a split cannot be
    used.
    """
    found = [0]
    with _said(found):
        graph = Graph(config.load())
        for name in domains or _datasets(graph):
            domain, _, only = name.partition("/")
            with _said(found):
                for split in [only] if only else _splits(graph, domain):
                    address = f"verified/{domain}/{split}"
                    status = make(address, 0, planned, jobs=jobs, quick=quick)
                    found.append(status or 0)
    raise typer.Exit(max(found))


@contextlib.contextmanager
def _said(found: list[int]) -> Iterator[None]:
    """Say what stands in the way of a dataset, so that the next one has its turn."""
    from madan.data import verify as door

    try:
        yield
    except (Refusal, OSError) as error:
        text = shortages.sentence(error) or str(error)
        typer.echo(f"madan: {inert(text)}", err=True)
        found.append(door.UNUSABLE)


def _datasets(graph: Graph) -> list[str]:
    """All datasets; of the drawn ones those that are drawn, if any are."""
    found = [name for name, domain in graph.params.domains.items() if not domain.union]
    there = [
        name
        for name in found
        if not graph.params.drawn(name) or graph.certificate(artefacts.Drawn(name)).exists()
    ]
    return there or found


def _splits(graph: Graph, domain: str) -> list[str]:
    """The splits of a dataset that lie there; of a drawn one those that are drawn."""
    from madan.data import layouts

    dataset = graph.params.dataset(domain)
    if drawn := graph.params.drawn(domain):
        return list(drawn)
    return layouts.splits(dataset) or ["train"]


@app.command(rich_help_panel=DATA)
def prepare(
    shard: Annotated[str, name_of("A shard; the first one is 0.", "DOMAIN/SPLIT/SHARD")],
    planned: Planned = None,
) -> None:
    """Convert a shard of a dataset to arrays at training size: madan prepare gta5/train/0"""
    make(f"prepared/{shard}", 0, planned)


@app.command("import", rich_help_panel=DATA)
def import_(
    what: Annotated[str, typer.Argument(metavar="NAME|FILE")],
    as_released: Annotated[
        bool,
        typer.Option(
            help="For a FILE: drop score_pool3 and score_pool4, as the original loader did."
        ),
    ] = False,
    planned: Planned = None,
) -> None:
    """Convert published weights to safetensors and report every key: madan import judge.pth

    NAME is one of `released` in params.yaml. For a FILE with full-size weights, the result is
    written beside it.
    """
    from madan.models import pretrained

    if what not in config.load().released and Path(what).suffix:
        networks, path = config.load(scale=published.SCALE).networks, Path(what)
        out, report = path.with_suffix(".safetensors"), path.with_suffix(".json")
        pretrained.bring(what, None, networks, as_released, out, report)
        return
    make(f"released/{what}", 0, planned, as_released=as_released)


@drafts.command("data")
def init_data(
    folder: Annotated[
        Path, typer.Argument(help="A folder with images and masks.", metavar="FOLDER")
    ],
) -> None:
    """Print a draft of `layouts` and `domains` for a folder: madan init data FOLDER

    The draft comes from the images and masks in the folder. params.yaml does not change.
    """
    from madan.data import drafting

    typer.echo(drafting.draft(folder), nl=False)
