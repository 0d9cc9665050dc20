# What people read: scores, tables, figures, and the report of what is finished (make report).


CATEGORIES = {
    "heatmap": "Tables",
    "translation": "Translation",
    "training": "Training",
    "discriminators": "Training",
    "shares": "Data",
}


# Seconds each, and after all else: not worth a place in a cluster's queue.
localrules:
    miou,
    table,
    figure,


rule evaluate:
    input:
        needed("scores", "{kind}/{run}/{domain}-{split}"),
    output:
        "results/{scale}/scores/{kind}/{run}/{domain}-{split}/seed{seed}/digest",
        "results/{scale}/scores/{kind}/{run}/{domain}-{split}/seed{seed}/score.json",
    log:
        "logs/{scale}/scores/{kind}/{run}/{domain}-{split}/seed{seed}.log",
    benchmark:
        "logs/{scale}/scores/{kind}/{run}/{domain}-{split}/seed{seed}.tsv"
    priority: priority("scores", "{kind}/{run}/{domain}-{split}")
    threads: cpus("evaluate")
    resources:
        **asks("evaluate"),
    params:
        planned=planned("scores", "{kind}/{run}/{domain}-{split}"),
    shell:
        "madan evaluate {wildcards.kind}/{wildcards.run} {wildcards.domain}-{wildcards.split}"
        " --seed {wildcards.seed} --planned {params.planned} > {log} 2>&1"


rule miou:
    input:
        needed_by_table("miou"),
    output:
        report(
            "results/miou.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"name": "miou"},
        ),
        "results/metrics.json",
        "results/miou.digest",
    log:
        "logs/tables/miou.log",
    benchmark:
        "logs/tables/miou.tsv"
    params:
        planned=planned("tables", "miou"),
    shell:
        "madan table miou --planned {params.planned} > {log} 2>&1"


rule table:
    input:
        needed_by_table("{run}"),
    output:
        report(
            "results/tables/{run}.csv",
            caption="../report/table.rst",
            category="Tables",
            labels={"name": "{run}"},
        ),
        "results/tables/{run}.md",
        "results/tables/{run}.tex",
        "results/tables/differences/{run}.csv",
        "results/tables/{run}.digest",
    log:
        "logs/tables/{run}.log",
    benchmark:
        "logs/tables/{run}.tsv"
    params:
        planned=planned("tables", "{run}"),
    shell:
        "madan table {wildcards.run} --planned {params.planned} > {log} 2>&1"


rule figure:
    input:
        needed("figures", "{run}"),
    output:
        "results/{scale}/figures/{run}/digest",
        report(
            "results/{scale}/figures/{run}/figure.png",
            caption="../report/figure.rst",
            category=lambda wildcards: CATEGORIES.get(
                shows(wildcards), "Segmentation"
            ),
            labels={"name": "{run}"},
        ),
        "results/{scale}/figures/{run}/figure.pdf",
    log:
        "logs/{scale}/figures/{run}.log",
    benchmark:
        "logs/{scale}/figures/{run}.tsv"
    params:
        planned=planned("figures", "{run}"),
        shows=shows,
    shell:
        "madan figure {wildcards.run} --planned {params.planned} > {log} 2>&1"


rule finished:
    # Tables and figures of runs that are finished; --report shows them.
    input:
        [GRAPH.certificate(artefact) for artefact in guard.ready(GRAPH)],
