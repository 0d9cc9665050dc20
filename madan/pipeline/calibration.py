"""What a job costs: it is tried for some seconds by processes of their own, all at once.

A process that runs out of memory, or that the system kills for lack of it, is an answer too.
"""

import contextlib
import multiprocessing
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple, cast

from madan import config
from madan.engine import process
from madan.errors import Refusal
from madan.pipeline import trials
from madan.pipeline.artefacts import Artefact
from madan.pipeline.graph import Graph

NO_MEMORY = "there is not enough memory"


class Cost(NamedTuple):
    """Seconds until the first unit (step, image) is done, and of each; bytes of memory, weights.

    `fits` is False for a job that needs more memory than there is.
    """

    start: float
    unit: float
    memory: int
    weights: int
    fits: bool = True


def tried(artefact: Artefact, together: int, seconds: float) -> Cost:
    """Mean cost of so many processes that try the same job at once.

    Refusal if one ends with an error, or without an answer.
    """
    context = multiprocessing.get_context("spawn")
    barrier, workers = context.Barrier(together), dict[Connection, BaseProcess]()
    with tempfile.TemporaryDirectory() as scratch:
        try:
            for k in range(together):
                answer, own = context.Pipe(duplex=False)
                place = Path(scratch, str(k))
                place.mkdir()
                words = artefact, seconds, place, barrier, own, time.time()
                workers[answer] = context.Process(target=_try, args=words)
                workers[answer].start()
                own.close()  # Else the end of the worker would not end the pipe.
            found = _answers(workers)
        finally:
            for worker in workers.values():
                worker.kill()  # Of those that have answered, nothing is lost.
                worker.join()
    if any(each == NO_MEMORY for each in found):
        return Cost(0, 0, 0, 0, fits=False)
    broken = [each for each in found if isinstance(each, str)]
    if broken:
        raise Refusal(f"{artefact} could not be tried: {broken[0]}")
    start, unit, memory, weights, _ = (sum(each) / together for each in zip(*found, strict=True))
    return Cost(start, unit, int(memory), int(weights))


def _answers(workers: Mapping[Connection, BaseProcess]) -> list[Any]:
    """The answers of workers, up to the first that is a failure: the others may wait for it."""
    found, waiting = list[Any](), dict(workers)
    while waiting:
        for answer in cast(list[Connection], wait(list(waiting))):
            worker = waiting.pop(answer)
            try:
                found.append(answer.recv())
            except (EOFError, ConnectionResetError):
                worker.join()
                found.append(_death(worker.exitcode))
            if isinstance(found[-1], str):
                return found
    return found


def _death(code: int | None) -> str:
    """What the exit code of a worker that gave no answer means; Linux kills for lack of memory."""
    if code == -signal.SIGKILL:
        return NO_MEMORY
    return f"the process that tried it ended without an answer (exit code {code})"


def _try(
    artefact: Artefact, seconds: float, scratch: Path, barrier: Any, answer: Any, begun: float
) -> None:
    """In a process of its own: do a job's units for a while and tell what they cost."""
    process.begin()
    try:
        answer.send(_cost(artefact, seconds, scratch, barrier, begun))
    except MemoryError:
        answer.send(NO_MEMORY)
    except threading.BrokenBarrierError:
        answer.send("another process that tried it failed")
    except Exception as error:
        out = type(error).__name__ == "OutOfMemoryError"  # of torch, which not every job imports
        answer.send(NO_MEMORY if out else f"{type(error).__name__}: {error}")


def _cost(artefact: Artefact, seconds: float, scratch: Path, barrier: Any, begun: float) -> Cost:
    """Do a job's units, once alone and then for so many seconds along with the other processes."""
    graph = Graph(config.load())
    graph.planned(artefact)  # Every command computes it.
    trials.start(artefact, graph.params)  # Says so when it waits for a GPU.
    with contextlib.redirect_stdout(None):
        trial = trials.trial(artefact, graph.params, scratch)
        trial.do(trial.units[0])
        first, done = time.time() - begun, 0
        barrier.wait()
        started = time.monotonic()
        for unit in trial.units:
            trial.do(unit)
            done += trial.at_once
            if time.monotonic() - started > seconds:
                break
        each = (time.monotonic() - started) / done
    return Cost(first, each, _peak(), trial.weights)


def _peak() -> int:
    """Most bytes that this process has held: on the GPU if it used one, else in memory."""
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available() and torch.cuda.max_memory_reserved():
            return torch.cuda.max_memory_reserved()
    said = Path("/proc/self/status").read_text()
    return int(said.split("VmHWM:")[1].split()[0]) * 1024
