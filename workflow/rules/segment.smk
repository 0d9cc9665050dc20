# Segmenters: imported weights, supervised training, and feature-level alignment.
IMPORTED = Made("released/{imported}")
SEGMENTER = Made("segmenters/{segmenter}")
ADAPTATION = Made("adaptations/{adaptation}")


rule import_weights:
    """Turn weights that others published into safetensors."""
    input:
        rebuild=IMPORTED.rebuild,
        absent=IMPORTED.absent,
    output:
        update("results/{scale}/released/{imported}/certificate.json"),
    log:
        "logs/{scale}/released/{imported}.log",
    benchmark:
        "logs/{scale}/released/{imported}.tsv"
    priority: IMPORTED.priority
    threads: cpus("import_weights")
    resources:
        **asks("import_weights"),
    params:
        planned=IMPORTED.planned,
    shell:
        "madan import {wildcards.imported} --planned {params.planned} > {log} 2>&1"


rule segment:
    """Train a segmenter on labelled sets."""
    input:
        rebuild=SEGMENTER.rebuild,
        images=SEGMENTER.role("images"),
        stylised=SEGMENTER.role("stylised"),
        start=SEGMENTER.role("start"),
    output:
        update("results/{scale}/segmenters/{segmenter}/seed{seed}/certificate.json"),
    log:
        "logs/{scale}/segmenters/{segmenter}/seed{seed}.log",
    benchmark:
        "logs/{scale}/segmenters/{segmenter}/seed{seed}.tsv"
    priority: SEGMENTER.priority
    threads: cpus("segment")
    resources:
        **asks("segment", SEGMENTER),
    params:
        planned=SEGMENTER.planned,
    shell:
        "madan segment {wildcards.segmenter} --seed {wildcards.seed}"
        " --planned {params.planned} > {log} 2>&1"


rule adapt:
    """Align the features of a segmenter with those of the target."""
    input:
        rebuild=ADAPTATION.rebuild,
        images=ADAPTATION.role("images"),
        stylised=ADAPTATION.role("stylised"),
        start=ADAPTATION.role("start"),
        target=ADAPTATION.role("target"),
    output:
        update("results/{scale}/adaptations/{adaptation}/seed{seed}/certificate.json"),
        update(
            "results/{scale}/adaptations/{adaptation}/seed{seed}/weights.safetensors"
        ),
    log:
        "logs/{scale}/adaptations/{adaptation}/seed{seed}.log",
    benchmark:
        "logs/{scale}/adaptations/{adaptation}/seed{seed}.tsv"
    priority: ADAPTATION.priority
    threads: cpus("adapt")
    resources:
        **asks("adapt", ADAPTATION),
    params:
        planned=ADAPTATION.planned,
    shell:
        "madan adapt {wildcards.adaptation} --seed {wildcards.seed}"
        " --planned {params.planned} > {log} 2>&1"
