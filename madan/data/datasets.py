"""Datasets: native pairs in, memory-mapped shards of images and train ids out."""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image

from madan import labels
from madan.config.data_settings import Dataset
from madan.data import layouts, masks, rasters
from madan.data.layouts import Item, Meaning
from madan.data.masks import Mask
from madan.data.rasters import ON_ITS_SIDE, Array, Photo, Unfit
from madan.errors import Refusal


class Pair(NamedTuple):
    """Image uint8 [H, W, 3], train ids uint8 [H, W], and the SHA-256 (16 digits) of both files."""

    image: Array
    truth: Array
    digests: tuple[str, str]


def read(item: Item, meaning: Meaning) -> Pair:
    """A pair in native size, upright; Refusal when unreadable, of two sizes or with unknown ids."""
    photo, mask = rasters.photo(item.image), masks.read(item.label, meaning)
    truth = fitted(item, photo, mask)
    if mask.unknown:
        raise Refusal(f"{item.label} holds ids that its layout does not have; see madan verify.")
    return Pair(photo.pixels, truth, (photo.digest, mask.digest))


def read_image(path: Path) -> tuple[Array, str]:
    """An image as RGB uint8 [H, W, 3], turned upright as its EXIF entry says, and its SHA-256."""
    photo = rasters.photo(path)
    return photo.pixels, photo.digest


def image_as_labelled(item: Item) -> tuple[Array, str]:
    """The image of a pair as its label lies, which may be unturned, and its SHA-256.

    A copy of the label beside these pixels needs no EXIF entry.
    """
    photo, label = rasters.photo(item.image), rasters.header(item.label)
    height, width = photo.pixels.shape[:2]
    if (
        photo.turn >= ON_ITS_SIDE
        and label.turn == 1
        and label.size == (width, height) != (height, width)
    ):
        back = {6: 8, 8: 6}.get(photo.turn, photo.turn)
        return rasters.upright(photo.pixels, back), photo.digest
    return photo.pixels, photo.digest


def fitted(item: Item, photo: Photo, mask: Mask) -> Array:
    """The train ids of a mask, turned as its photo is; Unfit where that cannot be known.

    EXIF entries turn image and label alike. Where only one of them has such an entry, the sizes say
    whether the label was drawn on the turned image; where both are possible, the pair is refused.
    """
    truth, size = mask.truth, photo.pixels.shape[:2]
    sizes = fit(item, size, truth.shape, photo.turn, mask.turn)
    return rasters.upright(truth, photo.turn) if sizes == "turn" else truth


def fit(item: Item, image: tuple[int, ...], label: tuple[int, ...], turn: int, own: int) -> str:
    """Compare sizes [h, w] of image and label, upright, and their EXIF orientations.

    "turn" where the label has to be turned as its image was, else "". Raises Unfit for two sizes
    and where sizes and orientations leave open which way is up.
    """
    on_its_side = turn >= ON_ITS_SIDE or own >= ON_ITS_SIDE
    size_says = on_its_side and image[0] != image[1]
    if turn != own and 1 in (turn, own) and image == label and not size_says:
        which, other = ("image", "label") if own == 1 else ("label", "image")
        raise Unfit(
            "one turned",
            f"{item.image} and its label {item.label}: the EXIF entry of the {which} turns it "
            f"(orientation {max(turn, own)}), the {other} has none, and their sizes do not say "
            "whether it is turned already; save both upright, without the entry.",
        )
    if image == label:
        return ""
    if turn >= ON_ITS_SIDE and own == 1 and label == image[::-1]:
        return "turn"
    turned = "; one of them is turned by 90 degrees" if label == image[::-1] else ""
    raise Unfit(
        "two sizes",
        f"{item.image} is {image[1]}x{image[0]} but its label {item.label} is "
        f"{label[1]}x{label[0]}{turned}; replace both, or move both away: one size is needed.",
    )


class Verified(NamedTuple):
    """What verify lets through: digests of image and label by name, and reasons of exclusions.

    In a split without labels the digest of every label is empty.
    """

    pairs: dict[str, tuple[str, str]]
    excluded: dict[str, str]

    @property
    def labelled(self) -> bool:
        """Whether the images have labels."""
        return any(label for _, label in self.pairs.values())


def prepare(dataset: Dataset, split: str, shard: int, verified: Verified, out: Path) -> None:
    """Write every n-th item from the k-th on (`shard` = k) as two arrays and manifest.json.

    images.npy [N, h, w, 3] uint8 at the dataset's size; labels.npy [N, h, w] uint8 train ids at
    that size for the train split, elsewhere at native size, padded with IGNORE where sizes differ.
    Excluded items leave gaps. Refusal when a file is not what was verified.
    """
    chosen, excluded = _of_shard(dataset, split, shard, verified)
    height, width = dataset.size
    meaning = layouts.meaning(dataset, split)
    sizes = [dataset.size if split == "train" else _native_size(i, meaning) for i in chosen]
    padded = tuple(max(extents) for extents in zip(*sizes, strict=True))
    pixels = np.zeros(256, np.int64)
    entries = []
    with (
        array(out / "images.npy", (len(chosen), height, width, 3)) as add_image,
        array(out / "labels.npy", (len(chosen), *padded)) as add_label,
    ):
        for item, (h, w) in zip(chosen, sizes, strict=True):
            image, truth, digests = read(item, meaning)
            if digests != verified.pairs[item.name]:
                raise Refusal(
                    f"{item.image} or {item.label} changed since it was verified: run madan "
                    "verify and then snakemake again."
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
        "excluded": excluded,
        "pixels": pixels[: len(labels.CLASSES)].tolist(),
    }
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1))


def prepare_images(dataset: Dataset, split: str, shard: int, verified: Verified, out: Path) -> None:
    """Write every n-th image of a split without labels as images.npy, beside manifest.json.

    images.npy is as `prepare` writes it. The manifest has the native size [h, w] of each image, and
    neither digests of labels nor pixels of classes. Refusal when a file is not what was verified.
    """
    chosen, excluded = _of_shard(dataset, split, shard, verified)
    height, width = dataset.size
    entries = []
    with array(out / "images.npy", (len(chosen), height, width, 3)) as add_image:
        for item in chosen:
            image, found = read_image(item.image)
            if found != verified.pairs[item.name][0]:
                raise Refusal(
                    f"{item.image} changed since it was verified: run madan verify and then "
                    "snakemake again."
                )
            add_image(_resized(image, (height, width), Image.Resampling.BICUBIC))
            entries.append({"name": item.name, "size": list(image.shape[:2]), "image": found})
    manifest = {"items": entries, "excluded": excluded}
    (out / "manifest.json").write_text(json.dumps(manifest, indent=1))


def _of_shard(
    dataset: Dataset, split: str, shard: int, verified: Verified
) -> tuple[list[Item], dict[str, str]]:
    """The usable items of a shard, where they lie now, and the reasons of its excluded ones."""
    names = sorted({*verified.pairs, *verified.excluded})[shard :: dataset.shards]
    wanted = [name for name in names if name in verified.pairs]
    if not wanted:
        raise Refusal(
            f"{dataset.root} has fewer {split} images than the {dataset.shards} shards of "
            "params.yaml; ask for fewer."
        )
    items = layouts.items(dataset, split, images_alone=not verified.labelled)
    there = {item.name: item for item in items}
    chosen = [there.get(name) or layouts.item(dataset, split, name) for name in wanted]
    return chosen, {name: verified.excluded[name] for name in names if name in verified.excluded}


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
    """Images [h, w, 3] uint8 of a domain and, only where `labels` are given, their train ids.

    `listed` are folders whose manifests give names and sizes; else those of `labels`. Refusal where
    `labels` are given and the images were prepared without.
    """

    def __init__(
        self, name: str, images: Sequence[Path], labels: Sequence[Path] = (),
        listed: Sequence[Path] = (),
    ):  # fmt: skip
        self.name = name
        self._images = [_open(folder / "images.npy") for folder in images]
        for folder in labels:
            if (folder / "manifest.json").exists() and not labelled([folder]):
                raise Refusal(f"{name} has no labels ({folder} holds images alone).")
        self._labels = [_open(folder / "labels.npy") for folder in labels]
        self._manifests = [_manifest(folder) for folder in labels or listed]
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
        height, width = self.size(index)
        return self._labels[shard][row, :height, :width]

    def size(self, index: int) -> tuple[int, int]:
        """Height and width of the label; of an image without one, its native height and width."""
        shard, row = self._rows[index]
        height, width = self._manifests[shard]["items"][row]["size"]
        return height, width

    def called(self, index: int) -> str:
        """Name of the image in its dataset, of pictures that are labelled or listed."""
        shard, row = self._rows[index]
        return layouts.inside(str(self._manifests[shard]["items"][row]["name"]))

    def pixels(self) -> Array:
        """Labelled pixels of each class, int64 [19]."""
        return np.sum([manifest["pixels"] for manifest in self._manifests], axis=0)

    @property
    def shards(self) -> list[Array]:
        """The memory-mapped images [N, h, w, 3] of every shard."""
        return self._images


def labelled(folders: Iterable[Path]) -> bool:
    """Whether all of these prepared shards have labels."""
    return all(_manifest(folder)["labelled"] for folder in folders)


def _native_size(item: Item, meaning: Meaning) -> tuple[int, int]:
    """Size [h, w] of a pair's train ids; from headers alone where nothing turns it."""
    contents = [rasters.read_bytes(path) for path in (item.image, item.label)]
    if any(b"Exif" in content or b"eXIf" in content for content in contents):
        height, width = read(item, meaning).truth.shape
        return height, width
    return rasters.header(item.label).size


def _resized(image: Array, size: tuple[int, int], how: Image.Resampling) -> Array:
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), how))


def _open(path: Path) -> Array:
    try:
        return np.load(path, mmap_mode="r")
    except FileNotFoundError:
        raise Refusal(
            f"{path} not found: make it with snakemake {_artefact(path)}/certificate.json"
        ) from None
    except (ValueError, EOFError) as error:
        folder = _artefact(path)
        raise Refusal(f"{path} is damaged ({error}): delete {folder} and run again.") from None


def _artefact(path: Path) -> Path:
    """The folder of a file's artefact; the shards of a stylised source lie one level deeper."""
    folder = path.parent
    return folder.parent if folder.parent.name.startswith("seed") else folder


def _manifest(folder: Path) -> dict:
    path = folder / "manifest.json"
    try:
        manifest = json.loads(path.read_text())
        labelled = "pixels" in manifest or any("label" in item for item in manifest["items"])
        pixels = manifest["pixels"] if labelled else [0] * len(labels.CLASSES)
        return {
            "items": manifest["items"],
            "pixels": np.array(pixels, np.int64),
            "labelled": labelled,
        }
    except FileNotFoundError:
        raise Refusal(
            f"{path} not found: make it with snakemake {folder}/certificate.json"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise Refusal(f"{path} is damaged ({error}): delete {folder} and run again.") from None
