# What people read: scores and tables.


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
        "results/miou.csv",
        "results/metrics.json",
        "results/miou.digest",
    log:
        "logs/tables/miou.log",
    params:
        planned=planned("tables", "miou"),
    shell:
        "madan table miou --planned {params.planned} > {log} 2>&1"


rule table:
    input:
        needed_by_table("{run}"),
    output:
        "results/tables/{run}.csv",
        "results/tables/{run}.md",
        "results/tables/{run}.tex",
        "results/tables/differences/{run}.csv",
        "results/tables/{run}.digest",
    log:
        "logs/tables/{run}.log",
    params:
        planned=planned("tables", "{run}"),
    shell:
        "madan table {wildcards.run} --planned {params.planned} > {log} 2>&1"


rule figure:
    input:
        needed("figures", "{run}"),
    output:
        "results/{scale}/figures/{run}/digest",
        "results/{scale}/figures/{run}/figure.png",
        "results/{scale}/figures/{run}/figure.pdf",
    log:
        "logs/{scale}/figures/{run}.log",
    params:
        planned=planned("figures", "{run}"),
    shell:
        "madan figure {wildcards.run} --planned {params.planned} > {log} 2>&1"
