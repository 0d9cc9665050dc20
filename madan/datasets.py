"""Datasets: native pairs in, memory-mapped shards of images and train ids out."""

import contextlib
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from madan import labels, layouts
from madan.layouts import UNKNOWN, Item, Values
from madan.schema import Dataset, Refusal

Array = np.ndarray
ORIENTATION = 0x0112  # the EXIF entry that says which way is up


class NotIds(Refusal):
    """A label image of another kind than the layout's."""


class Pair(NamedTuple):
    """Image uint8 [H, W, 3], train ids uint8 [H, W], and the SHA-256 (16 digits) of both files."""

    image: Array
    truth: Array
    digests: tuple[str, str]


def read(item: Item, values: Values, table: labels.Labels) -> Pair:
    """A pair in native size; Refusal when unreadable, of two sizes or with ids not in the table."""
    image, of_image = read_image(item.image)
    truth, of_label = read_label(item.label, values, table)
    if image.shape[:2] != truth.shape:
        raise Refusal(
            f"{item.image} is {image.shape[1]}x{image.shape[0]} but its label {item.label} is "
            f"{truth.shape[1]}x{truth.shape[0]}; replace or remove both: one size is needed."
        )
    if (truth == UNKNOWN).any():
        raise Refusal(f"{item.label} holds ids that its layout does not have; see madan verify.")
    return Pair(image, truth, (of_image, of_label))


def read_image(path: Path) -> tuple[Array, str]:
    """An image as RGB uint8 [H, W, 3], turned upright as its EXIF entry says, and its SHA-256."""
    with _named(path):
        content = path.read_bytes()
        with _checked(content) as opened:
            turned = opened.getexif().get(ORIENTATION, 1) != 1
            upright = ImageOps.exif_transpose(opened) if turned else opened
            coloured = upright if upright.mode == "RGB" else upright.convert("RGB")
            return np.asarray(coloured), _sha(content)


def read_label(path: Path, values: Values, table: labels.Labels) -> tuple[Array, str]:
    """Train ids uint8 [H, W], UNKNOWN where the table has no such id, and the file's SHA-256.

    Raises NotIds for a label image of another kind, Refusal for one that cannot be read.
    """
    with _named(path):
        content = path.read_bytes()
        native = NATIVE_IDS[values](path, content)
    # Ids beyond 255, as 16 bits can hold, are unknown too.
    native = np.minimum(native, len(table)) if native.dtype == np.uint16 else native
    table = np.append(table, np.uint8(UNKNOWN)) if native.dtype == np.uint16 else table
    return labels.look_up(table, native), _sha(content)


def _indices(path: Path, content: bytes) -> Array:
    """Ids of an 8-bit label image: palette indices or grey values, never colours."""
    with _checked(content) as image:
        if image.mode not in ("P", "L"):
            raise NotIds(
                f"{path} is a {image.mode} image, expected 8-bit ids (palette or grey); "
                "take the label images of ids, not those of colours."
            )
        return np.asarray(image)


def _sixteen_bits(path: Path, content: bytes) -> Array:
    """SYNTHIA's class ids: red of a 16-bit PNG, of which Pillow would keep the wrong byte."""
    import cv2

    _checked(content)  # No checksum is wrong, and it is not too large to be true.
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise OSError(f"{path} cannot be decoded")
    if image.dtype != np.uint16 or image.ndim != 3:
        raise NotIds(
            f"{path} has {image.dtype} values of shape {image.shape}, expected a 16-bit "
            "three-channel PNG; download SYNTHIA-RAND-CITYSCAPES again or restore GT/LABELS."
        )
    return np.asarray(image[:, :, 2])


def _colours(path: Path, content: bytes) -> Array:
    """Colours as numbers, red << 16 | green << 8 | blue, int32 [H, W]."""
    with _checked(content) as image:
        if image.mode not in ("RGB", "RGBA", "P"):
            raise NotIds(f"{path} is a {image.mode} image, expected colours; see its layout.")
        red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), np.int32), 2, 0)
    return np.asarray(red << 16 | green << 8 | blue)


NATIVE_IDS: dict[Values, Callable[[Path, bytes], Array]] = {
    "ids": _indices,
    "sixteen bits": _sixteen_bits,
    "colours": _colours,
}


class Verified(NamedTuple):
    """What verify lets through: digests of image and label by name, and reasons of exclusions."""

    pairs: dict[str, tuple[str, str]]
    excluded: dict[str, str]


def prepare(dataset: Dataset, split: str, shard: int, verified: Verified, out: Path) -> None:
    """Write every n-th item from the k-th on (`shard` = k) as two arrays and manifest.json.

    images.npy [N, h, w, 3] uint8 at the dataset's size; labels.npy [N, h, w] uint8 train ids at
    that size for the train split, elsewhere at native size, padded with IGNORE where sizes differ.
    Excluded items leave gaps. Refusal when a file is not what was verified.
    """
    names = sorted({*verified.pairs, *verified.excluded})[shard :: dataset.shards]
    chosen = [layouts.item(dataset, split, name) for name in names if name in verified.pairs]
    if not chosen:
        raise Refusal(
            f"{dataset.root} has fewer {split} images than the {dataset.shards} shards of "
            "params.yaml; ask for fewer."
        )
    height, width = dataset.size
    values, table = layouts.form(dataset, split).values, layouts.of(dataset).table
    sizes = [dataset.size if split == "train" else _native_size(item) for item in chosen]
    padded = tuple(max(extents) for extents in zip(*sizes, strict=True))
    pixels = np.zeros(256, np.int64)
    entries = []
    with (
        array(out / "images.npy", (len(chosen), height, width, 3)) as add_image,
        array(out / "labels.npy", (len(chosen), *padded)) as add_label,
    ):
        for item, (h, w) in zip(chosen, sizes, strict=True):
            image, truth, digests = read(item, values, table)
            if digests != verified.pairs[item.name]:
                raise Refusal(
                    f"{item.image} or {item.label} changed since it was verified: "
                    f"madan verify {item.image.parent} and run snakemake again."
                )
            add_image(_resized(image, (height, width), Image.Resampling.BICUBIC))
            label = np.full(padded, labels.IGNORE, np.uint8)
            label[:h, :w] = _resized(truth, (h, w), Image.Resampling.NEAREST)
            add_label(label)
            pixels += np.bincount(label.ravel(), minlength=256)
            of_image, of_label = digests
            entries.append(
                {"name": item.name, "size": [h, w], "image": of_image, "label": of_label}
            )
    manifest = {
        "items": entries,
        "excluded": {name: verified.excluded[name] for name in names if name in verified.excluded},
        "pixels": pixels[: len(labels.CLASSES)].tolist(),
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1))


@contextlib.contextmanager
def array(path: Path, shape: tuple[int, ...]) -> Iterator[Callable[[Array], object]]:
    """A uint8 .npy file of this shape, to which the block adds rows in order.

    Written as a stream: on a full disk that is an error, where a memory map would kill the process.
    """
    with path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield lambda rows: file.write(np.ascontiguousarray(rows, np.uint8).data)


class ImageSet(Protocol):
    """Images [h, w, 3] uint8 with train ids [H, W] uint8, as prediction reads them."""

    def __len__(self) -> int:
        """Count the images."""

    def image(self, index: int) -> Array:
        """Return an image [h, w, 3] uint8."""

    def label(self, index: int) -> Array:
        """Return train ids [H, W] uint8."""


class TrainingSet(ImageSet, Protocol):
    """An image set as training reads it: by name, by shard, and with the pixels of each class."""

    name: str

    def pixels(self) -> Array:
        """Return the labelled pixels of each class, int64 [19]."""

    @property
    def shards(self) -> list[Array]:
        """The images [N, h, w, 3] of every shard."""


class Pictures:
    """Images [h, w, 3] uint8 of a domain and, only where `labels` are given, their train ids."""

    def __init__(self, name: str, images: Sequence[Path], labels: Sequence[Path] = ()):
        self.name = name
        self._images = [_open(folder / "images.npy") for folder in images]
        self._labels = [_open(folder / "labels.npy") for folder in labels]
        self._manifests = [_manifest(folder) for folder in labels]
        self._rows = [(s, r) for s, shard in enumerate(self._images) for r in range(len(shard))]

    def __len__(self) -> int:
        """Count the images."""
        return len(self._rows)

    def image(self, index: int) -> Array:
        """Image [h, w, 3] uint8."""
        shard, row = self._rows[index]
        return self._images[shard][row]

    def label(self, index: int) -> Array:
        """Train ids [H, W] uint8, without padding."""
        shard, row = self._rows[index]
        height, width = self._manifests[shard]["items"][row]["size"]
        return self._labels[shard][row, :height, :width]

    def called(self, index: int) -> str:
        """Name of the image in its dataset, of labelled pictures."""
        shard, row = self._rows[index]
        return layouts.inside(str(self._manifests[shard]["items"][row]["name"]))

    def pixels(self) -> Array:
        """Labelled pixels of each class, int64 [19]."""
        return np.sum([manifest["pixels"] for manifest in self._manifests], axis=0)

    @property
    def shards(self) -> list[Array]:
        """The memory-mapped images [N, h, w, 3] of every shard."""
        return self._images


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn a decoder's error into a sentence that names the file."""
    try:
        yield
    except (Refusal, MemoryError):
        raise
    except Exception as error:  # Of a damaged file decoders raise whatever the bytes lead to.
        # Pillow's own words for this name a place in memory, so no two runs agree.
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "of no known kind" if unknown else error
        raise Refusal(
            f"{path} cannot be read as an image ({reason}): it is damaged or cut short; "
            "download or extract it again."
        ) from None


def _checked(content: bytes) -> Image.Image:
    """The image, after its checksums, which Pillow leaves out when it reads the pixels."""
    with Image.open(io.BytesIO(content)) as image:
        image.verify()
    return Image.open(io.BytesIO(content))


def _native_size(item: Item) -> tuple[int, int]:
    with _named(item.label), Image.open(item.label) as opened:
        return opened.height, opened.width


def _resized(image: Array, size: tuple[int, int], how: Image.Resampling) -> Array:
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), how))


def _open(path: Path) -> Array:
    try:
        return np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise Refusal(f"{path} not found: make it with snakemake {path.parent}/digest") from None
    except (ValueError, EOFError) as error:
        raise Refusal(f"{path} is damaged ({error}): delete {path.parent} and run again.") from None


def _manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        return {"items": manifest["items"], "pixels": np.array(manifest["pixels"], np.int64)}
    except FileNotFoundError:
        raise Refusal(f"{path} not found: make it with snakemake {folder}/digest") from None
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(f"{path} is damaged ({error}): delete {folder} and run again.") from None


def _sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
