"""What the jobs share that predict on a split: the segmenter, the images, the protocol."""

from typing import Any

from madan.engine import gpu, training
from madan.models import checkpoints
from madan.pipeline.artefacts import Artefact, Predictions, Prepared, Score
from madan.pipeline.edges import Role
from madan.pipeline.jobs import inputs
from madan.pipeline.publishing import Job


def opened(
    job: Job[Score] | Job[Predictions], segmenter: Role, images: Role
) -> tuple[Any, Any, dict[str, Any]]:
    """Return a run's segmenter, the images of a split, and the protocol of a score.

    The images have labels where they are scored. Refusal if they have none then.
    """
    params, artefact = job.params, job.artefact
    [[trained]], [shards] = segmenter.values(), images.values()
    need = (
        params.resources.evaluate if isinstance(artefact, Score) else params.resources.predictions
    )
    inputs.start_process(params.training.threads, artefact.seed, gpus=need.gpus)
    labelled = isinstance(artefact, Score)
    shown = inputs.image_set(job.graph, artefact.domain, shards, labelled, listed=True)
    sizes = sorted({"x".join(map(str, shown.size(k))) for k in range(len(shown))})
    metadata = checkpoints.story(inputs.weights(job.graph, trained))
    protocol = {
        "scale": params.scale,
        "run": artefact.run,
        "seed": artefact.seed,
        "target": artefact.domain,
        "split": artefact.split,
        "images": len(shown),
        "resolution": " ".join(sizes),
        "checkpoint": metadata.get("checkpoint", "last step"),
        "step": metadata["step"],
        "torch": metadata["torch"],
        "precision": training.resolved(params.training.segmenter.precision),
    }
    if card := gpu.describe():
        protocol["gpu"] = card
    return inputs.segmenter(job.graph, trained), shown, protocol


def members(job: Job[Score], images: Role, shown: Any) -> dict[str, Any]:
    """Return the images of each dataset of the target by its name; `shown` has all of them."""
    [shards] = images.values()
    of: dict[str, list[Artefact]] = {}
    for shard in shards:
        assert isinstance(shard, Prepared)
        of.setdefault(shard.domain, []).append(shard)
    if len(of) == 1:
        return dict.fromkeys(of, shown)
    return {
        name: inputs.image_set(job.graph, name, mine, labelled=True, listed=True)
        for name, mine in of.items()
    }
