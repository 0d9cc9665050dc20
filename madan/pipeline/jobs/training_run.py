"""What the three training jobs share: threads and seed, the loop, the weights that it leaves."""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from madan.engine import distributed, gpu, resume, training
from madan.errors import Refusal
from madan.files import flush
from madan.models import checkpoints
from madan.pipeline import settings
from madan.pipeline.artefacts import Trained
from madan.pipeline.jobs import inputs
from madan.pipeline.publishing import Job


def start(job: Job[Trained], processes: int | None, images: int) -> training.Run:
    """Fix threads and seed before networks are built, and return the run of a training job.

    `images` is the number of images that a step sees, those of the target included.
    """
    params, artefact = job.params, job.artefact
    usual = settings.processes(artefact, params)
    wanted = usual if processes is None else processes
    gpus = settings.gpus(artefact, params)
    inputs.start_process(params.training.threads, artefact.seed, wanted, gpus)
    if distributed.size() != usual and distributed.rank() == 0:
        print(
            f"{artefact} is trained by {distributed.size()} processes, which give other bits than "
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

    After the steps of `run.keep` the modules `kept` are saved, too. `precision` is what the forward
    pass is computed in: fp32 for generators and ADDA, of which bf16 loses too much.
    """
    metadata = {
        "settings": run.settings,
        "seed": run.seed,
        "step": run.steps,
        "code": job.digests["code"],
        "processes": distributed.size(),
        "precision": training.resolved(precision),
    }
    if card := gpu.describe():
        metadata["gpu"] = card
    if distributed.rank():  # Of several processes, the first publishes.
        with _enough_memory(job.artefact, run):
            training.fit(method, run, Path(os.devnull))
        return
    # A process that is asked to leave after the last step finishes instead of losing steps.
    with _enough_memory(job.artefact, run), training.signals(), job.publish() as out:
        training.fit(method, run, out / "log.csv", lambda done: _keep(run, done, kept, metadata))
        if check:
            check()
        checkpoints.save(out / "weights.safetensors", modules, metadata)
        for step in run.keep:
            shutil.copy(_kept(run, step), out / f"weights-step{step}.safetensors")
    flush(job.folder(job.artefact))
    training.forget(run)


@contextlib.contextmanager
def _enough_memory(artefact: Trained, run: training.Run) -> Iterator[None]:
    """Turn the end of a GPU's memory into a sentence that names the setting to change."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = " ".join(str(error).split())[:120]
        raise Refusal(
            f"{run.title} needs more memory than the GPU has ({reason}); "
            f"{smaller(artefact, run.settings['training'], distributed.size())}. "
            f"The last saved state, if any, is kept in {run.state}."
        ) from None


def smaller(artefact: Trained, schedules: Mapping[str, Any], processes: int) -> str:
    """Say which setting lowers the memory of a training step, and to what value.

    `schedules` is the `training` part of a run's settings. More parts of a batch (`accumulate`)
    take less memory, as long as each process has an image for every part.
    """
    section = next((name for name in ("translator", "segmenter") if name in schedules), None)
    if section is None:  # ADDA, which takes a batch as a whole
        return "make training.adaptation.batch or training.adaptation.crop smaller in params.yaml"
    parts, share = schedules[section]["accumulate"], schedules[section]["batch"] // processes
    more = [n for n in range(parts + 1, share + 1) if share % n == 0]
    if not more:
        return (
            f"accumulate is {parts} and each part has one image already: make "
            f"training.{section}.crop smaller in params.yaml, or use a GPU with more memory"
        )
    then = f" (if that is not enough: {', '.join(map(str, more[1:]))})" if more[1:] else ""
    images = share // more[0]
    return (
        f"set {artefact.kind}.{artefact.run}.accumulate: {more[0]} in params.yaml{then}: a step "
        f"then takes its batch in {more[0]} parts of {images} image{'s' * (images > 1)} each"
    )


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
            f"delete {run.state}/{run.key}-* to train from the start."
        )
    if done in run.keep:
        fresh = Path(run.state, "weights.new")
        checkpoints.save(fresh, modules, metadata | {"step": done})
        resume.flush(fresh)
        fresh.replace(_kept(run, done))
