"""Rule figure: draw a figure of params.yaml."""

from madan.pipeline.artefacts import Figure
from madan.pipeline.edges import Role
from madan.pipeline.jobs import pictures
from madan.pipeline.publishing import Job
from madan.report import plots


def figure(
    job: Job[Figure], scores: Role, runs: Role, segmenters: Role, stylised: Role, sources: Role,
    target: Role,
) -> None:  # fmt: skip
    """Draw a figure as PNG and PDF."""
    with job.publish(("figure.png", "figure.pdf")) as out:
        drawn = pictures.draw(job, scores, runs, segmenters, stylised, sources, target)
        plots.save(drawn, out / "figure.png")
