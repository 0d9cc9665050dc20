# params.yaml defines the runs. Snakemake finds the jobs that they need.
include: "workflow/rules/graph.smk"
include: "workflow/rules/snakemake.smk"


# Names from params.yaml, and a step of a translator. Other targets match no rule.
NAME = "[a-z0-9][a-z0-9-]*"


wildcard_constraints:
    scale=GRAPH.params.scale,
    kind="segmenters|adaptations|translators|released",
    split="train|val|test",
    seed=r"\d+",
    shard=r"\d+",
    shards=r"\d+",
    size=r"\d+x\d+",
    domain=NAME,
    source=NAME,
    run=NAME,
    translator=NAME + r"(@\d+)?",
    imported=NAME,
    segmenter=NAME,
    adaptation=NAME,
    table=NAME,
    figure=NAME,


report: "workflow/report/workflow.rst"


onstart:
    be_alone()
    look_for_jobs_only_when_one_has_ended()


onsuccess:
    if are_rules_forced():
        stop_if_out_of_date()


rule all:
    """Make results/miou.csv, the default table."""
    input:
        "results/miou.csv",
        "results/metrics.json",


rule tables:
    """Make all tables of params.yaml: the paper's, and miou.csv."""
    input:
        certificates(map(artefacts.Table, GRAPH.params.tables)),


rule figures:
    """Draw all figures of params.yaml."""
    input:
        certificates(map(artefacts.Figure, GRAPH.params.figures)),


rule made_by_name:
    """Make the tables and figures anew that were once made by name."""
    input:
        certificates(staleness.made_by_name(GRAPH)),


include: "workflow/rules/data.smk"
include: "workflow/rules/pixel.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/export.smk"
