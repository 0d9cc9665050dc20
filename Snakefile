# params.yaml says which runs exist; here Snakemake works out what has to be made for them.
from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile
from snakemake.persistence.file import FilePersistence

from madan.artefacts import Artefact, Graph
from madan.config import Refusal, load

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


def node(kind, name, wildcards):
    artefact = Artefact(kind, name.format(**wildcards), int(wildcards.get("seed", 0)))
    GRAPH.check(artefact)
    return artefact


def needed(kind, name):
    return lambda wildcards: [
        GRAPH.certificate(other) for other in GRAPH.inputs(node(kind, name, wildcards))
    ]


def planned(kind, name):
    return lambda wildcards: GRAPH.planned(node(kind, name, wildcards))


wildcard_constraints:
    scale=GRAPH.params.scale,
    kind="segmenters|adaptations",
    domain="[^/]+",
    run="[^/]+",
    source="[^/]+",
    split="train|val|test",
    seed=r"\d+",


rule all:
    input:
        "results/miou.csv",
        "results/metrics.json",


include: "workflow/rules/data.smk"
include: "workflow/rules/pixel.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/report.smk"
