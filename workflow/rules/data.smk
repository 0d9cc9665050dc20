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
