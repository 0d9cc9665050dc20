"""Image files written by hand: every bit depth and colour type of PNG, and what optimisers make."""

import struct
import zlib
from pathlib import Path

import numpy as np

from madan import labels

GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def orientation_entry(turn: int) -> bytes:
    """A TIFF header with the one entry that says which way is up."""
    return struct.pack("<2sHIHHHIHHI", b"II", 42, 8, 1, 0x0112, 3, 1, turn, 0, 0)


def png(
    path: Path,
    samples: np.ndarray,
    depth: int,
    colour: int,
    palette: np.ndarray | None = None,
    turn: int = 1,
    late: bool = False,
) -> None:
    """Write samples [H, W] or [H, W, C] as they are; palette [n, 3]; `late`: EXIF after pixels."""
    height, width = samples.shape[:2]
    flat = samples.reshape(height, -1).astype(np.uint32)
    assert flat.shape[1] == width * CHANNELS[colour] and flat.max(initial=0) < 2**depth
    rows = []
    for row in flat:
        bits = (row[:, None] >> np.arange(depth)[::-1]) & 1
        rows.append(b"\0" + np.packbits(bits.astype(np.uint8).ravel()).tobytes())
    exif = chunk(b"eXIf", orientation_entry(turn)) if turn != 1 else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
        + (chunk(b"PLTE", palette.astype(np.uint8).tobytes()) if palette is not None else b"")
        + (b"" if late else exif)
        + chunk(b"IDAT", zlib.compress(b"".join(rows)))
        + (exif if late else b"")
        + chunk(b"IEND", b"")
    )


# --- Label images of ids [H, W] ------------------------------------------------------------------


def grey(path: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    png(path, ids, 8, GREY)


def packed_grey(path: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    """As few bits as show the same greys: what optimisers make of 8-bit grey."""
    for depth in (1, 2, 4):
        step = 255 // (2**depth - 1)
        if not (ids % step).any():
            return png(path, ids // step, depth, GREY)
    png(path, ids, 8, GREY)


def grey_and_alpha(path: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    png(path, np.stack([ids, np.full_like(ids, 255)], 2), 8, GREY_ALPHA)


def deep_grey(path: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    png(path, ids, 16, GREY)


def three_channels(path: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    png(path, np.stack([ids] * 3, 2), 8, RGB)


def _renumbered(path: Path, ids: np.ndarray, colours: np.ndarray, rng: np.random.Generator) -> None:
    """A palette of the colours that occur, in any order, in as few bits as hold their number."""
    used = rng.permutation(np.unique(ids))
    place = np.zeros(256, int)
    place[used] = np.arange(len(used))
    depth = next(d for d in (1, 2, 4, 8) if len(used) <= 2**d)
    png(path, place[ids], depth, PALETTE, colours[used])


def grey_palette(path: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    """Grey as a palette: no colour changes, the indices do."""
    _renumbered(path, ids, np.repeat(np.arange(256)[:, None], 3, 1), rng)


def id_palette(path: Path, ids: np.ndarray, rng: np.random.Generator) -> None:
    """A palette whose index is the id, with colours that mean nothing."""
    png(path, ids, 8, PALETTE, np.random.default_rng(7).permutation(256)[:, None] ^ [[9, 77, 140]])


ENCODERS = (
    grey, packed_grey, grey_and_alpha, deep_grey, three_channels, grey_palette, id_palette
)  # fmt: skip


def release_colours(table: labels.Labels) -> np.ndarray:
    """A palette [256, 3] of the colour of every id's class; what is not counted is black."""
    return labels.colour(np.where(table == labels.UNKNOWN, labels.IGNORE, table).astype(np.uint8))


def coloured_palette(path: Path, ids: np.ndarray, table: labels.Labels) -> None:
    """The index is the id, the palette has the release's colours: as GTA5 has it."""
    png(path, ids, 8, PALETTE, release_colours(table))


def renumbered_palette(
    path: Path, ids: np.ndarray, table: labels.Labels, rng: np.random.Generator
) -> None:
    """The same colours, other indices."""
    _renumbered(path, ids, release_colours(table), rng)


def truecolour(path: Path, ids: np.ndarray, table: labels.Labels) -> None:
    """The same colours, without a palette."""
    png(path, release_colours(table)[ids], 8, RGB)
