"""Rule release: write a source's raw images in the style of the target, in the source's layout."""

from madan.config import runs
from madan.data import verify as verification
from madan.errors import Refusal
from madan.evaluation import export
from madan.models import checkpoints
from madan.pipeline import settings
from madan.pipeline.artefacts import Release
from madan.pipeline.edges import Role
from madan.pipeline.jobs import inputs
from madan.pipeline.publishing import Job


def release(job: Job[Release], translator: Role, source: Role, height: int | None = None) -> None:
    """Write every usable raw image of a source as G_i makes it, at its own size."""
    params, artefact = job.params, job.artefact
    if height not in (None, params.export.height):
        raise Refusal(
            f"--height is {height}, but a release is certified with export.height of params.yaml, "
            f"{params.export.height}: write `height: {height}` under `export` there."
        )
    [[trained]] = translator.values()
    run = runs.translator(params, "the command line", artefact.translator)
    weights = inputs.weights(job.graph, trained, artefact.step)
    metadata = {
        "run": artefact.translator,
        "translator": run.model_dump(exclude={"training", "networks"}),
        "source": artefact.source,
        "target": run.target,
        "seed": artefact.seed,
        "scale": params.scale,
        "step": checkpoints.story(weights)["step"],
        **job.graph.settings(artefact),
        **job.digests,
    }
    members = [
        export.Member(
            name,
            params.dataset(name),
            verification.read(job.folder(split) / "items.json"),
            bool(params.drawn(name)),
        )
        for name, [split] in source.items()
    ]
    generator = inputs.generator(job.graph, trained, artefact.source, artefact.step, artefact.seed)
    targets = {name: params.dataset(name) for name in params.members(run.target)}
    precision = settings.stylise_precision(artefact.run, params)
    with job.publish(("manifest.json",)) as out:
        export.release(generator, members, targets, out, precision, params.export, metadata)
    print(f"written: {job.folder(job.artefact)}")
