"""Rule translate: train generators from the sources to the target."""

from collections.abc import Mapping
from typing import Any

from madan.config.schema import Params
from madan.data.datasets import TrainingSet
from madan.methods import segmentation
from madan.methods.translation import Translator as Method
from madan.pipeline import settings
from madan.pipeline.artefacts import Translator
from madan.pipeline.edges import Role
from madan.pipeline.jobs import inputs, training_run
from madan.pipeline.publishing import Job


def translate(
    job: Job[Translator], sources: Role, target: Role, start: Role, judges: Role, task: Role,
    processes: int | None = None,
) -> None:  # fmt: skip
    """Train the generators of a run, from `start` if there is any; judges are F_i, task is F_A."""
    graph, artefact = job.graph, job.artefact
    run = job.params.translators[artefact.run]
    training = job.params.translating(run)
    crops = 1 + (len(training.cag.crops) if run.cag else 0)
    images = training.batch * (1 + len(run.sources)) * crops
    loop = training_run.start(job, processes, images)
    [[name, shards]] = target.items()
    made = method(
        job.params,
        artefact,
        sources={
            source: inputs.image_set(graph, source, shards, labelled=run.task is not None)
            for source, shards in sources.items()
        },
        target=inputs.image_set(graph, name, shards),
        judges={source: inputs.segmenter(graph, judge) for source, [judge] in judges.items()},
        task=inputs.starting_segmenter(graph, artefact.address, task) if run.task else None,
    )
    made.start(
        (job.params.translators[name], inputs.weights(graph, before))
        for name, [before] in start.items()
    )
    training_run.train(job, made, loop, made.networks(), kept=made.generators)


def method(
    params: Params, artefact: Translator, *, sources: Mapping[str, TrainingSet],
    target: TrainingSet, judges: Mapping[str, Any], task: Any,
) -> Method:  # fmt: skip
    """Build the method of a run from its image sets, judges F_i and task segmenter F_A."""
    weights = None
    if task is not None:
        weights = segmentation.class_weights(list(sources.values()), params.training.segmenter)
    return Method(
        params.translators[artefact.run],
        params.translating(params.translators[artefact.run]),
        params.networks_of(artefact.address),
        sources,
        target,
        steps=settings.steps(artefact, params),
        seed=artefact.seed,
        judges=judges,
        task=task,
        class_weights=weights,
    )
