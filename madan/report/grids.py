"""Grids of named images: rows and columns with titles that fit, below one screen for each block."""

import functools
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib import font_manager, ft2font
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from madan import labels
from madan.inert import inert

Images = Sequence[np.ndarray]
PIXELS = 900_000  # of all images of a figure, so that they fit
SCREEN = 6.8  # inches of the tallest block: at 130 dots an inch 884 pixels
TALLEST = 2.6  # inches of a row, however tall its images are
NAMES = 2.2  # inches of the names of rows at most
LINE = 0.15  # inches of a line of text
SIZE = 8  # points of text


class Frame(NamedTuple):
    """A figure's width and dots per inch: that of the style, so that all figures agree."""

    width: float
    dpi: int


def reduced(image: np.ndarray, pixels: int = 200_000) -> np.ndarray:
    """An image [h, w, 3], or train ids [h, w], of at most so many pixels."""
    h, w = image.shape[:2]
    factor = (pixels / (h * w)) ** 0.5
    if factor >= 1:
        return image
    size = max(1, int(w * factor)), max(1, int(h * factor))
    how = Image.Resampling.LANCZOS if image.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(image).resize(size, how))


def grid(
    frame: Frame, blocks: Sequence[Mapping[str, Images]], heads: Sequence[str] = (),
    gap: float = 0.12, legend: bool | None = None,
) -> Figure:  # fmt: skip
    """Draw named rows of images [h, w, 3], or of train ids [h, w] in colours; a gap after a block.

    Rows are made smaller until no block is higher than SCREEN; names are wrapped and shortened.
    """
    rows = [(name, images) for block in blocks for name, images in block.items()]
    across = max(len(images) for _, images in rows)
    count = sum(len(images) for _, images in rows)
    shown = legend or any(image.ndim == 2 for _, images in rows for image in images)
    widest = min(NAMES, 0.02 + max(_width(inert(name, 80)) for name, _ in rows))
    left = 0.18 + widest
    wide, heights = _sizes(blocks, (frame.width - left) / across)
    left += (frame.width - left - across * wide) / 2
    titles = _heads(heads, wide)
    top, bottom = titles.height, 0.62 * bool(shown)
    total = top + bottom + sum(heights) + gap * len(blocks)
    figure = plt.figure(figsize=(frame.width, total))
    y, ends = total - top, {sum(len(b) for b in blocks[: k + 1]) for k in range(len(blocks))}
    for number, ((name, images), height) in enumerate(zip(rows, heights, strict=True), 1):
        y -= height
        for k, image in enumerate(images):
            place = (left + k * wide, y, wide, height)
            _picture(figure, frame, total, place, reduced(image, max(1, PIXELS // count)))
        text = fitted(name, widest, max(1, int(height / LINE)))
        _text(figure, (left - 0.08, y + height / 2), total, text, ha="right", va="center")
        y -= gap * (number in ends)
    for k, text in enumerate(titles.texts):
        at = left + (k + 0.5) * wide, total - top + 0.05
        _text(figure, at, total, text, ha="center", va="baseline", rotation=titles.rotation)
    if shown:
        _legend(figure)
    return figure


def fitted(name: str, width: float, lines: int) -> str:
    """Wrap a name into so many lines of at most `width` inches, shortened in the middle."""
    lines = min(3, lines)
    plain = inert(name)
    for characters in range(min(len(plain), int(width / 0.03)), 1, -1):
        short = inert(name, lines * characters)
        parts = textwrap.wrap(short, characters)
        if len(parts) > lines:
            parts = [short[k : k + characters] for k in range(0, len(short), characters)]
        if max(map(_width, parts), default=0) <= width:
            return "\n".join(parts)
    return plain if _width(plain) <= width else "…"


class _Heads(NamedTuple):
    """Titles of columns, their rotation in degrees and the inches that they need."""

    texts: list[str]
    rotation: float
    height: float


def _heads(heads: Sequence[str], wide: float) -> _Heads:
    """Lay titles out across; upright where a whole word of one is wider than its column."""
    if not heads:
        return _Heads([], 0, 0)
    words = [word for head in heads for word in inert(head).replace("-", "- ").split()]
    if max(map(_width, words)) <= wide - 0.06:
        texts = [fitted(head, wide - 0.06, 3) for head in heads]
        return _Heads(texts, 0, 0.1 + LINE * max(text.count("\n") + 1 for text in texts))
    texts = [fitted(head, NAMES, 1) for head in heads]
    return _Heads(texts, 90, 0.15 + max(map(_width, texts)))


def _sizes(blocks: Sequence[Mapping[str, Images]], wide: float) -> tuple[float, list[float]]:
    """Width of a column and heights of the rows in inches, no block being higher than SCREEN."""
    heights = [
        [min(TALLEST, wide * images[0].shape[0] / images[0].shape[1]) for images in block.values()]
        for block in blocks
    ]
    factor = min(1.0, SCREEN / max(map(sum, heights)))
    # A strip that is hardly to be seen still has room for its name.
    return wide * factor, [max(0.9 * LINE, factor * each) for block in heights for each in block]


def _width(text: str) -> float:
    """Inches of a line of text, rounded up: rendering rounds each letter to whole pixels."""
    return 1.06 * sum(map(_advance, text)) + 0.02


@functools.cache
def _advance(letter: str) -> float:
    """Inches from a letter to the next."""
    font = font_manager.get_font(font_manager.findfont("DejaVu Sans"))
    font.set_size(SIZE, 72)
    if not font.get_char_index(ord(letter)):  # drawn as a box
        return SIZE / 72
    glyph = font.load_char(ord(letter), flags=ft2font.LoadFlags.NO_HINTING)
    return float(glyph.linearHoriAdvance) / 65536 / 72


def _text(figure: Figure, at: tuple[float, float], total: float, text: str, **more: Any) -> None:
    place = at[0] / figure.get_figwidth(), at[1] / total
    figure.text(*place, text, parse_math=False, fontsize=SIZE, linespacing=1.1, **more)


def _picture(
    figure: Figure, frame: Frame, total: float, place: tuple[float, ...], image: np.ndarray
) -> None:
    x, y, width, height = place[0] / frame.width, place[1] / total, place[2] / frame.width, (
        place[3] / total
    )  # fmt: skip
    axis = figure.add_axes((x + 0.001, y + 0.001, width - 0.002, height - 0.002))
    axis.set_axis_off()
    if image.ndim == 2:
        axis.imshow(labels.colour(image), interpolation="nearest")
    else:  # Of an image that is much enlarged the pixels are shown: sharper, and fewer bytes.
        enlarged = place[2] * frame.dpi > 1.5 * image.shape[1]
        axis.imshow(image, interpolation="nearest" if enlarged else None)


def _legend(figure: Figure) -> None:
    """The classes and their colours, below a grid."""
    colours = [tuple(colour / 255) for colour in labels.PALETTE]
    patches = [Patch(facecolor=colour) for colour in colours] + [Patch(facecolor="black")]
    names = [*labels.CLASSES, "not labelled"]
    figure.legend(
        patches, names, loc="lower center", ncols=10, fontsize=7, columnspacing=1.2,
        handlelength=1, handleheight=1, handletextpad=0.4,
    )  # fmt: skip
