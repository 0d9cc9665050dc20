# Pixel level: generators, and the datasets they make.


rule translate:
    input:
        needed("translators", "{run}"),
    output:
        "results/{scale}/translators/{run}/seed{seed}/digest",
        "results/{scale}/translators/{run}/seed{seed}/weights.safetensors",
        "results/{scale}/translators/{run}/seed{seed}/log.csv",
    log:
        "logs/{scale}/translators/{run}/seed{seed}.log",
    benchmark:
        "logs/{scale}/translators/{run}/seed{seed}.tsv"
    priority: priority("translators", "{run}")
    threads: cpus("translate")
    resources:
        **asks("translate"),
    params:
        planned=planned("translators", "{run}"),
    shell:
        "madan translate {wildcards.run} --seed {wildcards.seed}"
        " --planned {params.planned} > {log} 2>&1"


rule stylise:
    input:
        needed("stylised", "{run}/{source}"),
    output:
        "results/{scale}/stylised/{run}/{source}/seed{seed}/digest",
        "results/{scale}/stylised/{run}/{source}/seed{seed}/0/images.npy",
    log:
        "logs/{scale}/stylised/{run}/{source}/seed{seed}.log",
    benchmark:
        "logs/{scale}/stylised/{run}/{source}/seed{seed}.tsv"
    priority: priority("stylised", "{run}/{source}")
    threads: cpus("stylise")
    resources:
        **asks("stylise"),
    params:
        planned=planned("stylised", "{run}/{source}"),
    shell:
        "madan stylise {wildcards.run} {wildcards.source} --seed {wildcards.seed}"
        " --planned {params.planned} > {log} 2>&1"
