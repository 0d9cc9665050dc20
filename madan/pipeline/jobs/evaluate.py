"""Rule evaluate: score a segmenter on a split."""

from madan.evaluation import evaluate as evaluation
from madan.pipeline.artefacts import Score
from madan.pipeline.edges import Role
from madan.pipeline.jobs import prediction
from madan.pipeline.publishing import Job


def evaluate(job: Job[Score], segmenter: Role, images: Role) -> None:
    """Write the confusion matrix of a run on a split, with its protocol."""
    net, shown, protocol = prediction.opened(job, segmenter, images)
    batch, precision = job.params.evaluation.batch, job.params.training.segmenter.precision
    confusions = {
        name: evaluation.evaluate(net, member, batch, precision)
        for name, member in prediction.members(job, images, shown).items()
    }
    with job.publish() as out:
        evaluation.write(out / "score.json", confusions, protocol)
