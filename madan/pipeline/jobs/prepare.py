"""Rule prepare: turn a shard of a split into arrays at training size."""

from madan.data import datasets
from madan.data import verify as verification
from madan.pipeline.artefacts import Prepared
from madan.pipeline.edges import Role
from madan.pipeline.publishing import Job


def prepare(job: Job[Prepared], verified: Role) -> None:
    """Write images and labels of every n-th usable pair, from the shard's number on."""
    shard = job.artefact
    [[split]] = verified.values()
    usable = verification.read(job.folder(split) / "items.json")
    dataset = job.params.dataset(shard.domain)
    make = datasets.prepare if usable.labelled else datasets.prepare_images
    with job.publish() as out:
        make(dataset, shard.split, shard.shard, usable, out)
