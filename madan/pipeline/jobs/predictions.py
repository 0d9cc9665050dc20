"""Rule predictions: write the label images that a segmenter predicts on a split."""

from madan.evaluation import export
from madan.pipeline.artefacts import Predictions
from madan.pipeline.edges import Role
from madan.pipeline.jobs import prediction
from madan.pipeline.publishing import Job


def predictions(job: Job[Predictions], segmenter: Role, images: Role) -> None:
    """Write label ids and overlays of every image of a split."""
    net, shown, protocol = prediction.opened(job, segmenter, images)
    batch, precision = job.params.evaluation.batch, job.params.training.segmenter.precision
    protocol |= job.digests
    with job.publish(("manifest.json",)) as out:
        export.predictions(net, shown, batch, precision, out, protocol)
    print(f"written: {job.folder(job.artefact)}")
