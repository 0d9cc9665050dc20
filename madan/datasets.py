"""Datasets: native layouts in, memory-mapped shards of images and train ids out.

Layouts follow the datasets' own releases: GTA5 (Richter et al. 2016), SYNTHIA-RAND-CITYSCAPES
(Ros et al. 2016), Cityscapes (Cordts et al. 2016).
"""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from madan import labels
from madan.config import Refusal

Array = np.ndarray


class Item(NamedTuple):
    """One image of a dataset and its label image."""

    name: str
    image: Path
    label: Path


class Layout(NamedTuple):
    """How a dataset lies on disk: its pairs of a split, and how native ids are read."""

    items: Callable[[Path, str], list[Item]]
    native_ids: Callable[[Path], Array]


def _gta5_items(root: Path, split: str) -> list[Item]:
    from scipy.io import loadmat

    split_file = root / "split.mat"
    _expect(split_file, "the split of the GTA5 release")
    try:
        numbers = loadmat(split_file)[f"{split}Ids"].ravel()
    except Exception as error:  # Of a damaged file scipy raises whatever the bytes lead to.
        raise Refusal(
            f"{split_file} is damaged or lacks {split}Ids ({error}); "
            "take it from the GTA5 release again."
        ) from None
    names = [f"{int(number):05d}" for number in numbers]
    return [Item(n, root / "images" / f"{n}.png", root / "labels" / f"{n}.png") for n in names]


def _synthia_items(root: Path, split: str) -> list[Item]:
    if split != "train":
        raise Refusal(f"{root} is a SYNTHIA folder, which has no {split} split; use train.")
    images, truths = root / "RGB", root / "GT" / "LABELS"
    names = sorted({*_listing(images, "*", ".png"), *_listing(truths, "*", ".png")})
    return [Item(n, images / f"{n}.png", truths / f"{n}.png") for n in names]


def _cityscapes_items(root: Path, split: str) -> list[Item]:
    images, truths = root / "leftImg8bit" / split, root / "gtFine" / split
    of_image, of_truth = "_leftImg8bit.png", "_gtFine_labelIds.png"
    names = sorted({*_listing(images, "*/*", of_image), *_listing(truths, "*/*", of_truth)})
    return [Item(n, images / f"{n}{of_image}", truths / f"{n}{of_truth}") for n in names]


def _indices(path: Path) -> Array:
    """Ids of an 8-bit label image: palette indices or grey values, never colours."""
    with _checked(path) as image:
        if image.mode not in ("P", "L"):
            raise Refusal(
                f"{path} is a {image.mode} image, expected 8-bit ids (palette or grey); "
                "take the label images of ids, not those of colours."
            )
        return np.asarray(image)


def _sixteen_bits(path: Path) -> Array:
    """SYNTHIA's class ids: red of a 16-bit PNG, of which Pillow would keep the wrong byte."""
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise OSError(f"{path} cannot be decoded")
    if image.dtype != np.uint16 or image.ndim != 3:
        raise Refusal(
            f"{path} has {image.dtype} values of shape {image.shape}, expected a 16-bit "
            "three-channel PNG; download SYNTHIA-RAND-CITYSCAPES again or restore GT/LABELS."
        )
    return np.asarray(image[:, :, 2])


LAYOUTS = {
    "gta5": Layout(_gta5_items, _indices),
    "synthia": Layout(_synthia_items, _sixteen_bits),
    "cityscapes": Layout(_cityscapes_items, _indices),
}


def items(layout: str, root: Path, split: str) -> list[Item]:
    """The pairs of a split, by name; Refusal when a folder, an image or a label is missing."""
    _expect(root, f"a folder in the {layout} layout")
    found = LAYOUTS[layout].items(root, split)
    if not found:
        raise Refusal(
            f"{root} holds no image of the {split} split; see docs/data.md for its layout."
        )
    for item in found:
        _expect(item.image, f"the image of label {item.label}")
        _expect(item.label, f"the label of image {item.image}")
    return found


def read(layout: str, item: Item) -> tuple[Array, Array]:
    """Image uint8 [H, W, 3] and train ids uint8 [H, W]; Refusal when unreadable or of two sizes."""
    with _named(item.image), _checked(item.image) as opened:
        image = np.asarray(opened.convert("RGB"))
    with _named(item.label):
        native = LAYOUTS[layout].native_ids(item.label)
    if image.shape[:2] != native.shape:
        raise Refusal(
            f"{item.image} is {image.shape[1]}x{image.shape[0]} but its label {item.label} is "
            f"{native.shape[1]}x{native.shape[0]}; replace or remove both: one size is needed."
        )
    try:
        return image, labels.to_train_ids(native, layout)
    except ValueError as error:
        raise Refusal(f"{item.label} is no {layout} label: {error}") from None


def prepare(
    layout: str, root: Path, split: str, size: tuple[int, int], shard: tuple[int, int], out: Path
) -> None:
    """Write every n-th item from the k-th on (`shard` = k, n) as two arrays and manifest.json.

    images.npy [N, h, w, 3] uint8 at `size`; labels.npy [N, h, w] uint8 train ids at `size` for the
    train split, elsewhere at native resolution, padded with IGNORE where sizes differ.
    """
    k, n = shard
    chosen = items(layout, root, split)[k::n]
    if not chosen:
        raise Refusal(
            f"{root} has fewer {split} images than the {n} shards asked for; ask for fewer."
        )
    height, width = size
    sizes = [size if split == "train" else _native_size(item) for item in chosen]
    padded = tuple(max(extents) for extents in zip(*sizes, strict=True))
    pixels = np.zeros(256, np.int64)
    entries = []
    with (
        array(out / "images.npy", (len(chosen), height, width, 3)) as add_image,
        array(out / "labels.npy", (len(chosen), *padded)) as add_label,
    ):
        for item, (h, w) in zip(chosen, sizes, strict=True):
            image, truth = read(layout, item)
            add_image(_resized(image, (height, width), Image.Resampling.BICUBIC))
            label = np.full(padded, labels.IGNORE, np.uint8)
            label[:h, :w] = _resized(truth, (h, w), Image.Resampling.NEAREST)
            add_label(label)
            pixels += np.bincount(label.ravel(), minlength=256)
            digests = {"image": _sha(item.image), "label": _sha(item.label)}
            entries.append({"name": item.name, "size": [h, w], **digests})
    manifest = {"items": entries, "pixels": pixels[: len(labels.CLASSES)].tolist()}
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

    def pixels(self) -> Array:
        """Labelled pixels of each class, int64 [19]."""
        return np.sum([manifest["pixels"] for manifest in self._manifests], axis=0)

    @property
    def shards(self) -> list[Array]:
        """The memory-mapped images [N, h, w, 3] of every shard."""
        return self._images


def _listing(folder: Path, stem: str, suffix: str) -> list[str]:
    """Names below a folder that match stem + suffix, without the suffix."""
    _expect(folder, "a folder of images")
    found = folder.glob(stem + suffix)
    return [str(path.relative_to(folder)).removesuffix(suffix) for path in found]


def _expect(path: Path, what: str) -> None:
    if not path.exists():
        raise Refusal(
            f"{path} not found, expected {what}; put it there or mend domains in params.yaml."
        )


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn a decoder's error into a sentence that names the file."""
    try:
        yield
    except (OSError, SyntaxError, ValueError) as error:
        raise Refusal(
            f"{path} cannot be read as an image ({error}): it is damaged or cut short; "
            "download or extract it again."
        ) from None


def _checked(path: Path) -> Image.Image:
    """The image, after its checksums, which Pillow leaves out when it reads the pixels."""
    with Image.open(path) as image:
        image.verify()
    return Image.open(path)


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


def _sha(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
