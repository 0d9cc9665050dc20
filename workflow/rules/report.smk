# Scores, tables, figures, and the report of finished runs (make report).
SCORE = Made("scores/{kind}/{run}/{domain}/{split}")
MIOU = Made("tables/miou")
TABLE = Made("tables/{table}")
FIGURE = Made("figures/{figure}")


# These jobs take seconds, so they do not go through the queue of a cluster.
localrules:
    miou,
    table,
    figure,


rule evaluate:
    """Score a segmenter on a split."""
    input:
        rebuild=SCORE.rebuild,
        segmenter=SCORE.role("segmenter"),
        images=SCORE.role("images"),
    output:
        update(
            "results/{scale}/scores/{kind}/{run}/{domain}/{split}/seed{seed}/certificate.json"
        ),
    log:
        "logs/{scale}/scores/{kind}/{run}/{domain}/{split}/seed{seed}.log",
    benchmark:
        "logs/{scale}/scores/{kind}/{run}/{domain}/{split}/seed{seed}.tsv"
    priority: SCORE.priority
    threads: cpus("evaluate")
    resources:
        **asks("evaluate"),
    params:
        planned=SCORE.planned,
    shell:
        "madan evaluate {wildcards.kind}/{wildcards.run} {wildcards.domain}/{wildcards.split}"
        " --seed {wildcards.seed} --planned {params.planned} > {log} 2>&1"


rule miou:
    """Collect the scores of the table miou."""
    input:
        rebuild=MIOU.rebuild,
        scores=MIOU.role("scores"),
    output:
        report(
            update("results/miou.csv"),
            caption="../report/table.rst",
            category="Tables",
            labels={"name": "miou"},
        ),
        update("results/metrics.json"),
        update("results/miou.certificate.json"),
    log:
        "logs/tables/miou.log",
    benchmark:
        "logs/tables/miou.tsv"
    params:
        planned=MIOU.planned,
    shell:
        "madan table miou --planned {params.planned} > {log} 2>&1"


rule table:
    """Collect the scores of another table of params.yaml."""
    input:
        rebuild=TABLE.rebuild,
        scores=TABLE.role("scores"),
    output:
        report(
            update("results/tables/{table}.csv"),
            caption="../report/table.rst",
            category="Tables",
            labels={"name": "{table}"},
        ),
        update("results/tables/{table}.md"),
        update("results/tables/{table}.tex"),
        update("results/tables/differences/{table}.csv"),
        update("results/tables/{table}.certificate.json"),
    log:
        "logs/tables/{table}.log",
    benchmark:
        "logs/tables/{table}.tsv"
    params:
        planned=TABLE.planned,
    shell:
        "madan table {wildcards.table} --planned {params.planned} > {log} 2>&1"


rule figure:
    """Draw a figure of params.yaml."""
    input:
        rebuild=FIGURE.rebuild,
        scores=FIGURE.role("scores"),
        runs=FIGURE.role("runs"),
        segmenters=FIGURE.role("segmenters"),
        stylised=FIGURE.role("stylised"),
        sources=FIGURE.role("sources"),
        target=FIGURE.role("target"),
    output:
        update("results/{scale}/figures/{figure}/certificate.json"),
        report(
            update("results/{scale}/figures/{figure}/figure.png"),
            caption="../report/figure.rst",
            category=category,
            labels={"name": "{figure}"},
        ),
        update("results/{scale}/figures/{figure}/figure.pdf"),
    log:
        "logs/{scale}/figures/{figure}.log",
    benchmark:
        "logs/{scale}/figures/{figure}.tsv"
    params:
        planned=FIGURE.planned,
        shows=shows,
    shell:
        "madan figure {wildcards.figure} --planned {params.planned} > {log} 2>&1"


rule finished:
    """Make the tables and figures of all finished runs; --report shows them."""
    input:
        certificates(staleness.ready(STALENESS)),
