# The graph behind the rules: the package says what is made from what, and under which settings.
import os
import sys

from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile
from snakemake.persistence.file import FilePersistence

from madan.graph import Artefact, Graph
from madan.config import Refusal, load
from madan.layouts import wanted

if config:
    raise WorkflowError(
        "--config is not read: write it into params.yaml, which alone configures."
    )
try:
    GRAPH = Graph(load())
    if not workflow.remote_exec:
        records = FilePersistence(nolock=True)
        GRAPH.refuse_strangers(lambda path: records.params(IOFile(str(path))))
except Refusal as refusal:
    raise WorkflowError(str(refusal))


# With more --cores than the machine has, jobs would only wait for each other in its caches.
SHARE = max(
    GRAPH.params.training.threads,
    (workflow.resource_settings.cores or 1) // len(os.sched_getaffinity(0)),
)


def node(kind, name, wildcards):
    artefact = Artefact(kind, name.format(**wildcards), int(wildcards.get("seed", 0)))
    GRAPH.check(artefact)
    return artefact


def needed(kind, name):
    return lambda wildcards: [
        GRAPH.certificate(other) for other in GRAPH.inputs(node(kind, name, wildcards))
    ]


def needed_by_table(name):
    def certificates(wildcards):
        table = node("tables", name, wildcards)
        # Snakemake lets alone what is missing between two files that exist.
        workflow.dag.forcefiles.update(GRAPH.gone(table))
        return needed("tables", name)(wildcards)

    return certificates


def raw(wildcards):
    absent = [(name, GRAPH.params.dataset(name)) for name in GRAPH.absent()]
    if absent:
        # Raised as an exception, it would drown in Snakemake's own lines.
        lines = [wanted(name, dataset) for name, dataset in absent]
        sys.exit(
            "madan: these datasets are missing; put them, or links, where params.yaml says:\n  "
            + "\n  ".join(lines)
            + "\n(docs/data.md has more; `scale: miniature` needs no download.)"
        )
    return needed("verified", "{domain}/{split}")(wildcards)


def planned(kind, name):
    return lambda wildcards: GRAPH.planned(node(kind, name, wildcards))


def priority(kind, name):
    return lambda wildcards: GRAPH.priority(node(kind, name, wildcards))
