"""What the three training jobs share: threads and seed, the loop, the weights that it leaves."""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from madan import checkpoints, parallel, states, training
from madan.files import flush
from madan.pipeline import settings
from madan.pipeline.artefacts import Trained
from madan.pipeline.jobs import inputs
from madan.pipeline.publishing import Job
from madan.schema import Refusal


def start(job: Job[Trained], processes: int | None, images: int) -> training.Run:
    """Fix threads and seed before networks are built, and return the run of a training job.

    `images` is the number of images that a step sees, those of the target included.
    """
    params, artefact = job.params, job.artefact
    usual = settings.processes(artefact, params)
    wanted = usual if processes is None else processes
    inputs.start_process(params.training.threads, artefact.seed, wanted)
    if parallel.size() != usual and parallel.rank() == 0:
        print(
            f"{artefact} is trained by {parallel.size()} processes, which give other bits than "
            f"the {usual} of params.yaml: its certificate says so, and snakemake makes it anew. "
            "To keep it, set gpus of its rule in resources to that number.",
            file=sys.stderr,
        )
    place = Path(params.scale, artefact.kind, artefact.name, f"seed{artefact.seed}")
    return training.Run(
        title=str(artefact),
        seed=artefact.seed,
        steps=settings.steps(artefact, params),
        save_every=params.training.save_every,
        log_every=params.training.log_every,
        state="state" / place,
        key=job.key,
        settings=job.graph.settings(artefact),
        keep=getattr(params.run(artefact.kind, artefact.run), "keep", ()),
        images=images,
        board="logs/tensorboard" / place,
    )


def train(
    job: Job[Trained], method: Any, run: training.Run, modules: Any, precision: str = "fp32",
    check: Callable[[], None] | None = None, kept: Any = None,
) -> None:  # fmt: skip
    """Train, publish weights and log, and remove the states that were saved meanwhile.

    After the steps of `run.keep` the modules `kept` are saved, too. Of generators and in
    adaptation bf16 loses too much, so their precision is fp32.
    """
    metadata = {
        "settings": run.settings,
        "seed": run.seed,
        "step": run.steps,
        "code": job.digests["code"],
        "processes": parallel.size(),
        "precision": training.resolved(precision),
    }
    if parallel.rank():  # Of several processes, the first publishes.
        training.fit(method, run, Path(os.devnull))
        return
    # A process that is asked to leave after the last step finishes instead of losing steps.
    with training.signals(), job.publish() as out:
        training.fit(method, run, out / "log.csv", lambda done: _keep(run, done, kept, metadata))
        if check:
            check()
        checkpoints.save(out / "weights.safetensors", modules, metadata)
        for step in run.keep:
            shutil.copy(_kept(run, step), out / f"weights-step{step}.safetensors")
    flush(job.folder(job.artefact))
    training.forget(run)


def _kept(run: training.Run, step: int) -> Path:
    """Where a run that is not done keeps the weights of a step, beside its states."""
    return Path(run.state, f"{run.key}-step{step}.safetensors")


def _keep(run: training.Run, done: int, modules: Any, metadata: dict[str, Any]) -> None:
    """Save modules after a step that the run keeps, before any state of that step or a later one.

    Refusal if the weights of a step before are gone, since a resumed run cannot make them.
    """
    gone = [step for step in run.keep if step < done and not _kept(run, step).exists()]
    if gone:
        raise Refusal(
            f"{_kept(run, gone[0])} is gone, the weights that {run.title} keeps of step {gone[0]}: "
            f"delete {run.state} to train from the start."
        )
    if done in run.keep:
        fresh = Path(run.state, "weights.new")
        checkpoints.save(fresh, modules, metadata | {"step": done})
        states.flush(fresh)
        fresh.replace(_kept(run, done))
