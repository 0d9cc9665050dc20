"""The figures that the paper published, and how far each is certain.

`published.csv` has the IoU of each class where the paper gives them, and the mean over 16. Its
`mark` says `miou confirmed` where the mean was seen in a second written source; a `transcribed`
line was copied once: its classes average to its mean, but it was not seen again.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

CONFIRMED = "miou confirmed"


class Figure(NamedTuple):
    """A published mean IoU over 16 classes, in percent."""

    miou16: float
    mark: str

    @property
    def confirmed(self) -> bool:
        """Whether it was seen in a second written source."""
        return self.mark == CONFIRMED


@cache
def figures(target: str) -> dict[str, Figure]:
    """The published figures on a target by `<setting>/<method>`; none for a target of one's own."""
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        return {
            f"{line['setting']}/{line['method']}": Figure(float(line["miou16"]), line["mark"])
            for line in csv.DictReader(file)
            if line["target"] == target
        }
