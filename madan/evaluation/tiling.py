"""Images of any size through a network: at another height, whole, or in tiles.

A generator normalises each image by its own statistics (InstanceNorm), so a tile by itself would
get other colours than its neighbour. Tiles of a generator therefore share the statistics of the
whole image, which passes over the tiles collect, one for each normalisation that needs one.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from madan.data.datasets import Array
from madan.errors import Refusal
from madan.models.generator import Generator, ResidualBlock

# The generator halves twice: tiles that begin on this grid are seen in the phase of the whole.
GRID = 4
# Layers up to the last halving: padding, convolution, normalisation, ReLU; convolution,
# normalisation, ReLU; convolution. Its normalisation and ReLU follow before the residual blocks.
_ENCODER = 8
_INNER_COPIES = 6  # of the innermost map that live at once in a residual block


def at_height(image: Array, height: int) -> Array:
    """Resize an image [H, W, 3] to that height, its sides in proportion; 0 keeps its size."""
    return resized(image, at_size(image.shape, height))


def at_size(shape: tuple[int, ...], height: int) -> tuple[int, int]:
    """Return the size (h, w) that an image has at a height, its sides in proportion."""
    h, w = shape[:2]
    return (height, max(1, round(w * height / h))) if height else (h, w)


def resized(image: Array, size: tuple[int, int]) -> Array:
    """Resize an image [H, W, 3] to (h, w): area means to smaller sizes, else bicubic."""
    if image.shape[:2] == size:
        return image
    # Area means when it becomes smaller, so that nothing fine turns into stripes.
    how = cv2.INTER_AREA if size[0] < image.shape[0] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=how))


def is_tiled(shape: tuple[int, ...], tile: tuple[int, int]) -> bool:
    """Tell whether an image of (h, w) has more pixels than a tile."""
    return shape[0] * shape[1] > tile[0] * tile[1]


def notice(shape: tuple[int, ...], tile: tuple[int, int]) -> str:
    """Say that an image of (h, w) goes through a network in tiles."""
    return (
        f"images of {shape[0]}x{shape[1]} pixels have more than a tile of {tile[0]}x{tile[1]} "
        "(export.tile): they are taken in tiles,"
    )


def whole_or_tiled(net: nn.Module, images: Tensor, tile: tuple[int, int], overlap: int) -> Tensor:
    """Return what a network makes of images [B, 3, H, W] in one piece, [B, C, H, W].

    In tiles where an image has more pixels than tile (h, w): of a `Generator` the same as of the
    whole image but for rounding, of any other network its `strips`.
    """
    if isinstance(net, Generator) and is_tiled(tuple(images.shape[2:]), tile):
        return _generated(net, images, tile)
    made = list(strips(net, images, tile, overlap))
    return made[0] if len(made) == 1 else torch.cat(made, 2)


def strips(
    net: nn.Module, images: Tensor, tile: tuple[int, int], overlap: int, grid: int = GRID
) -> Iterator[Tensor]:
    """Yield what a network makes of images [B, 3, H, W], row for row: [B, C, h, W], in sum H rows.

    Whole, or in tiles where they have more pixels than tile (h, w). Tiles begin on `grid` and
    overlap by that many pixels, over which each fades linearly into the next; the network never
    sees more pixels at once than `tile` has. Its statistics, if any, are those of the tile.
    """
    height, width = images.shape[2:]
    if not is_tiled((height, width), tile):
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


def _lay(piece: Tensor, onto: Tensor, columns: slice, overlap: int) -> None:
    """Write a piece to its columns; what lies at its beginning fades into it."""
    if columns.start:
        _fade(onto[..., columns.start : columns.start + overlap], piece[..., :overlap], 3)
    onto[..., columns] = piece


def _fade(before: Tensor, after: Tensor, dim: int) -> None:
    """Along a dimension, replace `after` by what goes linearly from `before` to it."""
    extent = after.shape[dim]
    shape = [1] * after.ndim
    shape[dim] = extent
    fade = torch.arange(1, extent + 1, device=after.device) / (extent + 1)
    after.copy_(torch.lerp(before, after, fade.view(shape)))


class _Moments:
    """Mean and variance [B, C, 1, 1] over pieces of a map, merged as Chan et al. (1979) do."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, piece: Tensor) -> None:
        """Add a piece [B, C, h, w]."""
        count = piece.shape[2] * piece.shape[3]
        variance, mean = (
            moment.double()
            for moment in torch.var_mean(piece.float(), (2, 3), correction=0, keepdim=True)
        )
        total = self.count + count
        gap = mean - self.mean.to(mean)
        self.squares = self.squares.to(mean) + variance * count
        self.squares = self.squares + gap**2 * (self.count * count / total)
        self.mean = self.mean.to(mean) + gap * (count / total)
        self.count = total

    def normalise(self, piece: Tensor, eps: float) -> Tensor:
        """Normalise a piece [B, C, h, w] as InstanceNorm does with the whole map."""
        scale = (self.squares / self.count + eps).rsqrt()
        return torch.addcmul((-self.mean * scale).float(), piece.float(), scale.float())


class _Tile(NamedTuple):
    """Where a piece lies, in steps of GRID pixels: what is kept of it, and that with its margin."""

    rows: slice
    columns: slice
    seen_rows: slice
    seen_columns: slice

    def of(self, maps: Tensor, scale: int) -> Tensor:
        """Cut the piece with its margin out of maps [B, C, h, w] of `scale` pixels a step."""
        return maps[:, :, _times(self.seen_rows, scale), _times(self.seen_columns, scale)]

    def inside(self, piece: Tensor) -> Tensor:
        """Cut the margin off what was made of the piece, at any resolution."""
        scale = piece.shape[2] // (self.seen_rows.stop - self.seen_rows.start)
        rows, columns = (
            _times(slice(kept.start - seen.start, kept.stop - seen.start), scale)
            for kept, seen in ((self.rows, self.seen_rows), (self.columns, self.seen_columns))
        )
        return piece[:, :, rows, columns]


def _generated(net: Generator, images: Tensor, tile: tuple[int, int]) -> Tensor:
    """Run a generator over tiles; its residual blocks see the whole innermost map at once.

    The maps before and after them, which are up to four times as large, exist for a tile at a time.
    """
    height, width = images.shape[2:]
    x = F.pad(images, (0, -width % GRID, 0, -height % GRID), mode="reflect")
    size = x.shape[2] // GRID, x.shape[3] // GRID
    layers = list(net.model)
    end = _ENCODER + 2 + sum(isinstance(layer, ResidualBlock) for layer in layers)
    encoder, inner, decoder = layers[:_ENCODER], layers[_ENCODER:end], layers[end:]
    outermost, innermost = layers[-1], encoder[-1]
    assert isinstance(outermost, nn.Conv2d) and isinstance(innermost, nn.Conv2d)
    margin = 2 + math.ceil(outermost.kernel_size[0] // 2 / GRID)
    tiles = _tiles(size, tile, margin)
    _require_memory(x, innermost.out_channels * size[0] * size[1])
    known = _collect(encoder, x, GRID, tiles)
    low: Tensor | None = None
    for each in tiles:
        piece = each.inside(_run(encoder, each.of(x, GRID), known))
        if low is None:
            low = piece.new_empty((*piece.shape[:2], *size))
        low[:, :, each.rows, each.columns] = piece
    assert low is not None
    for layer in inner:  # normalisation and ReLU of the last convolution, then the blocks
        low = layer(low)
    known = _collect(decoder, low, 1, tiles)
    made = torch.empty_like(x, dtype=torch.float32)
    for each in tiles:
        piece = each.inside(_run(decoder, each.of(low, 1), known))
        where = (..., _times(each.rows, GRID), _times(each.columns, GRID))
        if net.colour is not None:
            piece = piece + net.colour(x[where])
        made[where] = torch.tanh(piece).float()
    return made[:, :, :height, :width]


def _collect(
    layers: Sequence[nn.Module], x: Tensor, scale: int, tiles: Sequence[_Tile]
) -> dict[int, _Moments]:
    """Collect the moments of the whole image before each normalisation, one after another."""
    known: dict[int, _Moments] = {}
    for k, layer in enumerate(layers):
        if isinstance(layer, nn.GroupNorm):
            moments = _Moments()
            for each in tiles:
                moments.add(each.inside(_run(layers[:k], each.of(x, scale), known)))
            known[k] = moments
    return known


def _run(layers: Sequence[nn.Module], x: Tensor, known: Mapping[int, _Moments]) -> Tensor:
    """Run layers on a tile with the moments of the whole image."""
    for k, layer in enumerate(layers):
        normalises = isinstance(layer, nn.GroupNorm)
        x = known[k].normalise(x, layer.eps) if normalises else layer(x)  # type: ignore[arg-type]
    return x


def _tiles(size: tuple[int, int], tile: tuple[int, int], margin: int) -> list[_Tile]:
    """Cut a map of (h, w) steps into tiles that, margins included, have at most `tile` pixels."""
    kept = [max(1, extent // GRID - 2 * margin) for extent in tile]
    parts = [
        [
            (slice(start, min(start + step, extent)),
             slice(max(0, start - margin), min(start + step + margin, extent)))
            for start in range(0, extent, step)
        ]
        for extent, step in zip(size, kept, strict=True)
    ]  # fmt: skip
    return [_Tile(rows, columns, seen_rows, seen_columns)
            for rows, seen_rows in parts[0] for columns, seen_columns in parts[1]]  # fmt: skip


def _times(where: slice, factor: int) -> slice:
    return slice(where.start * factor, where.stop * factor)


def _require_memory(x: Tensor, values: int) -> None:
    """Refusal where the innermost maps, of so many values, need more memory than is free."""
    needed = _INNER_COPIES * values * 4 * len(x)
    free = free_memory(x.device)
    if free is not None and needed > free:
        raise Refusal(
            f"an image of {x.shape[2]}x{x.shape[3]} pixels needs {needed / 1e9:.1f} GB of memory "
            f"for the generator, and {free / 1e9:.1f} GB are free: translate it at a lower height."
        )


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    told = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", told.read_text()) if told.exists() else None
    return int(found[1]) * 1024 if found else None
