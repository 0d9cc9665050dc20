"""Drafting: what params.yaml could say of a folder of images and masks, with reasons as comments.

A draft is a guess from file names, headers and some masks. It is printed and never written.
"""

import contextlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from madan import folders
from madan.config.data_settings import Dataset
from madan.data import layouts, masks, plausibility, rasters
from madan.data.layouts import LAYOUTS, Meaning
from madan.data.pairing import FEW, Draft, Side, paired, shown, some
from madan.data.rasters import Unfit
from madan.errors import Refusal
from madan.labels import BY_COLOUR, CLASSES, IGNORE, UNKNOWN

NAMES = ("labelmap.txt", "class_names.txt", "classes.txt", "labels.txt")
MACHINE = "obj_class_to_machine_color.json"  # Supervisely's: [id, id, id] of every class


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
    found = paired(root)
    name = f"{name}-own" if name in LAYOUTS else name
    return _written(root, name, found, _values(root, found.labels))


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


# --- What the masks hold -------------------------------------------------------------------------


def _values(root: Path, side: Side) -> list[str]:
    """Find out what the values of some masks mean: lines of a layout, with comments."""
    opened = [path for _, path in some(side.names)]
    names = _class_names(root)
    colours: Counter[int] = Counter()
    ids: Counter[int] = Counter()
    for path in opened:
        values, times = np.unique(shown(path), return_counts=True)
        colours.update(dict(zip(values.tolist(), times.tolist(), strict=True)))
    coloured = any(rasters.header(path).mode in ("RGB", "RGBA") for path in opened)
    grey = all(key >> 16 == key >> 8 & 255 == key & 255 for key in colours)
    if not any(name.startswith("(") for name in names) and (grey or not coloured):
        for path in opened:
            ids.update(dict(_ids(path)))
    looked = f"# {len(opened)} of {len(side.names)} masks were opened."
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
    """Names by id or by colour from the list that CVAT, labelme or Supervisely writes, if any."""
    for entry in sorted(folders.walk(root)):
        name = os.path.basename(entry.path)
        if name not in (*NAMES, MACHINE) or entry.odd or entry.size > 1 << 20:
            continue
        text = Path(entry.path).read_text(encoding="utf-8", errors="replace")
        if name == MACHINE:
            with contextlib.suppress(ValueError, TypeError, IndexError, AttributeError):
                return {str(int(rgb[0])): str(title) for title, rgb in json.loads(text).items()}
            continue
        lines = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]
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
        "scales:\n"
        "  paper:\n"
        "    domains:\n"
        f"      {release}: {{layout: {release}, root: {_quoted(str(root))}, size: [600, 1080]}}\n"
    )


def _written(root: Path, name: str, found: Draft, values: Sequence[str]) -> str:
    """The entries as YAML."""
    images, truths = found.images.names, found.labels.names
    both = images.keys() & truths.keys()
    sizes = Counter(
        rasters.header(images[each]).size for each, _ in some(dict.fromkeys(both, root))
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
        "scales:",
        "  paper:",
        "    domains:",
        f"      {name}:",
        f"        layout: {name}",
        f"        root: {_quoted(str(root))}",
        f"        size: [{height}, {width}]  # of most images; training reads images of this size",
    ]
    if not by_folder:
        lines.append("        splits: {train: 0.8, val: 0.2}  # no folder is named like a split")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A string of YAML that is read as it stands."""
    return json.dumps(text, ensure_ascii=False).encode(errors="backslashreplace").decode()
