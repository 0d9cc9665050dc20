# What others read: stylised datasets as releases, predictions as images. Made by name alone.


rule release:
    input:
        needed("releases", "{run}/{source}"),
    output:
        "results/{scale}/releases/{run}/{source}/seed{seed}/digest",
        "results/{scale}/releases/{run}/{source}/seed{seed}/manifest.json",
        "results/{scale}/releases/{run}/{source}/seed{seed}/SHA256SUMS",
    log:
        "logs/{scale}/releases/{run}/{source}/seed{seed}.log",
    benchmark:
        "logs/{scale}/releases/{run}/{source}/seed{seed}.tsv"
    threads: cpus("release")
    resources:
        **asks("release"),
    params:
        planned=planned("releases", "{run}/{source}"),
    shell:
        "madan export stylised {wildcards.run} {wildcards.source} --seed {wildcards.seed}"
        " --planned {params.planned} > {log} 2>&1"


rule predictions:
    input:
        needed("predictions", "{kind}/{run}/{domain}-{split}"),
    output:
        "results/{scale}/predictions/{kind}/{run}/{domain}-{split}/seed{seed}/digest",
        "results/{scale}/predictions/{kind}/{run}/{domain}-{split}/seed{seed}/manifest.json",
    log:
        "logs/{scale}/predictions/{kind}/{run}/{domain}-{split}/seed{seed}.log",
    benchmark:
        "logs/{scale}/predictions/{kind}/{run}/{domain}-{split}/seed{seed}.tsv"
    threads: cpus("predictions")
    resources:
        **asks("predictions"),
    params:
        planned=planned("predictions", "{kind}/{run}/{domain}-{split}"),
    shell:
        "madan export predictions {wildcards.kind}/{wildcards.run}"
        " {wildcards.domain}-{wildcards.split} --seed {wildcards.seed}"
        " --planned {params.planned} > {log} 2>&1"
