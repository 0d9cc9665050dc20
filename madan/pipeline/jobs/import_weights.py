"""Rule import_weights: turn weights that others published into safetensors."""

from madan import released
from madan.pipeline.artefacts import Imported
from madan.pipeline.publishing import Job


def import_weights(job: Job[Imported], as_released: bool = False) -> None:
    """Convert a file of params.yaml's `released`, accounting for every key."""
    entry = job.params.released[job.artefact.run]
    with job.publish() as out:
        released.bring(
            entry.file,
            entry.network,
            job.params.networks,
            entry.as_released or as_released,
            out / "weights.safetensors",
            out / "report.json",
        )
