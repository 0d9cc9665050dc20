"""Rule import_weights: turn weights that others published into safetensors."""

from madan.errors import Refusal
from madan.models import pretrained
from madan.pipeline.artefacts import Imported
from madan.pipeline.publishing import Job


def import_weights(job: Job[Imported], as_released: bool = False) -> None:
    """Convert a file of params.yaml's `released`, accounting for every key."""
    name = job.artefact.run
    entry = job.params.released[name]
    if as_released and not entry.as_released:
        raise Refusal(
            f"--as-released, but released.{name} of params.yaml, by which it is certified, says "
            "otherwise: write `as_released: true` there, or an entry of its own."
        )
    with job.publish() as out:
        pretrained.bring(
            entry.file,
            entry.network,
            job.params.networks,
            entry.as_released,
            out / "weights.safetensors",
            out / "report.json",
            own=True,
        )
