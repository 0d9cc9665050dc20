"""Rule segment: train a segmenter on labelled sets."""

from collections.abc import Sequence
from typing import Any

from madan.config.schema import Params
from madan.data.datasets import TrainingSet
from madan.methods.segmentation import Supervised
from madan.pipeline import settings
from madan.pipeline.artefacts import Segmenter
from madan.pipeline.edges import Role
from madan.pipeline.jobs import inputs, training_run
from madan.pipeline.publishing import Job


def segment(
    job: Job[Segmenter], images: Role, stylised: Role, start: Role, processes: int | None = None
) -> None:
    """Train F on the sets of a run, from the segmenter in `start` if there is any."""
    artefact, run = job.artefact, job.params.segmenters[job.artefact.run]
    schedule = job.params.learning(run.network, run)
    loop = training_run.start(job, processes, schedule.batch)
    net = inputs.starting_segmenter(job.graph, artefact.address, start)
    sets = inputs.training_sets(job.graph, run.train_on, images, stylised)
    made = method(job.params, artefact, sets=sets, net=net)
    training_run.train(job, made, loop, made.modules, schedule.precision)


def method(
    params: Params, artefact: Segmenter, *, sets: Sequence[TrainingSet], net: Any
) -> Supervised:
    """Build the method of a run from its labelled sets and its segmenter."""
    run = params.segmenters[artefact.run]
    schedule = params.learning(run.network, run)
    return Supervised(net, sets, schedule, settings.steps(artefact, params), artefact.seed)
