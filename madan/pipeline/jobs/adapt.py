"""Rule adapt: align the features of a segmenter with those of the target."""

from collections.abc import Sequence
from typing import Any

from madan.config.schema import Params
from madan.data.datasets import TrainingSet
from madan.methods import adaptation
from madan.pipeline import settings
from madan.pipeline.artefacts import Adaptation
from madan.pipeline.edges import Role
from madan.pipeline.jobs import inputs, training_run
from madan.pipeline.publishing import Job


def adapt(
    job: Job[Adaptation], images: Role, stylised: Role, start: Role, target: Role,
    processes: int | None = None,
) -> None:  # fmt: skip
    """Align F, from the segmenter in `start` if there is any, with the target."""
    artefact, params = job.artefact, job.params
    run = params.adaptations[artefact.run]
    after = run.method == "adda"
    section = params.alignment(run) if after else params.learning("", run)
    loop = training_run.start(job, processes, 2 * section.batch)
    net = inputs.starting_segmenter(job.graph, artefact.address, start)
    names = params.sets(run)
    [[name, shards]] = target.items()
    made = method(
        params,
        artefact,
        sets=inputs.training_sets(job.graph, names, images, stylised, labelled=not after),
        target=inputs.image_set(job.graph, name, shards),
        net=net,
    )
    precision = "fp32" if after else made.task.settings.precision
    check = made.check if isinstance(made, adaptation.Adda) else None
    training_run.train(job, made, loop, {"F": net}, precision, check=check)


def method(
    params: Params, artefact: Adaptation, *, sets: Sequence[TrainingSet], target: TrainingSet,
    net: Any,
) -> Any:  # fmt: skip
    """Build the method of a run from its sets, its target and its segmenter."""
    run, steps = params.adaptations[artefact.run], settings.steps(artefact, params)
    return adaptation.build(params, run, net, sets, target, steps, artefact.seed)
