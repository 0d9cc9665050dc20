# Exports for other programs: stylised datasets and predictions. They are made only by name.
RELEASE = Made("releases/{translator}/{source}")
PREDICTIONS = Made("predictions/{kind}/{run}/{domain}/{split}")


rule release:
    """Write a source's raw images in the style of the target, in the source's layout."""
    input:
        rebuild=RELEASE.rebuild,
        translator=RELEASE.role("translator"),
        source=RELEASE.role("source"),
    output:
        update(
            "results/{scale}/releases/{translator}/{source}/seed{seed}/certificate.json"
        ),
    log:
        "logs/{scale}/releases/{translator}/{source}/seed{seed}.log",
    benchmark:
        "logs/{scale}/releases/{translator}/{source}/seed{seed}.tsv"
    threads: cpus("release")
    resources:
        **asks("release"),
    params:
        planned=RELEASE.planned,
    shell:
        "madan export stylised {wildcards.translator} {wildcards.source}"
        " --seed {wildcards.seed} --planned {params.planned} > {log} 2>&1"


rule predictions:
    """Write the label images that a segmenter predicts on a split."""
    input:
        rebuild=PREDICTIONS.rebuild,
        segmenter=PREDICTIONS.role("segmenter"),
        images=PREDICTIONS.role("images"),
    output:
        update(
            "results/{scale}/predictions/{kind}/{run}/{domain}/{split}/seed{seed}/certificate.json"
        ),
    log:
        "logs/{scale}/predictions/{kind}/{run}/{domain}/{split}/seed{seed}.log",
    benchmark:
        "logs/{scale}/predictions/{kind}/{run}/{domain}/{split}/seed{seed}.tsv"
    threads: cpus("predictions")
    resources:
        **asks("predictions"),
    params:
        planned=PREDICTIONS.planned,
    shell:
        "madan export predictions {wildcards.kind}/{wildcards.run}"
        " {wildcards.domain}/{wildcards.split} --seed {wildcards.seed}"
        " --planned {params.planned} > {log} 2>&1"
