"""Rule verify: look at every pair of a split, report what is wrong, list what is usable."""

import shutil
from pathlib import Path

from madan.config import runs
from madan.config.loading import digest
from madan.data import layouts
from madan.data import verify as verification
from madan.files import real_place, write_whole
from madan.pipeline import raw as raw_files
from madan.pipeline.artefacts import Verified
from madan.pipeline.edges import Role
from madan.pipeline.publishing import Job


def verify(job: Job[Verified], raw: Role, jobs: int = 1, quick: bool = False) -> int:
    """Print and write the report of a split and certify it if it is usable; return its status.

    `quick` reads headers alone and certifies nothing.
    """
    params, where = job.params, job.artefact.name
    dataset = params.dataset(job.artefact.domain)
    name = Path("verify", params.scale, where)
    journal = None if quick else Path("state", f"{name}.jsonl")
    bare = job.artefact.domain not in runs.learnt_from(params)
    key = digest([job.graph.code(job.artefact), job.graph.settings(job.artefact), bare])
    report = verification.verify(
        where, dataset, job.artefact.split, jobs=jobs, quick=quick, journal=journal, key=key,
        images_alone=bare,
    )  # fmt: skip
    verification.show(report)
    if journal is None:
        return report.status
    write_whole(Path("results", f"{name}.json"), verification.as_json(report))
    if report.status == verification.UNUSABLE:
        shutil.rmtree(real_place(job.folder(job.artefact)), ignore_errors=True)
    else:
        if not raw:
            _remember(job, report)
        with job.publish() as out:
            verification.write(report, out / "items.json")
        if not raw:
            raw_files.keep(f"{params.scale}/{where}")
    journal.unlink()
    return report.status


def _remember(job: Job[Verified], report: verification.Report) -> None:
    """Keep the digests of the raw files that were just read, so that they are not read again."""
    dataset, split = job.params.dataset(job.artefact.domain), job.artefact.split
    known: dict[Path, str] = {}
    for name, digests in report.pairs.items():
        item = layouts.item(dataset, split, name)
        known |= {
            path: own for path, own in zip((item.image, item.label), digests, strict=True) if own
        }
    raw_files.content(dataset, f"{job.params.scale}/{job.artefact.name}", known)
