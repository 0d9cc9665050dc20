"""How a long job shows where it is: a bar on a terminal, a plain line now and then in a log."""

import sys
import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Meter:
    """Shows step, figures and time left; never part of a result."""

    def __init__(self, title: str, total: int, first: int = 0, every: float = 30):
        self.title, self.total, self.first, self.every = title, total, first, every
        self.begun = self.shown = time.monotonic()
        self.bar = None
        if sys.stderr.isatty():
            columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
            figures = TimeRemainingColumn(), TextColumn("{task.fields[figures]}")
            self.bar = Progress(*columns, *figures)
            self.task = self.bar.add_task(title, total=total, completed=first, figures="")
            self.bar.start()
        elif first:
            print(f"{title}: goes on from step {first} of {total}", flush=True)

    def show(self, done: int, figures: dict[str, float]) -> None:
        """Tell that `done` of the steps are done, with a few figures."""
        text = "  ".join(f"{name} {value:.3f}" for name, value in figures.items())
        if self.bar:
            self.bar.update(self.task, completed=done, figures=text)
        elif time.monotonic() - self.shown >= self.every or done == self.total:
            self.shown = time.monotonic()
            pace = (done - self.first) / max(1e-9, self.shown - self.begun)
            left = (self.total - done) / max(1e-9, pace)
            print(
                f"{self.title}: {done}/{self.total}  {pace:.2f}/s  {left:.0f} s left  {text}",
                flush=True,
            )

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar:
            self.bar.stop()
