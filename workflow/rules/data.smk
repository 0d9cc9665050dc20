# Raw images in native layouts, and the shards that training reads.


rule miniature:
    output:
        "data/miniature/{domain}/digest",
    log:
        "logs/miniature/{domain}.log",
    benchmark:
        "logs/miniature/{domain}.tsv"
    priority: priority("miniature", "{domain}")
    threads: cpus("miniature")
    resources:
        **asks("miniature"),
    params:
        planned=planned("miniature", "{domain}"),
    shell:
        "madan miniature {wildcards.domain} --planned {params.planned} > {log} 2>&1"


# What is usable without some pairs ends with 1; what was left out is in the report.
rule verify:
    input:
        raw,
    output:
        "data/verified/{scale}/{domain}/{split}/digest",
        "data/verified/{scale}/{domain}/{split}/items.json",
    log:
        "logs/{scale}/verify/{domain}-{split}.log",
    benchmark:
        "logs/{scale}/verify/{domain}-{split}.tsv"
    priority: priority("verified", "{domain}/{split}")
    threads: cpus("verify")
    resources:
        **asks("verify"),
    params:
        planned=planned("verified", "{domain}/{split}"),
    shell:
        "madan verify {wildcards.domain}/{wildcards.split} --jobs {threads}"
        " --planned {params.planned} > {log} 2>&1 || test $? -eq 1"


rule prepare:
    input:
        needed("prepared", "{domain}/{split}/{shard}"),
    output:
        "data/prepared/{scale}/{domain}/{split}-{size}/{shard}-of-{shards}/digest",
        "data/prepared/{scale}/{domain}/{split}-{size}/{shard}-of-{shards}/images.npy",
        "data/prepared/{scale}/{domain}/{split}-{size}/{shard}-of-{shards}/labels.npy",
    log:
        "logs/{scale}/prepared/{domain}/{split}-{size}-{shard}-of-{shards}.log",
    benchmark:
        "logs/{scale}/prepared/{domain}/{split}-{size}-{shard}-of-{shards}.tsv"
    priority: priority("prepared", "{domain}/{split}/{shard}")
    threads: cpus("prepare")
    resources:
        **asks("prepare"),
    params:
        planned=planned("prepared", "{domain}/{split}/{shard}"),
    shell:
        "madan prepare {wildcards.domain}/{wildcards.split}/{wildcards.shard}"
        " --planned {params.planned} > {log} 2>&1"
