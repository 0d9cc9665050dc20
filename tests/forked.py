"""Commands in processes that start at once: forked from one that has everything imported."""

import multiprocessing
import os
import socket
import sys
import time
from ctypes import c_int
from pathlib import Path
from typing import NamedTuple

from madan.engine import progress

CONTEXT = multiprocessing.get_context("forkserver")
NAMES = (
    "methods.segmentation", "methods.translation", "methods.adaptation", "methods.stylisation",
    "evaluation.evaluate", "miniature.world", "report.tables",
)  # fmt: skip
# torch imports its compiler when it is asked for deterministic algorithms: 2 s for each process.
CONTEXT.set_forkserver_preload(
    ["madan.cli", "torch._inductor.standalone_compile", *(f"madan.{name}" for name in NAMES)]
)


class Steps(NamedTuple):
    """Shared with a process: the step it went on from and the last one that it did."""

    first: c_int
    done: c_int


def steps() -> Steps:
    return Steps(CONTEXT.RawValue(c_int, -1), CONTEXT.RawValue(c_int, -1))


def start(folder: Path, *words, environment=None, shown: Steps | None = None, said="said"):
    """Start `madan` with these words in a folder; what it says goes to a file there."""
    place = folder / said
    process = CONTEXT.Process(
        target=_command,
        args=(str(folder), words, environment or {}, shown, str(place)),
        daemon=True,
    )
    process.start()
    return process


def finish(process, within=120) -> int:
    process.join(within)
    assert process.exitcode is not None, "still running"
    return process.exitcode


def group(size: int) -> list[dict[str, str]]:
    """Variables for processes that are to find each other, as torchrun sets them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    return [
        {name: str(value) for name, value in (shared | {"RANK": k, "LOCAL_RANK": k}).items()}
        for k in range(size)
    ]


def in_group(size: int, function, *words) -> None:
    """Call a function in as many processes, which find each other; all must end well."""
    processes = [
        CONTEXT.Process(target=_member, args=(variables, function, words), daemon=True)
        for variables in group(size)
    ]
    for process in processes:
        process.start()
    assert [finish(process) for process in processes] == [0] * size


def _member(variables, function, words):
    os.environ.update(variables)
    function(*words)


def _command(folder, words, environment, shown, said):
    os.chdir(folder)
    os.environ.update(environment)
    file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if shown:
        _watch(shown)
    from madan import cli

    sys.argv = ["madan", *map(str, words)]
    cli.main()


def _watch(shown: Steps) -> None:
    class Meter(progress.Meter):
        def __init__(self, title, total, first=0, **more):
            super().__init__(title, total, first, **more)
            shown.first.value = shown.done.value = first

        def show(self, done, figures):
            shown.done.value = done
            super().show(done, figures)

    from madan.engine import training

    training.Meter = Meter


def wait_for(condition, within=60) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.002)
