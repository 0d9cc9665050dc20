"""Drafting: what params.yaml could say of a folder of images and masks, with reasons as comments.

A draft is a guess from file names, headers and some masks. It is printed and never written.
"""

import functools
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from madan import folders, layouts, masks, plausibility, rasters
from madan.labels import BY_COLOUR, CLASSES, IGNORE, UNKNOWN
from madan.layouts import LAYOUTS, Meaning
from madan.rasters import Unfit
from madan.schema import Dataset, Refusal

SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
READABLE = (".png", ".jpg", ".jpeg", *rasters.FORMATS)
SAMPLE = 16  # files of a group that are opened
DEEPER = 3  # folders below the first, or below {split}, that a pattern may hold
FEW = 64  # values; a picture of more is a photo
NAMES = ("labelmap.txt", "class_names.txt", "classes.txt", "labels.txt")
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


def draft(root: Path) -> str:
    """Draft entries of params.yaml for a folder: YAML, in which comments say what is guessed.

    Refusal where there is no folder, or nothing in it that looks like images and masks.
    """
    if not root.is_dir():
        raise Refusal(f"{root} is no folder; name the folder that holds images and masks.")
    name = re.sub(r"[^a-z0-9]+", "-", root.resolve().name.lower()).strip("-") or "mine"
    for release in LAYOUTS:
        if _is_release(root, release):
            return _of_release(root, release)
    found = _paired(root)
    name = f"{name}-own" if name in LAYOUTS else name
    return _written(root, name, found, _values(root, found.labels))


# --- Which files pair up ------------------------------------------------------------------------


def _is_release(root: Path, release: str) -> bool:
    """Whether a folder has images and labels where a release has them, and such labels."""
    data = _dataset(root, release)
    for split in layouts.splits(data):
        lies, meaning = layouts.form(data, split), layouts.meaning(data, split)
        if not all(folders.parse(root, pattern).folder.is_dir() for pattern in lies[:2]):
            continue
        items = layouts.items(data.model_copy(update={"splits": "all"}), split)
        pairs = [item for item in items if item.image.exists() and item.label.exists()][:3]
        # Others have folders called images and labels too; GTA5's names are numbers.
        if release == "gta5" and not all(re.fullmatch(r"\d{5}", item.name) for item in pairs):
            return False
        try:
            return bool(pairs) and not any(masks.read(i.label, meaning).unknown for i in pairs)
        except Refusal:
            return False
    return False


def _dataset(root: Path, layout: str) -> Dataset:
    return Dataset(
        layout=layout, own=None, root=root, size=(1, 1), shards=1, splits="given", exclude={},
        known_damage="exclude",
    )  # fmt: skip


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
    pixels = _shown(path)
    return len(np.unique(pixels[::2, ::2])) <= FEW


def _shown(path: Path) -> np.ndarray:
    """Colours of a picture as numbers [H, W]; 16 bits by their low byte, which holds ids."""
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
    looks = {stem: _looks_like_mask(path) for stem, path in _some(group.stems)}
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


def _some(stems: Mapping[str, Path]) -> list[tuple[str, Path]]:
    """Some files from all over a group."""
    every = sorted(stems.items())
    return every[:: max(1, len(every) // SAMPLE)][: 2 * SAMPLE]


def _first(stem: str) -> str:
    return re.split(f"[{re.escape(SEPARATORS)}]", stem.rpartition("/")[2])[0]


def _last(stem: str) -> str:
    return re.split(f"[{re.escape(SEPARATORS)}]", stem.rpartition("/")[2])[-1]


def _paired(root: Path) -> Draft:
    """Photos and masks of which most have one name."""
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


# --- What the masks hold -------------------------------------------------------------------------


def _values(root: Path, side: Side) -> list[str]:
    """Find out what the values of some masks mean: lines of a layout, with comments."""
    some = [path for _, path in _some(side.names)]
    names = _class_names(root)
    colours: Counter[int] = Counter()
    ids: Counter[int] = Counter()
    grey = all(rasters.header(path).mode not in ("RGB", "RGBA") for path in some)
    for path in some:
        values, times = np.unique(_shown(path), return_counts=True)
        colours.update(dict(zip(values.tolist(), times.tolist(), strict=True)))
        if grey:
            ids.update(dict(_ids(path)))
    looked = f"# {len(some)} of {len(side.names)} masks were opened."
    return [looked, *(_as_ids(ids, names) if ids else _as_colours(colours, names))]


def _ids(path: Path) -> tuple[tuple[int, int], ...]:
    """Pixels of each id of a mask, read by what it shows."""
    every = Meaning("ids", np.arange(256, dtype=np.uint8))
    try:
        mask = masks.read(path, every)
    except Unfit:
        return ()
    values, times = np.unique(mask.truth, return_counts=True)
    return tuple(zip(values.tolist(), times.tolist(), strict=True))


def _as_ids(ids: Mapping[int, int], names: Mapping[str, str]) -> list[str]:
    """Lines of a layout for masks of ids: a release's ids where all are known, else one by one."""
    pixels = sum(ids.values())
    pairs = list(ids.items())
    by_class: dict[str, list[int]] = defaultdict(list)
    for value in sorted(ids):
        if _class(names.get(str(value), "")):
            by_class[_class(names[str(value)])].append(value)
    if by_class:
        listed = ", ".join(f"{name}: {values}" for name, values in by_class.items())
        rest = sorted(set(ids) - {v for values in by_class.values() for v in values})
        return ["# Ids are named by a list of classes in the folder.", f"ids: {{{listed}}}",
                f"ignore: {rest}  # named otherwise, or not at all"]  # fmt: skip
    fits = []
    for kind, release in plausibility.KINDS_OF_IDS.items():
        table = LAYOUTS[release].table
        if all(table[value] != UNKNOWN for value in ids):
            expected = plausibility.PUBLISHED.get(release, plausibility.PUBLISHED["cityscapes"])
            far = plausibility.shift(plausibility.shares(pairs, table), expected)
            fits.append((far, kind, release))
    if fits:
        far, kind, release = min(fits)
        return [
            f"# All ids are {kind}; read so, {100 * far:.0f} % of pixels are of other classes than",
            "# in published streets. Others that know all ids: "
            + (", ".join(f"{k} ({100 * f:.0f} %)" for f, k, _ in sorted(fits)[1:]) or "none") + ".",
            f"ids: {release}",
        ]  # fmt: skip
    shares = ", ".join(f"{k} ({100 * n / pixels:.3g} %)" for k, n in Counter(ids).most_common(FEW))
    return [
        "# No release has all these ids, so their classes are yours to name:",
        f"#   {shares}",
        "# The names of the classes: " + ", ".join(CLASSES),
        "ids: {}  # such as {road: [1], car: [3, 4]}",
        "ignore: []",
    ]


def _as_colours(colours: Mapping[int, int], names: Mapping[str, str]) -> list[str]:
    """Lines of a layout for masks of colours: by a list of classes, else by Cityscapes' palette."""
    by_class: dict[str, list[list[int]]] = defaultdict(list)
    ignore, rest, by_list = [], [], False
    pixels = sum(colours.values())
    for key, count in sorted(colours.items(), key=lambda pair: -pair[1]):
        rgb = [key >> 16, key >> 8 & 255, key & 255]
        named = _class(names.get(masks.colour(key), ""))
        by_list |= bool(named)
        train_id = BY_COLOUR.get(key, UNKNOWN)
        if named or train_id < len(CLASSES):
            by_class[named or CLASSES[train_id]].append(rgb)
        elif train_id == IGNORE or masks.colour(key) in names:
            ignore.append(rgb)
        else:
            rest.append(f"{masks.colour(key)} ({100 * count / pixels:.3g} %)")
    why = "a list of classes in the folder" if by_list else "Cityscapes' palette"
    listed = ", ".join(f"{name}: {values}" for name, values in by_class.items())
    lines = [f"# Colours are named by {why}.", f"colours: {{{listed}}}", f"ignore: {ignore}"]
    if rest:
        lines += ["# Nothing names these colours; name them above, or ignore them all:"]
        lines += [f"#   {', '.join(rest[:FEW])}", "# otherwise: ignore"]
    return lines


def _class_names(root: Path) -> dict[str, str]:
    """Names by id or by colour from the list that CVAT or labelme writes beside masks, if any."""
    for entry in sorted(folders.walk(root)):
        if os.path.basename(entry.path) in NAMES and not entry.odd and entry.size < 1 << 20:
            lines = Path(entry.path).read_text(encoding="utf-8", errors="replace").splitlines()
            lines = [line.strip() for line in lines if line.strip() and line[0] != "#"]
            coloured = [re.match(r"([^:]+):(\d+),(\d+),(\d+)", line) for line in lines]
            if any(coloured):
                return {f"({m[2]}, {m[3]}, {m[4]})": m[1] for m in coloured if m}
            first = 1 if lines[:1] == ["__ignore__"] else 0  # labelme: the first line is id -1
            return {str(k): line for k, line in enumerate(lines[first:])}
    return {}


def _class(name: str) -> str:
    """The class of that name, however it is written; nothing where there is none."""
    plain = re.sub(r"[^a-z]+", " ", name.lower()).strip()
    return plain if plain in CLASSES else ""


# --- The text ------------------------------------------------------------------------------------


def _of_release(root: Path, release: str) -> str:
    lies = LAYOUTS[release]
    return (
        f"# The folders are those of the {release} release ({lies.tree}).\n"
        "paper:\n"
        "  domains:\n"
        f"    {release}: {{layout: {release}, root: {_quoted(str(root))}, size: [600, 1080]}}\n"
    )


def _written(root: Path, name: str, found: Draft, values: Sequence[str]) -> str:
    """The entries as YAML."""
    images, truths = found.images.names, found.labels.names
    both = images.keys() & truths.keys()
    sizes = Counter(
        rasters.header(images[each]).size for each, _ in _some(dict.fromkeys(both, root))
    )
    (height, width), _ = sizes.most_common(1)[0]
    by_folder = "{split}" in found.images.pattern
    lines = [
        f"# Drafted from {len(images)} images and {len(truths)} masks; {len(both)} pair up.",
        "# It is a guess: read every line, add it to params.yaml, and run madan verify.",
        "layouts:",
        f"  {name}:",
        f"    images: {_quoted(found.images.pattern)}",
        f"    labels: {_quoted(found.labels.pattern)}",
    ]
    if by_folder and found.folders:
        said = ", ".join(f"{split}: {_quoted(each)}" for split, each in found.folders.items())
        lines.append(f"    folders: {{{said}}}")
    lines += [f"    {line}" for line in values]
    lines += [
        '    source: ""  # where it comes from; exports state it',
        '    licence: ""  # its terms; exports state them',
        "paper:",
        "  domains:",
        f"    {name}:",
        f"      layout: {name}",
        f"      root: {_quoted(str(root))}",
        f"      size: [{height}, {width}]  # of most images; training reads images of this size",
    ]
    if not by_folder:
        lines.append("      splits: {train: 0.8, val: 0.2}  # no folder is named like a split")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A string of YAML that is read as it stands."""
    return "'" + text.replace("'", "''") + "'"
