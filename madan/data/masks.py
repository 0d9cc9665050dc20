"""Masks: label images to train ids, by their ids, by their palette or by their colours.

What a PNG stores is not what it shows. An optimiser renumbers a palette, turns grey into a palette
or packs pixels into fewer bits without changing a colour, so ids are read from what is stored only
where palette and bits agree with it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from madan import labels
from madan.data import rasters
from madan.data.layouts import Meaning, Region
from madan.data.rasters import Array, Unfit
from madan.labels import IGNORE, UNKNOWN

BLACK_AND_WHITE = {0, 255}
SHARED = {k: labels.key(colour) for k, colour in labels.SHARED_COLOURS.items()}
STATIC = labels.key((20, 20, 20))
GREYS = "greys of its palette"


class NotIds(Unfit):
    """A label image of another kind than the layout's."""

    def __init__(self, message: str):
        super().__init__("not ids", message)


class Mask(NamedTuple):
    """A label image, turned upright.

    truth: train ids uint8 [H, W], UNKNOWN where the layout has no such value. digest: SHA-256 (16
    digits) of the file. turn: its EXIF orientation. ids: pixels of each stored id (none where the
    layout has colours). how: by what it is read, if not by ids. palette: colours of the ids that
    occur, of a palette that is neither grey nor the release's. unknown: values and their pixels.
    pixels: those of each train id, int64 [256].
    """

    truth: Array
    digest: str
    turn: int
    pixels: Array
    ids: tuple[tuple[int, int], ...] = ()
    how: str = ""
    palette: tuple[tuple[int, int], ...] = ()
    unknown: tuple[tuple[str, int], ...] = ()


class Reading(NamedTuple):
    """How stored values are read: a table [n] onto train ids, by what, and a foreign palette."""

    table: labels.Labels
    how: str = ""
    palette: tuple[tuple[int, int], ...] = ()


def read(path: Path, meaning: Meaning) -> Mask:
    """Read a label image.

    Raises NotIds for one of another kind, Unfit for one that cannot be read, NotNow where the file
    system fails.
    """
    content = rasters.read_bytes(path)
    with rasters.decoding(path):
        opened = rasters.opened_image(path, content)
        stored, reading = DECODED[meaning.values](path, content, opened, meaning)
        turn = rasters.orientation(opened)
    truth = labels.look_up(reading.table, stored)
    counts = _counts(stored) if stored.dtype == np.uint8 else None
    unknown = () if meaning.otherwise else _unknown(stored, truth, counts, reading.table)
    ids = () if counts is None or reading.how else _sparse(counts)
    truth = rasters.upright(truth, turn)
    if counts is None or meaning.regions or meaning.otherwise:
        if meaning.otherwise:
            truth = np.where(truth == UNKNOWN, np.uint8(IGNORE), truth)
        truth = _cut(truth, meaning.regions)
        pixels = _counts(truth)
    else:
        pixels = np.bincount(reading.table, counts, minlength=256).astype(np.int64)
    return Mask(
        truth, rasters.sha(content), turn, pixels, ids, reading.how, reading.palette, unknown
    )


def _sparse(counts: Array) -> tuple[tuple[int, int], ...]:
    return tuple((int(k), int(counts[k])) for k in np.flatnonzero(counts))


def _counts(stored: Array) -> Array:
    """Pixels of each value, int64 [256]."""
    return np.array(Image.fromarray(stored).histogram())


def _unknown(
    stored: Array, truth: Array, counts: Array | None, table: labels.Labels
) -> tuple[tuple[str, int], ...]:
    """Values that the layout does not have, the most frequent first, and their pixels."""
    if counts is not None:
        found = np.flatnonzero((table == UNKNOWN) & (counts > 0))
        pairs = [(str(k), int(counts[k])) for k in found]
    elif not (truth == UNKNOWN).any():
        pairs = []
    else:
        values, times = np.unique(stored[truth == UNKNOWN], return_counts=True)
        show: Callable[[int], str] = str if stored.dtype == np.uint16 else colour
        pairs = [(show(int(v)), int(n)) for v, n in zip(values, times, strict=True)]
    return tuple(sorted(pairs, key=lambda pair: -pair[1]))


def colour(key: int) -> str:
    """Write a colour that is one number as (red, green, blue)."""
    return f"({key >> 16}, {key >> 8 & 255}, {key & 255})"


def _cut(truth: Array, regions: tuple[Region, ...]) -> Array:
    """Take parts of the picture out of what is counted."""
    if not regions:
        return truth
    height, width = truth.shape
    truth = truth.copy()
    for top, left, bottom, right in regions:
        rows = slice(round(top * height), round(bottom * height))
        truth[rows, round(left * width) : round(right * width)] = IGNORE
    return truth


# --- Kinds of label images: what is stored, and how it is read -----------------------------------


def _ids(
    path: Path, content: bytes, opened: Image.Image, meaning: Meaning
) -> tuple[Array, Reading]:
    """Ids of a label image of one channel, or of the release's colours."""
    _exact(path, opened)
    bits = rasters.depth(opened, content)
    if opened.mode == "P":
        stored = np.asarray(opened)
        return stored, _by_palette(path, opened, _counts(stored) > 0, meaning)
    if opened.mode in ("L", "LA", "1"):
        stored = np.asarray(opened.convert("L") if opened.mode != "L" else opened)
        packed = bits if opened.format == "PNG" else 1 if opened.mode == "1" else 8
        return stored, _by_bits(path, _counts(stored) > 0, packed, meaning.table)
    if opened.mode.startswith("I;16"):
        return _wide(rasters.unchanged(path, content), meaning.table)
    if opened.mode in ("RGB", "RGBA"):
        return _by_channels(path, np.asarray(opened.convert("RGB")), opened.mode, meaning)
    raise _refused(path, opened.mode)


def _refused(path: Path, mode: str, more: str = "") -> NotIds:
    return NotIds(
        f"{path} is a {mode} image, expected 8-bit ids (palette or grey){more}; take the label "
        "images of ids, not those of colours."
    )


def _exact(path: Path, opened: Image.Image) -> None:
    if opened.format in ("JPEG", "MPO"):
        raise NotIds(
            f"{path} is a JPEG, which changes values at every border; save label images as PNG."
        )


def _wide(stored: Array, table: labels.Labels) -> tuple[Array, Reading]:
    """Values of 16 bits: as 8 bits where they fit, else with all beyond them unknown."""
    if stored.max(initial=0) < 256:
        return np.ascontiguousarray(stored.astype(np.uint8)), Reading(table)
    beyond = np.full((1 << 16) - len(table), UNKNOWN, np.uint8)
    return stored, Reading(np.concatenate([table, beyond]))


def _by_palette(path: Path, opened: Image.Image, used: Array, meaning: Meaning) -> Reading:
    """Read a palette image by index, or by what its palette shows where that says otherwise."""
    table = meaning.table
    palette = np.zeros((256, 3), np.uint8)
    colours = np.array(opened.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
    palette[: len(colours)] = colours
    at = np.flatnonzero(used)
    shown = [labels.key(palette[k]) for k in at]
    if meaning.released and all(colour in labels.BY_COLOUR for colour in shown):
        meant = np.array([labels.BY_COLOUR[colour] for colour in shown], np.uint8)
        shared = [SHARED.get(k) == colour for k, colour in zip(at.tolist(), shown, strict=True)]
        # A grey of 20 is id 4's colour, or what an optimiser made of id 20.
        static = [k == 4 for k, colour in zip(at, shown, strict=True) if colour == STATIC]
        if (np.where(shared, IGNORE, meant) == table[at]).all() and all(static):
            return Reading(table)
        if (meant != IGNORE).any():
            return Reading(_put(table, at, meant), "colours of its palette")
    foreign = Reading(table, palette=tuple(zip(at.tolist(), shown, strict=True)))
    greys = palette[at, 0]
    # A palette that is all black, or has two indices of one colour, says nothing of its indices.
    if (palette[at] != palette[at, :1]).any() or len(set(shown)) < len(shown) or shown == [0]:
        return foreign
    if (at == greys).all():
        return Reading(table)
    if (table[greys] == UNKNOWN).any():
        return foreign
    _refuse_two_meanings(path, table, at, greys)
    return Reading(_put(table, at, table[greys]), GREYS)


def _put(table: labels.Labels, at: Array, train_ids: Array) -> labels.Labels:
    changed = table.copy()
    changed[at] = train_ids
    return changed


def _by_bits(path: Path, used: Array, bits: int, table: labels.Labels) -> Reading:
    """Read grey of fewer than 8 bits, which Pillow scales to 255, as its format says it.

    A tool that wrote ids themselves into few bits is met where the scaled values are unknown.
    """
    if bits >= 8:
        return Reading(table)
    values = np.flatnonzero(used)
    packed = values * (2**bits - 1) // 255
    if (table[values] == UNKNOWN).any():
        return Reading(_put(table, values, table[packed]), f"values of {bits} bits")
    _refuse_two_meanings(path, table, packed, values)
    return Reading(table)


def _refuse_two_meanings(path: Path, table: labels.Labels, stored: Array, shown: Array) -> None:
    """Refuse black and white that may be ids 0 and 1, as stored, or 0 and 255, as shown."""
    known = (table[stored] != UNKNOWN).all()
    if set(shown.tolist()) <= BLACK_AND_WHITE and known and (table[stored] != table[shown]).any():
        raise NotIds(
            f"{path} is black and white, which may mean ids {sorted(set(stored.tolist()))} or "
            f"{sorted(set(shown.tolist()))}; save it as 8-bit grey ids."
        )


def _by_channels(path: Path, rgb: Array, mode: str, meaning: Meaning) -> tuple[Array, Reading]:
    """Read an image of three channels by the release's colours, or as grey where they are equal."""
    red, green, blue = np.moveaxis(rgb, 2, 0)
    if (red == green).all() and (red == blue).all():
        used = _counts(np.ascontiguousarray(red)) > 0
        # An image that is all black is more likely a picture of nothing than one of id 0.
        if (not used[0] or used.sum() > 1) and (meaning.table[used] != UNKNOWN).all():
            return np.ascontiguousarray(red), Reading(meaning.table, "three equal channels")
    colours, places = np.unique(_keys(rgb), return_inverse=True)
    meant = [labels.BY_COLOUR.get(int(colour), UNKNOWN) for colour in colours]
    if not meaning.released or UNKNOWN in meant or set(meant) == {IGNORE}:
        raise _refused(path, mode)
    table = np.full(256, UNKNOWN, np.uint8)
    table[: len(colours)] = meant
    stored = places.reshape(rgb.shape[:2]).astype(np.uint8)
    # What is stored are no ids, so there is no evidence of them.
    return labels.look_up(table, stored), Reading(_TRAIN_IDS, "colours")


_TRAIN_IDS = np.full(256, UNKNOWN, np.uint8)
_TRAIN_IDS[: len(labels.CLASSES)] = np.arange(len(labels.CLASSES))
_TRAIN_IDS[IGNORE] = IGNORE


def _sixteen_bits(
    path: Path, content: bytes, opened: Image.Image, meaning: Meaning
) -> tuple[Array, Reading]:
    """SYNTHIA's class ids: red of a 16-bit PNG, of which Pillow would keep the wrong byte."""
    if opened.format == "PNG" and rasters.depth(opened, content) != 16:
        raise _lost_bits(path, "uint8", (*opened.size[::-1], len(opened.getbands())))
    image = rasters.unchanged(path, content)
    if image.dtype != np.uint16 or image.ndim != 3:
        raise _lost_bits(path, str(image.dtype), image.shape)
    return _wide(np.asarray(image[:, :, 2]), meaning.table)


def _lost_bits(path: Path, kind: str, shape: tuple[int, ...]) -> NotIds:
    return NotIds(
        f"{path} has {kind} values of shape {shape}, expected a 16-bit three-channel PNG; "
        "download SYNTHIA-RAND-CITYSCAPES again or restore GT/LABELS."
    )


def _colours(
    path: Path, content: bytes, opened: Image.Image, meaning: Meaning
) -> tuple[Array, Reading]:
    """Colours as numbers, red << 16 | green << 8 | blue, int32 [H, W]."""
    _exact(path, opened)
    if opened.mode not in ("RGB", "RGBA", "P") or rasters.depth(opened, content) > 8:
        raise NotIds(f"{path} is a {opened.mode} image, expected colours; see its layout.")
    return _keys(np.asarray(opened.convert("RGB"))), Reading(meaning.table)


def _keys(rgb: Array) -> Array:
    red, green, blue = np.moveaxis(rgb.astype(np.int32), 2, 0)
    return np.asarray(red << 16 | green << 8 | blue)


DECODED: dict[str, Callable[[Path, bytes, Image.Image, Meaning], tuple[Array, Reading]]] = {
    "ids": _ids,
    "sixteen bits": _sixteen_bits,
    "colours": _colours,
}
