"""Two ways to do the same, timed in turn in one process: A B A B, so that what else goes on meets
both.

A pair's check is run first, at the size that is timed: it gives the error of the one against the
other, and that both are warm.
"""

import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch

LEAST = 2
DOCUMENT = Path("docs/performance.md")


class Pair(NamedTuple):
    """A baseline and ours, and how far apart their results are; `within` is what is allowed."""

    name: str
    what: str
    baseline: Callable[[], object]
    ours: Callable[[], object]
    check: Callable[[], float]
    within: float


class Row(NamedTuple):
    """A line of results/benchmarks.csv: medians, and the range of the rounds' ratios."""

    name: str
    ratio: float
    min: float
    max: float
    baseline_ms: float
    ours_ms: float
    rounds: int
    error: float
    what: str


class Size(NamedTuple):
    """How large a benchmark is: of the paper's networks and datasets, or tiny, for tests."""

    narrow: int  # the networks' channels are divided by this
    crop: int  # of the multi-source step
    segmenter: tuple[int, int]
    stylised: tuple[int, int]
    native: tuple[int, int]
    prepared: tuple[int, int]
    sample: tuple[int, int]
    scored: tuple[int, int]
    matrix: int


FULL = Size(
    1, 128, (320, 448), (256, 512), (1052, 1914), (600, 1080), (400, 400), (1024, 2048), 1536
)
TINY = Size(16, 32, (40, 56), (16, 32), (66, 120), (38, 68), (24, 24), (64, 128), 64)


def checked(pair: Pair) -> float:
    """The error of ours against the baseline; SystemExit where it is more than allowed."""
    error = pair.check()
    if not error <= pair.within:
        raise SystemExit(f"{pair.name}: error {error:.3g}, more than {pair.within:.3g}.")
    return error


def measured(pair: Pair, rounds: int, seconds: float) -> Row:
    """Time so many rounds of a pair, fewer (at least two) once they have taken so long."""
    error = checked(pair)
    begun, times = time.perf_counter(), list[tuple[float, float]]()
    while len(times) < LEAST or (len(times) < rounds and time.perf_counter() - begun < seconds):
        times.append((took(pair.baseline), took(pair.ours)))
    return row(pair.name, times, error, pair.what)


def row(name: str, times: list[tuple[float, float]], error: float, what: str) -> Row:
    """A line from seconds of baseline and ours, round by round."""
    ratios = [a / b for a, b in times]
    a, b = (1000 * statistics.median(each) for each in zip(*times, strict=True))
    middle = statistics.median(ratios)
    return Row(name, middle, min(ratios), max(ratios), a, b, len(times), error, what)


def took(job: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    job()
    return time.perf_counter() - begun


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Relative error |a - b| / |a| of two tensors, 0 where both are 0."""
    a, b = a.detach().double(), b.detach().double()
    return float((a - b).norm() / a.norm().clamp_min(1e-30))


def document(mark: str, lines: list[str], path: Path = DOCUMENT) -> None:
    """Put these lines between the marks of that name in docs/performance.md."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    before, _, rest = path.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    path.write_text(before + "\n".join([begin, *lines, end]) + after, encoding="utf-8")


def machine() -> dict[str, str]:
    """What was measured on, and with."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = {"torch": torch.__version__, "numpy": np.__version__, "opencv": cv2.__version__}
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": str(os.cpu_count()),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "system": f"Linux {platform.release()}, Python {platform.python_version()}",
        **versions,
    }
