# Pixel-level adaptation: generators and stylised datasets.
TRANSLATOR = Made("translators/{translator}")
STYLISED = Made("stylised/{translator}/{source}")


rule translate:
    """Train generators from the sources to the target."""
    input:
        rebuild=TRANSLATOR.rebuild,
        sources=TRANSLATOR.role("sources"),
        target=TRANSLATOR.role("target"),
        start=TRANSLATOR.role("start"),
        judges=TRANSLATOR.role("judges"),
        task=TRANSLATOR.role("task"),
    output:
        update("results/{scale}/translators/{translator}/seed{seed}/certificate.json"),
        update(
            "results/{scale}/translators/{translator}/seed{seed}/weights.safetensors"
        ),
    log:
        "logs/{scale}/translators/{translator}/seed{seed}.log",
    benchmark:
        "logs/{scale}/translators/{translator}/seed{seed}.tsv"
    priority: TRANSLATOR.priority
    threads: cpus("translate")
    resources:
        **asks("translate", TRANSLATOR),
    params:
        planned=TRANSLATOR.planned,
    shell:
        "madan translate {wildcards.translator} --seed {wildcards.seed}"
        " --planned {params.planned} > {log} 2>&1"


rule stylise:
    """Stylise all prepared images of a source with its generator."""
    input:
        rebuild=STYLISED.rebuild,
        translator=STYLISED.role("translator"),
        source=STYLISED.role("source"),
    output:
        update(
            "results/{scale}/stylised/{translator}/{source}/seed{seed}/certificate.json"
        ),
    log:
        "logs/{scale}/stylised/{translator}/{source}/seed{seed}.log",
    benchmark:
        "logs/{scale}/stylised/{translator}/{source}/seed{seed}.tsv"
    priority: STYLISED.priority
    threads: cpus("stylise")
    resources:
        **asks("stylise"),
    params:
        planned=STYLISED.planned,
    shell:
        "madan stylise {wildcards.translator} {wildcards.source} --seed {wildcards.seed}"
        " --planned {params.planned} > {log} 2>&1"
