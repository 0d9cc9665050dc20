"""Context-aware generation (CAG) of MADAN+: crops of several sizes around one common centre.

All crops of a step's images have the resolution of the first. Where an image lies in its batch, at
which place it is cropped and whether it is mirrored are functions of (seed, step, name of the set);
the place is common to the sources and the target.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from madan.data import batches
from madan.data.datasets import TrainingSet
from madan.engine import distributed
from madan.errors import Refusal

Sizes = Sequence[tuple[int, int]]


def draw(
    pictures: TrainingSet, seed: int, step: int, batch: int, crops: Sizes, number: int, flip: bool,
    labelled: bool = False, device: torch.device = batches.CPU,
) -> batches.Batch:  # fmt: skip
    """One step's images cropped to the size crops[number] and resized to that of crops[0].

    Labels are those of the crop, resized to the nearest. Of several processes each gets its share
    of the `batch` images. Refusal where the largest crop does not fit an image.
    """
    rng = batches.stream(seed, f"crop {pictures.name}", step)
    places = batches.stream(seed, "centre", step).random((batch, 2))
    images, truths, mine = [], [], distributed.share(batch)
    for row, index in enumerate(batches.order(seed, pictures.name, step, batch, len(pictures))):
        turn = -1 if flip and rng.random() < 0.5 else 1
        if row not in mine:
            continue
        image = pictures.image(index)
        part = window(image.shape[:2], places[row], crops, number, pictures.name)
        images.append(image[part][:, ::turn])
        if labelled:
            truths.append(pictures.label(index)[part][:, ::turn])
    scaled = batches.scale(batches.on(device, np.stack(images)))
    if tuple(scaled.shape[2:]) != tuple(crops[0]):
        scaled = F.interpolate(scaled, size=tuple(crops[0]), mode="bilinear", antialias=True)
    if not labelled:
        return batches.Batch(scaled, None)
    truth = batches.on(device, np.stack(truths))[:, None].float()
    nearest = F.interpolate(truth, size=tuple(crops[0]), mode="nearest-exact")
    return batches.Batch(scaled, nearest[:, 0].long())


def window(
    size: Sequence[int], place: Sequence[float], crops: Sizes, number: int, name: str
) -> tuple[slice, slice]:
    """Rows and columns of a crop: the largest lies at `place`, in [0, 1) of the room it has.

    The others have its centre, to within half a pixel. Refusal where the largest does not fit.
    """
    parts = []
    for side, length in enumerate(size):
        largest = max(crop[side] for crop in crops)
        if largest > length:
            raise Refusal(
                f"training.translator.cag has a crop {largest} pixels {('high', 'wide')[side]}, "
                f"but images of {name} are {size[0]}x{size[1]}; make its crops or domains.*.size "
                "fit."
            )
        first = int(place[side] * (length - largest + 1)) + (largest - crops[number][side]) // 2
        parts.append(slice(first, first + crops[number][side]))
    return parts[0], parts[1]
