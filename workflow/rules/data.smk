# Rules that draw and verify raw images and prepare the shards for training.
DRAWN = Made("miniature/{domain}")
VERIFIED = Made("verified/{domain}/{split}")
PREPARED = Made("prepared/{domain}/{split}/{shard}")


rule miniature:
    """Draw a domain of the miniature world in its native layout."""
    input:
        rebuild=DRAWN.rebuild,
    output:
        update("data/miniature/{domain}/certificate.json"),
    log:
        "logs/miniature/{domain}.log",
    benchmark:
        "logs/miniature/{domain}.tsv"
    priority: DRAWN.priority
    threads: cpus("miniature")
    resources:
        **asks("miniature"),
    params:
        planned=DRAWN.planned,
    shell:
        "madan miniature {wildcards.domain} --planned {params.planned} > {log} 2>&1"


rule verify:
    """Check every pair of a split and list the usable pairs."""
    input:
        rebuild=VERIFIED.rebuild,
        raw=VERIFIED.raw,
    output:
        update("data/verified/{scale}/{domain}/{split}/certificate.json"),
    log:
        "logs/{scale}/verify/{domain}-{split}.log",
    benchmark:
        "logs/{scale}/verify/{domain}-{split}.tsv"
    priority: VERIFIED.priority
    threads: cpus("verify")
    resources:
        **asks("verify"),
    params:
        planned=VERIFIED.planned,
    # Exit code 1 means that some pairs are left out. The report names them.
    shell:
        "madan verify {wildcards.domain}/{wildcards.split} --jobs {threads}"
        " --planned {params.planned} > {log} 2>&1 || test $? -eq 1"


rule prepare:
    """Turn a shard of a split into arrays at training size."""
    input:
        rebuild=PREPARED.rebuild,
        verified=PREPARED.role("verified"),
    output:
        update(
            "data/prepared/{scale}/{domain}/{split}-{size}/{shard}-of-{shards}/certificate.json"
        ),
    log:
        "logs/{scale}/prepared/{domain}/{split}-{size}-{shard}-of-{shards}.log",
    benchmark:
        "logs/{scale}/prepared/{domain}/{split}-{size}-{shard}-of-{shards}.tsv"
    priority: PREPARED.priority
    threads: cpus("prepare")
    resources:
        **asks("prepare"),
    params:
        planned=PREPARED.planned,
    shell:
        "madan prepare {wildcards.domain}/{wildcards.split}/{wildcards.shard}"
        " --planned {params.planned} > {log} 2>&1"
