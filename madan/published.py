"""The published figures: what the paper and its extension print, and how certain each number is.

`published.csv` has a line for each row of a published table, in the order of print: the IoU of each
class where it is known, and the mean over 16 classes. Its columns beside these:

- `mark`: `transcribed` was copied once and not seen again; `miou confirmed` means that a second
  written source has the same mean; `classes confirmed` means that one has the same class values.
- `table`: the published table (comparison, semantic or ablation) that has the line.
- `network`: the segmenter's backbone. Every run of this project has that of VGG-16.
- `protocol`: whose training and evaluation the number comes from.
- `source`: where the number was seen.
- `also`: another line that the same run has in the published tables, as `setting/method`.
- `note`: what a reader has to know before comparing with the number.
"""

import csv
from functools import cache
from pathlib import Path
from typing import NamedTuple

from madan import labels

SCALE = "paper"  # The scale whose results are set beside these figures, and no other.
TRANSCRIBED = "transcribed"
CLASSES = tuple(labels.CLASSES[k] for k in labels.CLASSES_16)


class Figure(NamedTuple):
    """A line of a published table, in percent; `ious` has a value for each of CLASSES, or none."""

    setting: str
    method: str
    miou16: float
    mark: str = TRANSCRIBED
    ious: tuple[float, ...] = ()
    table: str = ""
    network: str = ""
    protocol: str = ""
    source: str = ""
    also: str = ""
    note: str = ""

    @property
    def confirmed(self) -> bool:
        """Whether a second written source has the same mean or the same class values."""
        return self.mark != TRANSCRIBED


@cache
def figures(target: str) -> dict[str, Figure]:
    """Read the published figures on a target by `<setting>/<method>`, in the order of print.

    A target that the paper does not have gives an empty dict.
    """
    with Path(__file__).with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        return {
            f"{line['setting']}/{line['method']}": _figure(line)
            for line in csv.DictReader(file)
            if line["target"] == target
        }


def _figure(line: dict[str, str]) -> Figure:
    words = {name: line[name] for name in Figure._fields if name not in ("miou16", "ious")}
    ious = tuple(float(line[name]) for name in CLASSES if line[name])
    return Figure(miou16=float(line["miou16"]), ious=ious, **words)
