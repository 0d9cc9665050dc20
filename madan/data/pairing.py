"""Pairing: which files of a folder are images, which are their masks, and how both are named."""

import functools
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from madan import folders
from madan.data import rasters
from madan.errors import Refusal

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
READABLE = (".png", ".jpg", ".jpeg", *rasters.FORMATS)
SAMPLE = 16  # files of a group that are opened
DEEPER = 3  # folders below the first, or below {split}, that a pattern may hold
FEW = 64  # values; a picture of more is a photo
SEPARATORS = "_-. "


class Group(NamedTuple):
    """Files that one pattern may name: its folder with {split}, suffix, and names by path."""

    folder: str
    suffix: str
    stems: Mapping[str, Path]  # below the folder, without suffix


class Side(NamedTuple):
    """A group with the text around {name}: its pattern, and the names that it gives."""

    pattern: str
    names: Mapping[str, Path]


class Draft(NamedTuple):
    """Images and labels that pair up, and the folders of splits that are not named as splits."""

    images: Side
    labels: Side
    folders: Mapping[str, str]


def _groups(root: Path, deeper: int) -> tuple[list[Group], dict[str, str]]:
    """Files of one folder and suffix, splits taken together; what {split} stands for.

    `deeper`: so many more folders belong to a pattern than down to {split}, or than one.
    """
    found: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    of_splits: dict[str, str] = {}
    for entry in folders.walk(root):
        path = Path(entry.path)
        if entry.odd or path.suffix.lower() not in READABLE:
            continue
        *above, last = path.relative_to(root).parts
        depth, split = next(
            ((k, s) for k, part in enumerate(above) for s in SPLITS if part.lower() in SPLITS[s]),
            (0, ""),
        )
        if split:
            of_splits[split] = above[depth]
            above[depth] = "{split}"
        top = min(depth + 1 + deeper, len(above))
        inner = [*above[top:], last.removesuffix(path.suffix)]
        stem = f"{split}:{'/'.join(inner)}" if split else "/".join(inner)
        found["/".join(above[:top]), path.suffix.lower()][stem] = path
    groups = [Group(folder, suffix, found[folder, suffix]) for folder, suffix in sorted(found)]
    return groups, {s: folder for s, folder in of_splits.items() if s != folder}


@functools.cache
def _looks_like_mask(path: Path) -> bool | None:
    """Whether a picture has few values and is stored without loss; None if it cannot be read."""
    try:
        return path.suffix.lower() not in (".jpg", ".jpeg") and _few(path)
    except Refusal:
        return None


def _few(path: Path) -> bool:
    pixels = shown(path)
    return len(np.unique(pixels[::2, ::2])) <= FEW


def shown(path: Path) -> np.ndarray:
    """Read the colours of a picture as numbers [H, W]; of 16 bits, all of one channel."""
    content = rasters.read_bytes(path)
    with rasters.decoding(path):
        opened = rasters.opened_image(path, content)
        if rasters.depth(opened, content) > 8:
            deep = rasters.unchanged(path, content)
            return np.asarray(deep if deep.ndim == 2 else deep[:, :, 2]).astype(np.int64)
        red, green, blue = np.moveaxis(np.asarray(opened.convert("RGB"), np.int64), 2, 0)
    return np.asarray(red << 16 | green << 8 | blue)


def _divided(group: Group) -> list[tuple[Group, bool]]:
    """A group's files as photos and masks; of both, by the first or last word of their names."""
    looks = {stem: _looks_like_mask(path) for stem, path in some(group.stems)}
    kinds = {kind for kind in looks.values() if kind is not None}
    if len(kinds) < 2:
        return [(group, bool(kind)) for kind in kinds]
    for word in (_first, _last):
        by_word: dict[str, set[bool]] = defaultdict(set)
        for stem, kind in looks.items():
            if kind is not None:
                by_word[word(stem)].add(kind)
        if all(len(each) == 1 for each in by_word.values()) and len(by_word) < len(looks):
            return [
                (group._replace(stems={s: p for s, p in group.stems.items() if word(s) == w}), k)
                for w, [k] in by_word.items()
            ]
    return []


def some(stems: Mapping[str, Path]) -> list[tuple[str, Path]]:
    """Take some files from all over a group."""
    every = sorted(stems.items())
    return every[:: max(1, len(every) // SAMPLE)][: 2 * SAMPLE]


def _first(stem: str) -> str:
    return re.split(f"[{re.escape(SEPARATORS)}]", stem.rpartition("/")[2])[0]


def _last(stem: str) -> str:
    return re.split(f"[{re.escape(SEPARATORS)}]", stem.rpartition("/")[2])[-1]


def paired(root: Path) -> Draft:
    """Find the photos and masks of which most have one name; Refusal where there are none."""
    best: tuple[int, Draft] | None = None
    for deeper in range(DEEPER):
        groups, of_splits = _groups(root, deeper)
        divided = [each for group in groups for each in _divided(group)]
        photos = [side for group, is_mask in divided if not is_mask for side in _sides(group)]
        truths = [side for group, is_mask in divided if is_mask for side in _sides(group)]
        for left in photos:
            for right in truths:
                count = len(left.names.keys() & right.names.keys())
                if count > (best[0] if best else 0):
                    best = count, Draft(left, right, of_splits)
    if best is None:
        said = ", ".join(f"{g.folder or '.'}/*{g.suffix} ({len(g.stems)})" for g in groups)
        raise Refusal(
            f"{root} holds no photos and masks of the same names; found: {said or 'no images'}. "
            "Put them into a folder each, or name them alike."
        )
    return best[1]


def _sides(group: Group) -> Iterable[Side]:
    """Patterns of a group: without text around {name}, and with all that its names share."""
    own = [stem.rpartition("/")[2].rpartition(":")[2] for stem in group.stems]
    shared = os.path.commonprefix(own)
    ending = os.path.commonprefix([stem[::-1] for stem in own])[::-1]
    # Digits that all names share are part of the names: only whole words are text around them.
    before = shared[: max(shared.rfind(mark) for mark in SEPARATORS) + 1]
    at = min((ending.find(mark) for mark in SEPARATORS if mark in ending), default=len(ending))
    after = ending[at:]
    for start, end in (("", ""), (before, ""), ("", after), (before, after)):
        slash = "/" if group.folder else ""
        pattern = f"{group.folder}{slash}{start}{{name}}{end}{group.suffix}"
        names = {}
        for stem, path in group.stems.items():
            inner, deeper, last = stem.rpartition("/")
            split, colon, last = last.rpartition(":")
            if len(last) > len(start) + len(end):
                names[inner + deeper + split + colon + last[len(start) : len(last) - len(end)]] = (
                    path
                )
        yield Side(pattern, names)
