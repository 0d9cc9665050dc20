"""Plausibility: whether the ids of a split are of its layout's kind, and its classes as frequent.

Ids of one release are mostly ids of another too: read with the wrong table, nothing is unknown, and
most pixels come out as other classes or ignored. How frequent classes are tells it.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from madan import labels
from madan.data import masks
from madan.data.inspection import Finding, Inspection
from madan.data.layouts import LAYOUTS, Layout
from madan.labels import CLASSES, IGNORE, UNKNOWN, Labels

# Shares of all pixels in percent: the 19 classes in their order, then what is not counted.
#
# cityscapes: pixels of each label id of the 2975 fine labels of train, as public scripts count
#   them (road 2036416525, sidewalk 336090793, ...; all are 2975 x 1024 x 2048).
#   A second source, github.com/m-birke/automotive-segmentation-datasets, cityscapes.md, agrees
#   within 0.2 points.
# gta5: all 24966 labels: a public count of pixels from a script (road 16099193283 of 50146868904,
#   ...). A second source, playing_for_data.md of the same repository, agrees within 0.1 points but
#   for the share that is not counted, which it splits by id.
# synthia: one source only, synthia_rand_cityscapes.md of the same repository (ids 0, 13, 14 and 22
#   are not counted).
# bdd100k and camvid: no published numbers for all 19 classes were found, so nothing is compared.
PUBLISHED: dict[str, tuple[float, ...]] = {
    "cityscapes": (
        32.640, 5.387, 20.206, 0.580, 0.777, 1.087, 0.184, 0.488, 14.101, 1.025, 3.558,
        1.079, 0.120, 6.192, 0.237, 0.208, 0.206, 0.087, 0.366, 11.472,
    ),
    "gta5": (
        32.10, 8.29, 16.91, 1.85, 0.63, 1.06, 0.13, 0.08, 7.60, 2.14, 13.53,
        0.36, 0.03, 2.51, 1.13, 0.37, 0.06, 0.03, 0.01, 11.18,
    ),
    "synthia": (
        18.4, 19.3, 29.3, 0.27, 0.268, 1.04, 0.0389, 0.1013, 10.3, 0, 6.9,
        4.3, 0.47, 4.1, 0, 1.5, 0, 0.21, 0.22, 3.334,
    ),
}  # fmt: skip
# Kinds of ids that are taken for each other, and the release whose table they have.
KINDS_OF_IDS = {
    "Cityscapes label ids": "cityscapes",
    "train ids": "bdd100k",
    "SYNTHIA ids": "synthia",
    "CamVid ids": "camvid",
}
# Measured on drawn streets of every layout, 5 images at a time: read with the right table, another
# kind of ids never fits better; read with a wrong one, the right kind fits better by 0.19 or more.
# Of single images another kind fits better by 0.07 at most.
BETTER = 0.15  # by so much another kind must fit better, of a split
BETTER_ALONE = 0.3  # of one label
WRONG = 0.4  # only ids that fit worse than this are taken for another kind
MANY, FREQUENT = 5, 0.005  # fewer ids than so many of more than this share say nothing
SHIFT = 0.35  # share of pixels that would have to change class, from which on it is a finding
UNCOUNTED = 0.4  # so much more of a split is not counted than in the release


class Fit(NamedTuple):
    """How well ids are read as one kind: the share of pixels of other classes than expected."""

    kind: str
    shift: float
    ignored: float


def shares(ids: Iterable[tuple[int, int]], table: Labels) -> np.ndarray:
    """Shares of the 19 classes, of what is not counted, and of unknown ids: float [21], sum 1."""
    pixels = np.zeros(256)
    for value, count in ids:
        pixels[table[value]] += count
    found = np.append(pixels[: len(CLASSES)], [pixels[IGNORE], pixels[UNKNOWN]])
    return np.asarray(found / max(1, found.sum()))


def shift(found: np.ndarray, expected: Sequence[float]) -> float:
    """Share of pixels that would have to change class to be as frequent as expected, 0 to 1."""
    wanted = np.append(np.array(expected) / np.sum(expected), 0)
    return float(np.abs(found - wanted).sum() / 2)


def kinds(ids: Iterable[tuple[int, int]], layout: Layout) -> tuple[Fit, Fit]:
    """How well ids fit as the layout's own kind, and as the other kind that fits best.

    Kinds are compared with the shares of their release, else with those of Cityscapes.
    """
    ids = list(ids)
    fits = []
    for kind, release in [(layout.ids, layout.ids), *KINDS_OF_IDS.items()]:
        table, same = LAYOUTS[release].table, labels.TABLES[release] == labels.TABLES[layout.ids]
        if kind == layout.ids or not same.all():
            found = shares(ids, layout.table if kind == layout.ids else table)
            expected = PUBLISHED.get(release, PUBLISHED["cityscapes"])
            fits.append(Fit(kind, shift(found, expected), float(found[-2] + found[-1])))
    return fits[0], min(fits[1:], key=lambda other: other.shift)


def check(layout: Layout, released: bool, usual: bool, seen: list[Inspection]) -> list[Finding]:
    """Findings of a split's ids, palettes and shares.

    `released`: it is the release itself and not a dataset of one's own with its ids. `usual`: its
    images have the release's size.
    """
    findings = _palettes(released, seen)
    if layout.ids:
        findings += _kinds(layout, seen)
    if released and layout.ids in PUBLISHED:
        findings += _shares(layout, usual, seen)
    return findings


def _kinds(layout: Layout, seen: list[Inspection]) -> list[Finding]:
    """Ids that fit another kind much better than the layout's."""
    # Of labels without a class, as those of a test split are, nothing can be told.
    told = [one for one in seen if one.ids and any(one.pixels[: len(CLASSES)])]
    total: Counter[int] = Counter()
    findings = []
    for one in told:
        total.update(dict(one.ids))
        if not _rich(one.ids):
            continue
        own, best = kinds(one.ids, layout)
        if own.shift > WRONG > best.shift and own.shift - best.shift > BETTER_ALONE:
            findings.append(Finding("ids of another kind", one.name, _words(layout, own, best)))
    if _rich(list(total.items())):
        own, best = kinds(total.items(), layout)
        if own.shift > WRONG and own.shift - best.shift > BETTER:
            findings.append(Finding("other ids", "", _words(layout, own, best)))
    return findings


def _rich(ids: Sequence[tuple[int, int]]) -> bool:
    """Whether there are enough frequent ids for the shares of classes to say something."""
    pixels = sum(count for _, count in ids)
    return sum(count > FREQUENT * pixels for _, count in ids) >= MANY


def _words(layout: Layout, own: Fit, best: Fit) -> str:
    return (
        f"these are {best.kind}, as it seems: as ids of {layout.ids} {100 * own.ignored:.0f} % of "
        f"pixels are not counted and {100 * own.shift:.0f} % are of other classes than expected, "
        f"as {best.kind} {100 * best.ignored:.0f} % and {100 * best.shift:.0f} %"
    )


def _shares(layout: Layout, usual: bool, seen: list[Inspection]) -> list[Finding]:
    """Shares of classes beside the published ones, where they are far apart."""
    pixels = np.sum([one.pixels for one in seen if any(one.pixels)] or [(0,)], axis=0)
    if not pixels[: len(CLASSES)].any():
        return []
    found, wanted = pixels / pixels.sum(), np.array(PUBLISHED[layout.ids])
    wanted = wanted / wanted.sum()
    far = shift(np.append(found, 0), wanted.tolist())
    uncounted = found[-1] - wanted[-1]
    if not (usual and far > SHIFT) and uncounted < UNCOUNTED:
        return []
    names = (*CLASSES, "not counted")
    first = np.argsort(-np.abs(found - wanted))[:4]
    both = (f"{names[k]} {100 * found[k]:.3g} %, published {100 * wanted[k]:.3g} %" for k in first)
    return [Finding("shares", "", "; ".join(both))]


def _palettes(released: bool, seen: list[Inspection]) -> list[Finding]:
    """Palettes that differ from label to label, or from the release's colours."""
    first: dict[int, tuple[int, str]] = {}
    for one in seen:
        for index, colour in one.palette:
            before, name = first.setdefault(index, (colour, one.name))
            if before != colour:
                return [
                    Finding(
                        "palettes differ", "",
                        f"id {index} is {masks.colour(before)} in {name} and "
                        f"{masks.colour(colour)} in {one.name}",
                    )
                ]  # fmt: skip
    foreign = [one.name for one in seen if one.palette]
    by_grey = [one.name for one in seen if one.how == masks.GREYS]
    if foreign and by_grey:
        return [
            Finding(
                "palettes differ", "",
                f"{by_grey[0]} is read by the greys of its palette, {foreign[0]} cannot be",
            )
        ]  # fmt: skip
    if foreign and released:
        return [Finding("foreign palette", "", f"{len(foreign)} labels, such as {foreign[0]}")]
    return []
