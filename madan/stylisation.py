"""Stylised datasets: every image of a source through its generator, at the size of its label.

Images of any size, as a release has them, go through whole or in tiles.
"""

import math
from pathlib import Path

import numpy as np
import torch

from madan import batches, training
from madan.datasets import Pictures, array
from madan.progress import Meter

BATCH = 8
# The generator halves twice: tiles that begin on this grid are seen in the phase of the whole.
GRID = 4


@torch.inference_mode()
def stylise(generator: torch.nn.Module, source: Pictures, out: Path, precision: str) -> None:
    """Write x'_i = G_i(x_i) of every shard as out/<k>/images.npy [N, h, w, 3] uint8, rounded."""
    generator.eval()
    meter, done = Meter("stylise", len(source), every=60), 0
    for k, images in enumerate(source.shards):
        (out / str(k)).mkdir()
        with array(out / str(k) / "images.npy", images.shape) as add:
            for first in range(0, len(images), BATCH):
                pixels = np.array(images[first : first + BATCH])
                x = batches.scale(batches.on(training.device(), pixels))
                with training.autocast(precision):
                    adapted = generator(x)
                add(to_bytes(adapted))
                done += len(x)
                meter.show(done, {})
    meter.close()


def to_bytes(images: torch.Tensor) -> np.ndarray:
    """Images [B, 3, h, w] in [-1, 1] as uint8 [B, h, w, 3], rounded to the nearest level."""
    grey = (images.float() + 1).mul(127.5).round().clamp(0, 255).byte()
    return grey.permute(0, 2, 3, 1).cpu().numpy()


def whole_or_tiled(
    generator: torch.nn.Module, images: torch.Tensor, tile: tuple[int, int], overlap: int
) -> torch.Tensor:
    """Generate from images [B, 3, H, W], in tiles where they have more pixels than tile (h, w).

    Tiles overlap by that many pixels, over which each fades linearly into the next; the generator
    never sees more pixels at once than `tile` has. Its statistics are then those of the tile.
    """
    height, width = images.shape[2:]
    if height * width <= tile[0] * tile[1]:
        return generator(images).float()
    whole = torch.empty_like(images)
    for rows in spans(height, tile[0], overlap):
        strip = torch.empty_like(images[:, :, rows])
        for columns in spans(width, tile[1], overlap):
            piece = generator(images[:, :, rows, columns]).float()
            _lay(piece, strip, columns, 3, overlap)
        _lay(strip, whole, rows, 2, overlap)
    return whole


def spans(extent: int, tile: int, overlap: int) -> list[slice]:
    """Cut 0..extent into about equal spans of at most `tile`, each begun on GRID."""
    if extent <= tile:
        return [slice(0, extent)]
    longest = (tile - overlap) // GRID * GRID
    count = math.ceil((extent - overlap) / longest)
    step = math.ceil((extent - overlap) / count / GRID) * GRID
    starts = range(0, extent - overlap, step)
    return [slice(start, min(start + step + overlap, extent)) for start in starts]


def _lay(piece: torch.Tensor, onto: torch.Tensor, span: slice, dim: int, overlap: int) -> None:
    """Write a piece to its span of a dimension; what lies at its beginning fades into it."""
    place = onto.narrow(dim, span.start, span.stop - span.start)
    if span.start:
        shape = [1] * 4
        shape[dim] = overlap
        fade = torch.arange(1, overlap + 1, device=onto.device) / (overlap + 1)
        start = piece.narrow(dim, 0, overlap)
        start.copy_(torch.lerp(place.narrow(dim, 0, overlap), start, fade.view(shape)))
    place.copy_(piece)
