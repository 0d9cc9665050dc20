"""What goes wrong with datasets, done on purpose to the files of a small one."""

import functools
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import encoders
import numpy as np
from conftest import dataset
from PIL import Image

from madan import labels
from madan.config.data_settings import Dataset, Layout
from madan.data import layouts, rasters
from madan.data.layouts import LAYOUTS, UNKNOWN, Item, Values
from madan.miniature import writer

SIZE = (32, 64)
ROAD = 0
OWN = Layout(
    images="photos/{split}/{name}.jpg",
    labels="masks/{split}/{name}.png",
    colours={name: [tuple(labels.PALETTE[k].tolist())] for k, name in enumerate(labels.CLASSES)},
    ignore=[(0, 0, 0)],
)
EVERY = [*LAYOUTS, "mine"]


def small(layout: str, root: Path, **images: int) -> Dataset:
    """A whole dataset of that many images a split; `mine` is one's own, with labels in colours."""
    if layout != "mine":
        writer.write(layout, root, images=images, size=SIZE, seed=0)
        return dataset(layout, root)
    form = LAYOUTS["bdd100k"].forms[1]
    writer.write("bdd100k", root, images=images, size=SIZE, seed=0, form=form)
    for split in images:
        (root / "photos").mkdir(exist_ok=True)
        (root / "images" / split).rename(root / "photos" / split)
        for path in (root / "labels" / split).iterdir():
            with Image.open(path) as ids:
                coloured = Image.fromarray(labels.colour(np.asarray(ids)))
            mask = root / "masks" / split / path.name.replace("_train_id", "")
            mask.parent.mkdir(parents=True, exist_ok=True)
            coloured.save(mask)
    shutil.rmtree(root / "labels")
    return dataset("mine", root, own=OWN)


def copy(data: Dataset, root: Path) -> Dataset:
    """The same dataset at another place, where it may be damaged."""
    shutil.copytree(data.root, root, symlinks=True)
    return data.model_copy(update={"root": root})


# --- Label images, written as the layout's are -------------------------------------------------


@functools.cache
def native_of(layout: str, train_id: int) -> int:
    """The smallest id, or colour as a number, that means this train id (or IGNORE, or UNKNOWN)."""
    own = OWN if layout == "mine" else None
    return int((layouts.of(dataset(layout, Path(), own=own)).table == train_id).argmax())


def save_native(path: Path, values: Values, ids: np.ndarray) -> None:
    """Write native ids [h, w] (as colours: numbers red << 16 | green << 8 | blue)."""
    if values == "ids":
        Image.fromarray(ids.astype(np.uint8)).save(path)
    elif values == "colours":
        Image.fromarray(np.stack([ids >> 16, ids >> 8, ids], 2).astype(np.uint8)).save(path)
    else:
        planes = np.zeros((*ids.shape, 3), np.uint16)
        planes[..., 2] = ids
        assert cv2.imwrite(str(path), planes)


def constant(path: Path, data: Dataset, train_id: int, *others: int) -> None:
    """Replace a label by one of a single class, but for the first pixels."""
    ids = np.full(SIZE, native_of(data.layout, train_id))
    for column, other in enumerate(others):
        ids[0, column] = native_of(data.layout, other)
    save_native(path, layouts.form(data, "train").values, ids)


def write_png(path: Path, rows: list[bytes], size: tuple[int, int], depth: int, colour: int):
    """A PNG of size (w, h) with these rows of bytes, written without any library that reads it."""
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row for row in rows)),
        b"IEND": b"",
    }
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
            for kind, data in chunks.items()
        )
    )


# --- Damage to one file ----------------------------------------------------------------------


class Damage(NamedTuple):
    """What is done to a file, what verify calls it, and whether a file's header tells."""

    do: Callable[[Path, Dataset], object]
    kind: str
    shallow: bool = True


def cut(path: Path, data: Dataset) -> None:
    """Leave the header and some of the pixels."""
    content = path.read_bytes()
    pixels = content.index(b"IDAT" if path.suffix == ".png" else b"\xff\xda")
    path.write_bytes(content[: (2 * pixels + len(content)) // 3])


def flip(path: Path, data: Dataset) -> None:
    """Change one bit of the pixels of a PNG; a JPEG, which has no checksums, loses its end."""
    content = bytearray(path.read_bytes())
    if path.suffix == ".png":
        content[(content.index(b"IDAT") + len(content)) // 2] ^= 1
    path.write_bytes(content if path.suffix == ".png" else content[:-60])


def bomb(path: Path, data: Dataset) -> None:
    write_png(path, [b"\0" * 99], (40_000, 40_000), 8, 2)


def loosen(path: Path, data: Dataset) -> None:
    path.unlink()
    path.symlink_to("gone.png")


def rename(path: Path, data: Dataset) -> None:
    """Leave a file under the suffix that a camera or another system gives it."""
    path.rename(path.with_suffix({".png": ".tif", ".jpg": ".jpeg"}[path.suffix]))


def paint(path: Path, data: Dataset) -> None:
    with Image.open(path) as image:
        size = image.size
    Image.new("RGB", size, (255, 255, 255)).save(path)


def rotate(path: Path, data: Dataset) -> None:
    """Lay an image on its side, as a camera does that notes how it was held."""
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.load()
    image.transpose(Image.Transpose.ROTATE_90).save(path, exif=exif, quality=95)


def shrink(path: Path, data: Dataset) -> None:
    save_native(
        path, layouts.form(data, "train").values, np.full((16, 32), native_of(data.layout, ROAD))
    )


def misuse(path: Path, data: Dataset) -> None:
    """Put a label image of another kind there: colours for ids, 8 bits for colours or for 16."""
    ids = layouts.form(data, "train").values == "ids"
    Image.new("RGB" if ids else "L", SIZE[::-1]).save(path)


def page(path: Path, data: Dataset) -> None:
    path.write_text("<html>Sign in to download</html>")


def grey(path: Path, data: Dataset) -> None:
    with Image.open(path) as image:
        image.load()
    image.convert("L").save(path)


def pipe(path: Path, data: Dataset) -> None:
    path.unlink()
    os.mkfifo(path)


def postscript(path: Path, data: Dataset) -> None:
    """A program for Ghostscript under an image's name."""
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 32\nshowpage\n%%EOF\n")


def twelve_bits(path: Path, data: Dataset) -> None:
    encoders.png(path, np.arange(SIZE[0] * SIZE[1]).reshape(SIZE), 16, encoders.GREY)


def turn_alone(path: Path, data: Dataset) -> None:
    """Turn it upside down and note it, in this file alone."""
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(path) as image:
        image.load()
    image.transpose(Image.Transpose.ROTATE_180).save(path, exif=exif, quality=95)


def swell(path: Path, data: Dataset) -> None:
    with path.open("ab") as file:
        file.truncate(rasters.BYTES + 1)


IMAGES = {
    "a pipe": Damage(pipe, "not a file"),
    "a gigabyte of nothing": Damage(swell, "too large"),
    "PostScript": Damage(postscript, "unreadable"),
    "twelve bits": Damage(twelve_bits, "bit depth", shallow=False),
    "turned alone": Damage(turn_alone, "one turned"),
    "gone": Damage(lambda path, data: path.unlink(), "no image"),
    "empty": Damage(lambda path, data: path.write_bytes(b""), "unreadable"),
    "a page of the server": Damage(page, "unreadable"),
    "cut short": Damage(cut, "unreadable", shallow=False),
    "a wrong bit": Damage(flip, "unreadable", shallow=False),
    "a bomb": Damage(bomb, "unreadable"),
    "a dead link": Damage(loosen, "dead link"),
    "another suffix": Damage(rename, "no image"),
    "one colour": Damage(paint, "one colour", shallow=False),
    "rotated": Damage(rotate, "rotated", shallow=False),
    "grey": Damage(grey, ""),
}
LABELS = {
    "a pipe": Damage(pipe, "not a file"),
    "PostScript": Damage(postscript, "unreadable"),
    "gone": Damage(lambda path, data: path.unlink(), "no label"),
    "empty": Damage(lambda path, data: path.write_bytes(b""), "unreadable"),
    "a page of the server": Damage(page, "unreadable"),
    "cut short": Damage(cut, "unreadable", shallow=False),
    "a wrong bit": Damage(flip, "unreadable", shallow=False),
    "a bomb": Damage(bomb, "unreadable"),
    "a dead link": Damage(loosen, "dead link"),
    "another suffix": Damage(rename, "no label"),
    "smaller": Damage(shrink, "two sizes"),
    "another kind": Damage(misuse, "not ids"),
    "an unknown id": Damage(
        lambda path, data: constant(path, data, ROAD, UNKNOWN), "unknown ids", shallow=False
    ),
    "blank": Damage(
        lambda path, data: constant(path, data, labels.IGNORE), "blank label", shallow=False
    ),
    "one class": Damage(
        lambda path, data: constant(path, data, ROAD, labels.IGNORE), "one class", shallow=False
    ),
}


# --- Damage to a pair ------------------------------------------------------------------------


def resize(item: Item, data: Dataset, size: tuple[int, int] = (24, 40)) -> None:
    """Give image and label another size (h, w)."""
    with Image.open(item.image) as image:
        image.resize(size[::-1]).save(item.image)
    ids = np.full(size, native_of(data.layout, ROAD))
    ids[:4] = native_of(data.layout, labels.CLASSES.index("car"))
    save_native(item.label, layouts.form(data, "train").values, ids)


def renumber(data: Dataset, split: str, numbers: dict[str, str]) -> None:
    """Give pairs other names."""
    for old, new in numbers.items():
        before, after = (layouts.item(data, split, name) for name in (old, new))
        for here, there in zip(before.files, after.files, strict=True):
            there.parent.mkdir(parents=True, exist_ok=True)
            here.rename(there)
