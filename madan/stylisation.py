"""Stylised datasets: every image of a source through its generator, at the size of its label.

Images of any size, as a release has them, go through whole or in tiles.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from madan import batches, training
from madan.datasets import TrainingSet, array
from madan.progress import Meter

BATCH = 8
# The generator halves twice: tiles that begin on this grid are seen in the phase of the whole.
GRID = 4


@torch.inference_mode()
def stylise(generator: torch.nn.Module, source: TrainingSet, out: Path, precision: str) -> None:
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
    net: torch.nn.Module, images: torch.Tensor, tile: tuple[int, int], overlap: int
) -> torch.Tensor:
    """What a network makes of images [B, 3, H, W]: its `strips` as one, [B, C, H, W]."""
    made = list(strips(net, images, tile, overlap))
    return made[0] if len(made) == 1 else torch.cat(made, 2)


def strips(
    net: torch.nn.Module, images: torch.Tensor, tile: tuple[int, int], overlap: int,
    grid: int = GRID,
) -> Iterator[torch.Tensor]:  # fmt: skip
    """What a network makes of images [B, 3, H, W], row for row: [B, C, h, W], in sum H rows.

    Whole, or in tiles where they have more pixels than tile (h, w). Tiles begin on `grid` and
    overlap by that many pixels, over which each fades linearly into the next; the network never
    sees more pixels at once than `tile` has. A generator's statistics are then those of the tile.
    """
    height, width = images.shape[2:]
    if height * width <= tile[0] * tile[1]:
        yield net(images).float()
        return
    above = None  # the rows that the strip above and this one have in common
    for rows in spans(height, tile[0], overlap, grid):
        strip = None
        for columns in spans(width, tile[1], overlap, grid):
            piece = net(images[:, :, rows, columns]).float()
            if strip is None:
                strip = piece.new_empty((*piece.shape[:3], width))
            _lay(piece, strip, columns, overlap)
        assert strip is not None
        if above is not None:
            _fade(above, strip[:, :, :overlap], 2)
        last = rows.stop == height
        above = None if last else strip[:, :, -overlap:].clone()
        yield strip if last else strip[:, :, :-overlap]


def spans(extent: int, tile: int, overlap: int, grid: int = GRID) -> list[slice]:
    """Cut 0..extent into about equal spans of at most `tile`, each begun on the grid."""
    if extent <= tile:
        return [slice(0, extent)]
    longest = (tile - overlap) // grid * grid
    count = math.ceil((extent - overlap) / longest)
    step = math.ceil((extent - overlap) / count / grid) * grid
    starts = range(0, extent - overlap, step)
    return [slice(start, min(start + step + overlap, extent)) for start in starts]


def _lay(piece: torch.Tensor, onto: torch.Tensor, columns: slice, overlap: int) -> None:
    """Write a piece to its columns; what lies at its beginning fades into it."""
    if columns.start:
        _fade(onto[..., columns.start : columns.start + overlap], piece[..., :overlap], 3)
    onto[..., columns] = piece


def _fade(before: torch.Tensor, after: torch.Tensor, dim: int) -> None:
    """Along a dimension, replace `after` by what goes linearly from `before` to it."""
    extent = after.shape[dim]
    shape = [1] * after.ndim
    shape[dim] = extent
    fade = torch.arange(1, extent + 1, device=after.device) / (extent + 1)
    after.copy_(torch.lerp(before, after, fade.view(shape)))
