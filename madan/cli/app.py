"""What the commands share: the application, its groups, options, and the call of a job."""

import importlib
import os
from typing import Annotated, Any

import typer

from madan.pipeline.graph import JOBS
from madan.pipeline.publishing import open_job

app = typer.Typer(
    help="MADAN: multi-source domain adaptation for semantic segmentation. Each command "
    "makes one result of params.yaml. Snakemake calls the commands in the right order: "
    "snakemake --cores 8 results/miou.csv",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
exports = typer.Typer(
    help="Export stylised datasets and predictions: madan export stylised madan gta5",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
drafts = typer.Typer(
    help="Draft entries of params.yaml: madan init data FOLDER", no_args_is_help=True
)
# The groups of commands, in the order of `madan --help`.
DATA, PIXEL, SEGMENTERS = "Data", "Pixel level: G", "Segmenters: F"
SHOWN, STATE = "Scores, figures, exports", "State of results"
app.add_typer(exports, name="export", rich_help_panel=SHOWN)
app.add_typer(drafts, name="init", rich_help_panel=DATA)

CORES = len(os.sched_getaffinity(0))
Seed = Annotated[
    int | None, typer.Option(help="One of the seeds in params.yaml. Default: the first one.")
]
Processes = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Number of processes that train together, each on its own GPU if there are GPUs. "
        "Default: `resources` in params.yaml.",
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


def name_of(what: str, form: str | None = None) -> typer.models.ArgumentInfo:
    """Return an argument that names something in params.yaml."""
    found: typer.models.ArgumentInfo = typer.Argument(help=what, metavar=form)
    return found


Translation = Annotated[str, name_of("One of `translators` in params.yaml, or RUN@STEP.", "RUN")]
Source = Annotated[str, name_of("One of the sources of the translator.", "SOURCE")]
Scored = Annotated[
    str, name_of("A run with a segmenter, for example segmenters/pooled.", "KIND/RUN")
]
Split = Annotated[str, name_of("A domain and a split.", "DOMAIN/SPLIT")]


def make(address: str, seed: int | None, planned: str | None, **options: Any) -> Any:
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
