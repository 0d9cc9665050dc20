"""Batches: which images a step sees, and how they are cropped, flipped and scaled.

A batch is a function of (seed, step, name of the set) alone, so that a resumed run sees what an
uninterrupted one would have seen, and so does one with other neighbours. Of several processes that
train together each takes its share of that very batch.
"""

import functools
import zlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from madan.data.datasets import TrainingSet
from madan.engine import distributed
from madan.errors import Refusal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CPU = torch.device("cpu")


class Batch(NamedTuple):
    """Images [B, 3, h, w] in [-1, 1] and, of labelled sets, train ids [B, h, w] int64."""

    images: Tensor
    labels: Tensor | None

    def truth(self) -> Tensor:
        """The train ids, of a batch that was drawn with them."""
        assert self.labels is not None
        return self.labels


def stream(seed: int, name: str, number: int) -> np.random.Generator:
    """The random numbers that belong to (seed, name, number)."""
    return np.random.default_rng([seed, zlib.crc32(name.encode()), number])


def order(seed: int, name: str, step: int, batch: int, count: int) -> list[int]:
    """Indices of one step's images: every epoch is a fresh permutation of range(count)."""
    indices = []
    for position in range(step * batch, (step + 1) * batch):
        epoch, place = divmod(position, count)
        indices.append(int(_permutation(seed, name, epoch, count)[place]))
    return indices


@functools.lru_cache(maxsize=16)
def _permutation(seed: int, name: str, epoch: int, count: int) -> np.ndarray:
    return stream(seed, f"order {name}", epoch).permutation(count)


def draw(
    pictures: TrainingSet, seed: int, step: int, batch: int, crop: tuple[int, int], flip: bool,
    labelled: bool = False, device: torch.device = CPU, rows: Sequence[int] | None = None,
) -> Batch:  # fmt: skip
    """One step's images, and labels where asked for, cropped to (h, w) and mirrored alike.

    Of several processes each gets its share of the `batch` images, or those in `rows`.
    """
    rng = stream(seed, f"crop {pictures.name}", step)
    height, width = crop
    images, truths, mine = [], [], distributed.share(batch) if rows is None else rows
    for row, index in enumerate(order(seed, pictures.name, step, batch, len(pictures))):
        image = pictures.image(index)
        if image.shape[0] < height or image.shape[1] < width:
            raise Refusal(
                f"crop {height}x{width} does not fit images of {pictures.name}, "
                f"{image.shape[0]}x{image.shape[1]}; make training.*.crop or domains.*.size fit."
            )
        top = int(rng.integers(image.shape[0] - height + 1))
        left = int(rng.integers(image.shape[1] - width + 1))
        turn = -1 if flip and rng.random() < 0.5 else 1
        if row not in mine:
            continue
        window = slice(top, top + height), slice(left, left + width)
        images.append(image[window][:, ::turn])
        if labelled:
            truths.append(pictures.label(index)[window][:, ::turn])
    truth = on(device, np.stack(truths)).long() if labelled else None
    return Batch(scale(on(device, np.stack(images))), truth)


def on(device: torch.device, pixels: np.ndarray) -> Tensor:
    """uint8 pixels of any shape on a device; what they become is computed there.

    To a GPU go bytes, a quarter of what floats are, from pinned memory while the GPU computes.
    """
    there = torch.from_numpy(pixels)
    if device.type == "cuda":
        return there.pin_memory().to(device, non_blocking=True)
    return there


def scale(images: Tensor) -> Tensor:
    """uint8 [B, h, w, 3] to [B, 3, h, w] in [-1, 1], contiguous."""
    return images.permute(0, 3, 1, 2).float().div(127.5).sub(1).contiguous()


def imagenet(images: Tensor) -> Tensor:
    """Images in [-1, 1] as segmenters want them: ImageNet mean 0 and deviation 1."""
    mean = images.new_tensor(IMAGENET_MEAN).view(1, 3, 1, 1)
    std = images.new_tensor(IMAGENET_STD).view(1, 3, 1, 1)
    return ((images + 1) / 2 - mean) / std


def jitter(
    images: Tensor, amount: float, seed: int, step: int,
    rows: Sequence[int] | None = None, batch: int | None = None, name: str = "jitter",
) -> Tensor:  # fmt: skip
    """Brightness, contrast and saturation of each image scaled by factors in 1 +- amount.

    Where the images are only some of a batch, `rows` says which of `batch` they are; the factors
    are a function of (seed, step, name).
    """
    if amount == 0:
        return images
    count = len(images) if batch is None else batch
    factors = stream(seed, name, step).uniform(1 - amount, 1 + amount, (3, count))
    factors = factors if rows is None else factors[:, list(rows)]
    brightness, contrast, saturation = (
        torch.from_numpy(f).to(images).view(-1, 1, 1, 1) for f in factors
    )
    shown = (images + 1) / 2 * brightness
    shown = (shown - shown.mean((1, 2, 3), True)) * contrast + shown.mean((1, 2, 3), True)
    grey = shown.mean(1, True)
    shown = (shown - grey) * saturation + grey
    return shown.clamp(0, 1) * 2 - 1


def class_weights(pixels: Sequence[np.ndarray], power: float, cap: float) -> Tensor:
    """min(cap, frequency ** -power), float [19]; frequencies are averaged over the sets.

    `pixels` holds, for each set, the labelled pixels of each class, 0 where a class is absent.
    """
    frequency = np.mean([counts / max(1, counts.sum()) for counts in pixels], axis=0)
    with np.errstate(divide="ignore"):
        return torch.from_numpy(np.minimum(cap, frequency**-power)).float()
