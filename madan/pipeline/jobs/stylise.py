"""Rule stylise: send all prepared images of a source through its generator."""

from madan.methods import stylisation
from madan.pipeline import settings
from madan.pipeline.artefacts import Stylised
from madan.pipeline.edges import Role
from madan.pipeline.jobs import inputs
from madan.pipeline.publishing import Job


def stylise(job: Job[Stylised], translator: Role, source: Role) -> None:
    """Write x'_i = G_i(x_i) of every image of a source."""
    artefact, precision = job.artefact, settings.stylise_precision(job.artefact.run, job.params)
    [[trained]], [[name, shards]] = translator.values(), source.items()
    generator = inputs.generator(job.graph, trained, name, artefact.step, artefact.seed)
    with job.publish() as out:
        images = inputs.image_set(job.graph, name, shards)
        stylisation.stylise(generator, images, out, precision)
