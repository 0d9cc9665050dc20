# Segmenters: supervised training, and feature-level alignment.


rule released:
    input:
        weights,
    output:
        "results/{scale}/released/{run}/digest",
        "results/{scale}/released/{run}/weights.safetensors",
        "results/{scale}/released/{run}/report.json",
    log:
        "logs/{scale}/released/{run}.log",
    benchmark:
        "logs/{scale}/released/{run}.tsv"
    priority: priority("released", "{run}")
    threads: cpus("released")
    resources:
        **asks("released"),
    params:
        planned=planned("released", "{run}"),
    shell:
        "madan import {wildcards.run} --planned {params.planned} > {log} 2>&1"


rule segment:
    input:
        needed("segmenters", "{run}"),
    output:
        "results/{scale}/segmenters/{run}/seed{seed}/digest",
        "results/{scale}/segmenters/{run}/seed{seed}/weights.safetensors",
        "results/{scale}/segmenters/{run}/seed{seed}/log.csv",
    log:
        "logs/{scale}/segmenters/{run}/seed{seed}.log",
    benchmark:
        "logs/{scale}/segmenters/{run}/seed{seed}.tsv"
    priority: priority("segmenters", "{run}")
    threads: cpus("segment")
    resources:
        **asks("segment"),
    params:
        planned=planned("segmenters", "{run}"),
    shell:
        "madan segment {wildcards.run} --seed {wildcards.seed}"
        " --planned {params.planned} > {log} 2>&1"


rule adapt:
    input:
        needed("adaptations", "{run}"),
    output:
        "results/{scale}/adaptations/{run}/seed{seed}/digest",
        "results/{scale}/adaptations/{run}/seed{seed}/weights.safetensors",
        "results/{scale}/adaptations/{run}/seed{seed}/log.csv",
    log:
        "logs/{scale}/adaptations/{run}/seed{seed}.log",
    benchmark:
        "logs/{scale}/adaptations/{run}/seed{seed}.tsv"
    priority: priority("adaptations", "{run}")
    threads: cpus("adapt")
    resources:
        **asks("adapt"),
    params:
        planned=planned("adaptations", "{run}"),
    shell:
        "madan adapt {wildcards.run} --seed {wildcards.seed}"
        " --planned {params.planned} > {log} 2>&1"
