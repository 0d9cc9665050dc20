"""The native formats: the miniature world, laid out as the datasets' own releases are.

What is drawn for the paper's sources and target goes to disk in the layouts of GTA5, SYNTHIA,
Cityscapes and BDD100K, or of what else is read, so that the same readers serve both scales.
"""

import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat
from scipy.ndimage import label as components

from madan import labels
from madan.data.layouts import LAYOUTS, Form
from madan.miniature import world
from madan.miniature.world import Image8

TARGET = "cityscapes"  # Layouts without a domain of their own show other scenes of this one.
EGO_VEHICLE = 1  # the Cityscapes label id of the camera's own car

# A split's invented cities, as real splits share no city either.
CITIES = {
    "train": ("altenbruck", "lindenau", "moosheim"),
    "val": ("birkental", "seefurt"),
    "test": ("kranichstadt", "weidenhall"),
}
SEQUENCES = {"train": "0006R0", "val": "0016E5", "test": "Seq05VD"}


def write(
    layout: str,
    root: Path,
    *,
    images: Mapping[str, int],
    size: tuple[int, int],
    seed: int,
    form: Form | None = None,
    look: str | None = None,
) -> None:
    """Write a release's layout, in one of its forms, with so many images a split; replaces `root`.

    Another domain's `look` changes the colours of the same scenes, never their labels.

    `root` appears when all is written: a failure leaves it as it was. Raises ValueError as
    `world.draw` does, and for an unknown layout and a negative number of images.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"There is no layout {layout!r}; the layouts are {', '.join(LAYOUTS)}.")
    domain = layout if layout in world.CONTENTS else TARGET
    for split, count in ({"train": 0} | dict(images)).items():
        world.check(domain, split, seed, size)
        if count < 0:
            raise ValueError(f"{layout} cannot have {count} images in its split {split!r}.")
    if domain != layout:
        seed += zlib.crc32(layout.encode())
    root = Path(root)
    root.parent.mkdir(parents=True, exist_ok=True)
    # In an empty folder, since whoever made it also removes what a killed process left in it.
    inside = root.is_dir() and not root.is_symlink() and not any(root.iterdir())
    place = root if inside else root.parent
    with tempfile.TemporaryDirectory(dir=place, prefix=f".{root.name}-") as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        for split, count in images.items():
            for index in range(count):
                pair = world.draw(domain, split, index, seed=seed, size=size, look=look)
                name = NAMES[layout](split, index, images)
                _save(layout, form or LAYOUTS[layout].forms[0], fresh, split, name, *pair)
        if layout == "gta5":
            _save_lists(fresh, images)
        if inside:
            for path in fresh.iterdir():
                path.rename(root / path.name)
            return
        if root.exists():
            root.rename(Path(scratch) / "replaced")
        fresh.rename(root)


def native_ids(layout: str) -> Image8:
    """Invert a label table: uint8 [256] from train id to the smallest native id that maps to it.

    Classes that the layout does not have are ignored pixels.
    """
    found, smallest = np.unique(LAYOUTS[layout].table, return_index=True)
    native = np.full(256, smallest[found == labels.IGNORE], dtype=np.uint8)
    native[found] = smallest
    return native


# --- Names: of a split, an index and the numbers of images -------------------------------------


def _number(split: str, index: int, images: Mapping[str, int]) -> str:
    """GTA5's numbers run on from split to split."""
    order = world.SPLITS["gta5"]
    return f"{1 + index + sum(images.get(s, 0) for s in order[: order.index(split)]):05d}"


def _of_city(split: str, index: int, images: Mapping[str, int]) -> str:
    cities = CITIES[split]
    city = cities[index % len(cities)]
    return f"{city}/{city}_{index // len(cities):06d}_000019"


def _of_drive(split: str, index: int, images: Mapping[str, int]) -> str:
    return f"{index:08x}-{zlib.crc32(split.encode()):08x}"


NAMES: dict[str, Callable[[str, int, Mapping[str, int]], str]] = {
    "gta5": _number,
    "synthia": lambda split, index, images: f"{index:07d}",
    "cityscapes": _of_city,
    "bdd100k": _of_drive,
    "camvid": lambda split, index, images: f"{SEQUENCES[split]}_f{index:05d}",
}


# --- Files -----------------------------------------------------------------------------------


def _save(
    layout: str, form: Form, root: Path, split: str, name: str, image: Image8, train_ids: Image8
) -> None:
    """Write one pair, and what the release has beside it."""
    image_path, label_path = (
        root / pattern.replace("{split}", split).replace("{name}", name) for pattern in form[:2]
    )
    for path in (image_path, label_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    # Pixels of PNGs are exact, those of JPEGs only as good as this.
    Image.fromarray(image).save(image_path, quality=95)
    native = native_ids(layout)
    if layout == "cityscapes":
        native[labels.IGNORE] = EGO_VEHICLE
    if form.values == "sixteen bits":
        _save_sixteen_bits(label_path, native[train_ids], _instances(train_ids))
    else:
        label = Image.fromarray(native[train_ids])
        if layout == "gta5":
            label.putpalette(labels.colour(labels.TABLES["gta5"]).tobytes())
        label.save(label_path)
    if layout == "synthia":
        path = root / "GT" / "COLOR" / f"{name}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(labels.colour(train_ids)).save(path)


def _save_sixteen_bits(path: Path, ids: Image8, instances: NDArray[np.int32]) -> None:
    """Write SYNTHIA's labels: channel 0 of the file is the class, channel 1 the instance."""
    planes = np.zeros((*ids.shape, 3), dtype=np.uint16)
    planes[..., 2], planes[..., 1] = ids, instances  # cv2 writes its last channel first.
    if not cv2.imwrite(str(path), planes):
        raise OSError(f"cv2 could not write {path}.")


def _instances(train_ids: Image8) -> NDArray[np.int32]:
    """Number the connected regions of every class that can be counted, from person on."""
    numbers = np.zeros(train_ids.shape, dtype=np.int32)
    for train_id in range(labels.CLASSES.index("person"), len(labels.CLASSES)):
        found, count = components(train_ids == train_id)
        numbers[found > 0] = found[found > 0] + numbers.max()
    return numbers


def _save_lists(root: Path, images: Mapping[str, int]) -> None:
    """Write GTA5's split.mat and mapping.mat, in which scipy notes the hour: that is taken out."""
    splits = world.SPLITS["gta5"]
    ends = np.cumsum([images.get(split, 0) for split in splits])
    numbers = np.arange(1, 1 + ends[-1])[:, None]
    lists = {
        f"{split}Ids": part
        for split, part in zip(splits, np.split(numbers, ends[:-1]), strict=True)
    }
    classes = np.array(_names("gta5"), dtype=object)
    for name, content in (("split.mat", lists), ("mapping.mat", {"classes": classes})):
        savemat(root / name, content)
        with (root / name).open("r+b") as file:
            file.write(b"MATLAB 5.0 MAT-file".ljust(116))


def _names(layout: str) -> list[str]:
    """Name a layout's native ids, as far as they have a class."""
    table = labels.TABLES[layout]
    known = 1 + int(np.flatnonzero(table != labels.IGNORE).max())
    return [
        labels.CLASSES[train_id] if train_id != labels.IGNORE else "unlabelled"
        for train_id in table[:known].tolist()
    ]
