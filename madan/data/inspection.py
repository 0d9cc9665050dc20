"""Inspection: one pair of a dataset, looked at; and the kinds of what can be found.

A finding is of a kind; a kind says whether the pair is kept, left out, or the dataset unusable.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from madan import labels
from madan.data import datasets, masks, rasters
from madan.data.layouts import Item, Meaning
from madan.data.masks import Mask
from madan.data.rasters import Array, Photo, Unfit
from madan.folders import NotNow

FIT, EXCLUSIONS, UNUSABLE = 0, 1, 2  # the status of a split, and the exit code
VALUES = 8  # unknown values that the finding of one file names


class Kind(NamedTuple):
    """A kind of finding: how grave (FIT: the pair is kept), and what to do about it."""

    gravity: int
    remedy: str


KINDS = {
    "no image": Kind(EXCLUSIONS, "Extract the images again, or move the label away."),
    "no label": Kind(EXCLUSIONS, "Extract the labels again, or move the image away."),
    "missing": Kind(
        EXCLUSIONS, "The list of the split names it, the folders lack it: download its part again."
    ),
    "names differ in case": Kind(EXCLUSIONS, "Rename one of the two like the other."),
    "dead link": Kind(EXCLUSIONS, "The file it points to is gone: link it again or copy the file."),
    "not readable now": Kind(
        UNUSABLE,
        "It is there and cannot be read: mend its permissions, the disk or the limit of open "
        "files, and verify again.",
    ),
    "not a file": Kind(EXCLUSIONS, "A pipe, a device or a folder is no image: move it away."),
    "too large": Kind(EXCLUSIONS, "No photo is so large: replace it."),
    "bit depth": Kind(EXCLUSIONS, "Save it with 8 bits, scaled to the full range."),
    "unreadable": Kind(
        EXCLUSIONS, "The file is damaged or cut short: download or extract it again."
    ),
    "two sizes": Kind(EXCLUSIONS, "Image and label must have one size: replace both."),
    "one turned": Kind(
        EXCLUSIONS, "Save image and label upright, without an EXIF entry of orientation."
    ),
    "unknown ids": Kind(
        EXCLUSIONS,
        "The label holds ids that this layout does not have: take the release's label images, or "
        "name the ids in `layouts` of params.yaml, under a class or under `ignore`; `otherwise: "
        "ignore` ignores all that are not named.",
    ),
    "unknown values": Kind(FIT, "These are the values that the labels above hold."),
    "other ids": Kind(
        UNUSABLE,
        "The labels are of another kind than the layout's: take the release's own, or name their "
        "kind by `ids` of a layout of your own.",
    ),
    "ids of another kind": Kind(
        EXCLUSIONS, "This label is of another kind than the others: replace it."
    ),
    "palettes differ": Kind(
        UNUSABLE,
        "One id has different colours in two labels, so a program may have renumbered them: take "
        "the original labels.",
    ),
    "foreign palette": Kind(
        FIT, "Its colours are not the release's, so it is read by index: look at one of them."
    ),
    "read by colour": Kind(
        FIT, "A program renumbered its ids without changing a colour; nothing to do."
    ),
    "shares": Kind(
        FIT, "Classes are more or less frequent than in the release: look at some labels."
    ),
    "not ids": Kind(
        EXCLUSIONS, "The label is no image of class ids (colours, or bits lost): take the others."
    ),
    "blank label": Kind(EXCLUSIONS, "Nothing is labelled, so nothing can be learnt from it."),
    "one colour": Kind(EXCLUSIONS, "The image shows nothing: download it again."),
    "known damage": Kind(EXCLUSIONS, "Damaged in the release; known_damage: keep would keep it."),
    "excluded": Kind(EXCLUSIONS, "Left out by domains.<name>.exclude in params.yaml."),
    "also in val or test": Kind(
        EXCLUSIONS, "What is evaluated on must not be trained on: move it out of train."
    ),
    "excluded in vain": Kind(
        FIT, "domains.<name>.exclude names it, no split has it: is it misspelt?"
    ),
    "no labels": Kind(
        FIT,
        "Images without labels can be a target and can be predicted; they cannot be scored or "
        "learnt from. If there should be labels, put them where the layout says.",
    ),
    "unscored": Kind(FIT, "The label is blank: the image can be predicted, not scored."),
    "one class": Kind(FIT, "Look at it; if it is damaged, add it to domains.<name>.exclude."),
    "rotated": Kind(FIT, "Its EXIF entry says so; it is read upright, nothing to do."),
    "odd size": Kind(FIT, "Others are of another size; it is resized like them."),
    "suffix": Kind(FIT, "Not read, since its suffix or name is not the layout's: rename it."),
    "not read": Kind(
        UNUSABLE,
        "Image and label are there under a suffix that is not the layout's: rename both, since a "
        "score must count every image.",
    ),
    "odd file": Kind(FIT, "It leads to no photo and is not read: mend it or move it away."),
    "count": Kind(FIT, "Parts may be missing: compare with the archives of the release."),
    "split list": Kind(FIT, "Put split.mat of the release there for its own split."),
    "wrong variant": Kind(UNUSABLE, "Download the variant that docs/data.md names."),
    "not there": Kind(UNUSABLE, "Put it there, or a link, as docs/data.md shows."),
    "nothing left": Kind(UNUSABLE, "Not one pair can be used: mend what is listed above."),
    "incomplete": Kind(
        UNUSABLE,
        "A score must count every image of its split: replace those listed above, or name them in "
        "domains.<name>.exclude.",
    ),
}


class Finding(NamedTuple):
    """Something noteworthy: its kind, the pair's name (none: the whole split), what was seen."""

    kind: str
    name: str
    detail: str


class Inspection(NamedTuple):
    """One pair, looked at: hashes of its files, size [h, w], pixels of 19 classes and ignored.

    ids, palette, how and unknown are those of its mask.
    """

    name: str
    findings: tuple[Finding, ...] = ()
    digests: tuple[str, str] = ("", "")
    size: tuple[int, int] = (0, 0)
    pixels: tuple[int, ...] = (0,) * (len(labels.CLASSES) + 1)
    ids: tuple[tuple[int, int], ...] = ()
    palette: tuple[tuple[int, int], ...] = ()
    how: str = ""
    unknown: tuple[tuple[str, int], ...] = ()


def inspect(item: Item, meaning: Meaning, quick: bool) -> Inspection:
    """Look at one pair: is it there, readable, of one size, and does its label hold classes?"""
    missing = [path for path in item.files if _gone(path)]
    if missing:
        link = [path for path in missing if path.is_symlink()]
        kind = (
            "missing" if len(missing) == 2 else "no image" if item.image in missing else "no label"
        )
        return _found(item, "dead link" if link else kind, str((link or missing)[0]))
    try:
        if not item.labelled:
            return _image(item, quick)
        return _headers(item, meaning) if quick else _contents(item, meaning)
    except NotNow as refusal:
        return _found(item, "not readable now", str(refusal))
    except Unfit as refusal:
        return _found(item, refusal.kind, str(refusal))


def _gone(path: Path) -> bool:
    """Whether nothing is there; what is there and cannot be reached is not gone."""
    try:
        path.stat()
    except OSError as error:
        return error.errno in rasters.GONE
    return False


def _contents(item: Item, meaning: Meaning) -> Inspection:
    """What all bytes of both files tell."""
    photo, mask = rasters.photo(item.image), masks.read(item.label, meaning)
    truth = datasets.fitted(item, photo, mask)
    found = [*_of_label(mask, truth), *_of_photo(photo)]
    classes = mask.pixels[: len(labels.CLASSES)]
    height, width = truth.shape
    return Inspection(
        item.name,
        tuple(Finding(kind, item.name, detail) for kind, detail in found),
        (photo.digest, mask.digest),
        (height, width),
        (*classes.tolist(), int(mask.pixels[labels.IGNORE])),
        mask.ids,
        mask.palette,
        mask.how,
        mask.unknown,
    )


def _image(item: Item, quick: bool) -> Inspection:
    """What the image of an item without a label tells, by its header alone if `quick`."""
    if quick:
        return Inspection(item.name, size=rasters.header(item.image).size)
    photo = rasters.photo(item.image)
    found = tuple(Finding(kind, item.name, detail) for kind, detail in _of_photo(photo))
    height, width = photo.pixels.shape[:2]
    return Inspection(item.name, found, (photo.digest, ""), (height, width))


def _of_label(mask: Mask, truth: Array) -> list[tuple[str, str]]:
    found = []
    classes = mask.pixels[: len(labels.CLASSES)]
    if mask.unknown:
        more = len(mask.unknown) - VALUES
        values = [f"{value} ({_percent(n, truth.size)})" for value, n in mask.unknown[:VALUES]]
        rest = f" and {more} more" if more > 0 else ""
        total = sum(pixels for _, pixels in mask.unknown)
        found.append(("unknown ids", f"{', '.join(values)}{rest}: {total} pixels of {truth.size}"))
    elif not classes.any():
        found.append(("blank label", "nothing is labelled"))
    elif np.count_nonzero(classes) == 1:
        found.append(("one class", labels.CLASSES[int(classes.argmax())]))
    if mask.how:
        found.append(("read by colour", f"read by the {mask.how}"))
    return found


def _of_photo(photo: Photo) -> list[tuple[str, str]]:
    found, image = [], photo.pixels
    if (image[::16, ::16] == image[0, 0]).all() and (image == image[0, 0]).all():
        found.append(("one colour", f"all pixels are {tuple(image[0, 0].tolist())}"))
    if photo.turn != 1:
        found.append(("rotated", "turned upright"))
    return found


def _percent(part: float, whole: float) -> str:
    return f"{100 * part / max(1, whole):.3g} %"


def _headers(item: Item, meaning: Meaning) -> Inspection:
    """What the headers of both files tell."""
    image, label = rasters.header(item.image), rasters.header(item.label)
    datasets.fit(item, image.size, label.size, image.turn, label.turn)
    kinds = {
        "ids": label.mode in ("P", "L", "LA", "1", "I;16"),
        "sixteen bits": label.bits == 16,
        "colours": True,
    }
    if not kinds[meaning.values]:
        return _found(item, "not ids", f"{item.label} is a {label.mode} image")
    return Inspection(item.name, size=label.size)


def _found(item: Item, kind: str, detail: str) -> Inspection:
    return Inspection(item.name, (Finding(kind, item.name, detail),))
