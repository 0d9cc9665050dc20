"""How a long job shows where it is: a bar on a terminal, a plain line now and then in a log.

Also in TensorBoard, where its extra is installed. None of it is ever part of a result.
"""

import importlib.util
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

FIGURES = 6  # as many as fit beside a bar


class Meter:
    """Shows step, figures, images a second and time left."""

    def __init__(
        self, title: str, total: int, first: int = 0, every: float = 30, images: int | None = None
    ):
        self.title, self.total, self.first, self.every = title, total, first, every
        self.images = images  # that a step sees
        self.begun = self.shown = time.monotonic()
        self.wait = min(5, every)  # At first more often: who looks wants to know that it runs.
        self.bar = None
        if sys.stderr.isatty():
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
            figures = TimeRemainingColumn(), TextColumn("{task.fields[figures]}")
            self.bar = Progress(*columns, *figures)
            self.task = self.bar.add_task(title, total=total, completed=first, figures="")
            self.bar.start()
        elif first:
            print(f"{title}: goes on from step {first} of {total}", flush=True)

    def show(self, done: int, figures: Mapping[str, float]) -> None:
        """Tell that `done` of the steps are done, with the means of a few figures."""
        now = time.monotonic()
        if not self.bar and now - self.shown < self.wait and done != self.total:
            return
        pace = (done - self.first) / max(1e-9, now - self.begun)
        shown = list(means(figures).items())[:FIGURES]
        text = "  ".join(f"{name} {value:.3f}" for name, value in shown)
        if self.images:
            text = f"{pace * self.images:.1f} images/s  {text}"
        if self.bar:
            self.bar.update(self.task, completed=done, figures=text)
            return
        self.shown, self.wait = now, min(2 * self.wait, self.every)
        left = (self.total - done) / max(1e-9, pace)
        print(
            f"{self.title}: {done}/{self.total}  {pace:.2f}/s  {left:.0f} s left  {text}",
            flush=True,
        )

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar:
            self.bar.stop()


def means(figures: Mapping[str, float]) -> dict[str, float]:
    """Mean over the sources of every figure named `<term>.<source>`, terms in their order."""
    terms: dict[str, list[float]] = {}
    for name, value in figures.items():
        terms.setdefault(name.split(".")[0], []).append(value)
    return {term: sum(values) / len(values) for term, values in terms.items()}


class Board:
    """The figures of a log, and samples of images, for TensorBoard; without its extra, nothing."""

    def __init__(self, folder: Path | None, first: int):
        self.writer = None
        if folder is not None and importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            # What was written after the state that is gone on from is written again.
            self.writer = SummaryWriter(str(folder), purge_step=first + 1)

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Show the figures of a line of the log."""
        if self.writer:
            for name, value in figures.items():
                self.writer.add_scalar(name.replace(".", "/"), value, step)

    def samples(self, step: int, method: Any) -> None:
        """Show what a method has to show: images [3, h, w] in -1..1 of its `look`, by name."""
        if self.writer and hasattr(method, "look"):
            for name, image in method.look().items():
                self.writer.add_image(name, (image + 1) / 2, step)

    def close(self) -> None:
        """Write out what is still held."""
        if self.writer:
            self.writer.close()
