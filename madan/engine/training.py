"""The one training loop: device, threads, log, atomic save, exact resume, several processes.

A method is any object with `modules`, `optimizers` and `update(step) -> dict[str, float]`. Random
numbers of a step are a function of (seed, step, process), as batches and rates are, so modules,
optimisers and step are the whole state: a resumed run ends with the bits of an uninterrupted one.
"""

import contextlib
import csv
import math
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from madan import files
from madan.engine import distributed, gpu, resume
from madan.engine.progress import Board, Meter
from madan.errors import Refusal

Log = list[dict[str, float]]
_ASKED = "asked to leave"


class Method(Protocol):
    """What `fit` trains: networks, their optimisers and one step of the algorithm."""

    modules: Mapping[str, nn.Module]
    optimizers: Mapping[str, torch.optim.Optimizer]

    def update(self, step: int) -> dict[str, float]:
        """Do step `step`, counted from 0, and return its figures."""
        ...


class Run(NamedTuple):
    """How long a run is and where its state lies while it is not done."""

    title: str
    seed: int
    steps: int
    save_every: int
    log_every: int
    state: Path
    key: str
    settings: Mapping[str, Any]
    keep: Sequence[int] = ()  # steps whose weights are given out, too
    images: int | None = None  # that a step sees
    board: Path | None = None  # where TensorBoard's files lie


def device() -> torch.device:
    """The GPU where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolved(precision: str) -> str:
    """The precision, fp32 or bf16, that this device gives: `auto` is bf16 where that is quicker.

    A CPU without instructions for bf16 emulates it, many times slower than fp32.
    """
    if precision != "auto":
        return precision
    if device().type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16") else "fp32"


def autocast(precision: str) -> torch.autocast:
    """The context in which a forward pass has this precision: fp32, bf16 or auto."""
    half = resolved(precision) == "bf16"
    return torch.autocast(device().type, torch.bfloat16, enabled=half)


def compiled(net: nn.Module, wanted: bool) -> nn.Module:
    """The network, its forward pass compiled at the first call if that is wanted."""
    if wanted:
        # The compiler's choices are deterministic as well.
        torch.use_deterministic_algorithms(True, warn_only=device().type != "cuda")
        net.compile(dynamic=False)
    return net


def begin(seed: int, threads: int) -> None:
    """Join the other processes, fix threads, seed and algorithms before networks are built.

    On a GPU an operation without a deterministic kernel is an error. Refusal when
    CUBLAS_WORKSPACE_CONFIG has a value with which cuBLAS is not deterministic.
    """
    gpu.fix_cublas()
    distributed.join()
    torch.set_num_threads(threads)
    # As use_deterministic_algorithms does, which would import torch's compiler: 2 s of every job.
    torch.set_deterministic_debug_mode("error" if device().type == "cuda" else "warn")
    # Filling fresh memory guards against bugs, not against noise, and costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)


def fit(
    method: Method, run: Run, log: Path, after: Callable[[int], None] = lambda done: None
) -> None:
    """Train to the last step, going on from a saved state; write the log as CSV.

    `after` is called with the number of steps done, after each and before a state of it is saved.
    Refusal when another process trains this run, when the state is another run's, or when a
    figure or a saved weight is not finite. On TERM, INT, USR1 and HUP the state is saved before
    leaving. Of several processes the first writes the log.
    """
    with _alone(run), signals() as asked:
        first, lines, window = _resume(method, run)
        meter = Meter(run.title, run.steps, first, images=run.images)
        board = Board(None if distributed.rank() else run.board, first)
        try:
            for step in range(first, run.steps):
                torch.manual_seed(_step_seed(run.seed, step, distributed.rank()))
                # One process may have been asked to leave: all then leave after the same step.
                figures = distributed.figures(method.update(step) | {_ASKED: float(bool(asked))})
                leave = figures.pop(_ASKED) > 0
                _finite(run, step, figures)
                window.append(figures)
                done = step + 1
                if done % run.log_every == 0 or done == run.steps:
                    means = _mean(window)
                    lines.append({"step": done, **means})
                    board.figures(done, means)
                    window = []
                meter.show(done, figures)
                after(done)
                if done < run.steps and (done % run.save_every == 0 or leave):
                    _save(method, run, done, lines, window)
                    board.samples(done, method)
                    if leave:
                        raise SystemExit(128 + (asked or [signal.SIGTERM])[0])
            board.samples(run.steps, method)
        finally:
            meter.close()
            board.close()
    if distributed.rank() == 0:
        with log.open("w", newline="") as file:
            writer = csv.DictWriter(
                file, ["step", *sorted({key for line in lines for key in line} - {"step"})]
            )
            writer.writeheader()
            writer.writerows(lines)


@contextlib.contextmanager
def signals() -> Iterator[list[int]]:
    """A list of the signals by which somebody asked the process to leave, which ask no more."""
    asked: list[int] = []
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        if number == signal.SIGHUP:
            _turn_off(terminals)

    before = {number: signal.signal(number, ask) for number in distributed.heeded()}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _turn_off(terminals: Sequence[int]) -> None:
    """Send what goes to a terminal that was closed to nowhere, since writing to it is an error."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in terminals:
        os.dup2(nowhere, number)
    os.close(nowhere)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """One step of an optimiser down the mean over the processes of their losses."""
    optimizer.zero_grad()
    loss.backward()
    take_step(optimizer)


def take_step(optimizer: torch.optim.Optimizer) -> None:
    """One step of an optimiser along the mean over the processes of their gradients."""
    distributed.average_gradients(optimizer)
    optimizer.step()


def forget(run: Run) -> None:
    """Remove the states of a run that is done and published; say which of others are kept."""
    resume.forget(run.state, run.key)
    if others := list(run.state.glob(f"*{resume.SUFFIX}")):
        size = sum(path.stat().st_size for path in others) / 2**20
        print(
            f"{len(others)} saved states of other settings, code or data are kept in {run.state} "
            f"({size:.0f} MiB); delete them if you do not go back to these."
        )


def linear_decay(step: int, steps: int, decay_from: float) -> float:
    """Factor of the learning rate: 1 up to that fraction of the steps, then in a line to 0."""
    start = decay_from * steps
    return 1.0 if step < start else (steps - step) / (steps - start)


def one_cycle(step: int, steps: int) -> float:
    """Factor of the rate: a cosine from 1/25 to 1 in a quarter of the steps, then to 0 (Smith)."""
    place, top = (step + 1) / steps, max(0.25, 1 / steps)
    if place < top:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * place / top)) / 2
    return (1 + math.cos(math.pi * (place - top) / max(1e-9, 1 - top))) / 2


def poly(step: int, steps: int, power: float) -> float:
    """Factor of the rate: from 1 to 0 as a power of the share of the steps that remains."""
    return (1 - step / steps) ** power


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the rate times its own `factor`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("factor", 1.0)


def _step_seed(seed: int, step: int, rank: int = 0) -> int:
    return seed * 1_000_003 + step + rank * 1_000_000_007


def _mean(lines: Log) -> dict[str, float]:
    keys = list(dict.fromkeys(key for line in lines for key in line))
    values = {key: [line[key] for line in lines if key in line] for key in keys}
    return {key: sum(v) / len(v) for key, v in values.items()}


def _finite(run: Run, step: int, figures: Mapping[str, float]) -> None:
    wrong = [name for name, value in figures.items() if not math.isfinite(value)]
    if wrong:
        said = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        raise Refusal(
            f"{run.title}: {', '.join(wrong)} is not finite at step {step} ({said}); the last "
            f"saved state is kept in {run.state}. Lower the learning rate or look at the data."
        )


def _save(method: Method, run: Run, done: int, lines: Log, window: Log) -> None:
    state: dict[str, Any] = {
        "settings": dict(run.settings),
        "step": done,
        "log": lines,
        "window": window,
        "modules": {name: module.state_dict() for name, module in method.modules.items()},
        "optimizers": {name: o.state_dict() for name, o in method.optimizers.items()},
    }
    with distributed.together():
        for name, tensors in state["modules"].items():
            for key, value in tensors.items():
                if value.is_floating_point() and not value.isfinite().all():
                    raise Refusal(
                        f"{run.title}: {name}.{key} is not finite after step {done - 1}; the last "
                        f"saved state is kept in {run.state}. Lower the learning rate."
                    )
        resume.write(run.state, run.key, done, state)


def _resume(method: Method, run: Run) -> tuple[int, Log, Log]:
    state = resume.read(run.state, run.key, device())
    if state is None:
        return 0, [], []
    where = f"the state of {run.title} in {run.state}"
    try:
        was, now = dict(_flat(state["settings"])), dict(_flat(run.settings))
        for key in now:
            if was.get(key) != now[key]:
                raise Refusal(
                    f"{where} belongs to other settings: {key} was {was.get(key)}, now "
                    f"{now[key]}; restore that value, or delete {run.state}/{run.key}-* to "
                    "train from the start."
                )
        for name, module in method.modules.items():
            module.load_state_dict(state["modules"][name])
        for name, optimizer in method.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])
        return int(state["step"]), list(state["log"]), list(state["window"])
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Refusal(
            f"{where} does not fit this run ({reason}): delete {run.state}/{run.key}-* to train "
            "from the start."
        ) from None


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@contextlib.contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Hold the kernel's lock on the run's state, so that no two jobs ever write it.

    Of several processes of one job, the first holds it for all.
    """
    with contextlib.ExitStack() as held:
        with distributed.together():
            run.state.mkdir(parents=True, exist_ok=True)
            if distributed.rank() == 0:
                lock = run.state / "lock"
                busy = (
                    f"{run.title} is being trained by another process, which holds {lock}; wait "
                    "for it or stop it."
                )
                held.enter_context(files.hold(lock, busy))
        yield
