# params.yaml says which runs exist; here Snakemake works out what has to be made for them.
include: "workflow/rules/graph.smk"
include: "workflow/rules/records.smk"


wildcard_constraints:
    scale=GRAPH.params.scale,
    kind="segmenters|adaptations|translators|released",
    domain="[^/]+",
    run="[^/]+",
    source="[^/]+",
    split="train|val|test",
    seed=r"\d+",


report: "workflow/report/workflow.rst"


onstart:
    # Its limit of jobs a second has Snakemake look for jobs every second, once more a second for
    # every job that has ended: a third of a core after 75 jobs.
    workflow.scheduler.job_rate_limiter = None


rule all:
    input:
        "results/miou.csv",
        "results/metrics.json",


rule tables:
    # All tables of params.yaml: the paper's, and miou.csv.
    input:
        [GRAPH.certificate(Artefact("tables", name)) for name in GRAPH.params.tables],


rule kept:
    # Tables and figures that were made by name, as params.yaml has them now.
    input:
        [GRAPH.certificate(artefact) for artefact in guard.kept(GRAPH)],


rule figures:
    # All of params.yaml's.
    input:
        [GRAPH.certificate(Artefact("figures", name)) for name in GRAPH.params.figures],


include: "workflow/rules/data.smk"
include: "workflow/rules/pixel.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/export.smk"
