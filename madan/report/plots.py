"""Figures: one function for each, from arrays to a picture that can be read in print.

Lines and bars have Okabe and Ito's colours, which colour-blind readers tell apart, heat maps
cividis, label images the colours of Cityscapes with a legend. The same numbers give the same bytes.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from madan import labels
from madan.report import grids
from madan.report.grids import Frame, Images
from madan.report.grids import reduced as reduced

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES: Any = ("-", "--", "-.", ":")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
BYTES = 2_000_000  # of a file at most
WIDTH = 9.5  # inches
DPI = 130
FRAME = Frame(WIDTH, DPI)
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,
}
matplotlib.rcParams.update(STYLE)
Line = tuple[np.ndarray, np.ndarray]  # x, y


class Panel(NamedTuple):
    """Curves of an axis: lines of each seed by name, gates as (step, text), levels as (y, text)."""

    title: str
    lines: Mapping[str, Sequence[Line]]
    gates: Sequence[tuple[float, str]] = ()
    levels: Sequence[tuple[float, str]] = ()


def save(figure: Figure, path: Path) -> None:
    """Write path.png and path.pdf, each of at most 2 MB, without date and version."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".png", ".pdf"):
        write(figure, path.with_suffix(suffix))
    close(figure)


def write(figure: Figure, path: Path) -> None:
    """Write one file, a PNG or a PDF by its suffix, as `save` does."""
    if path.suffix == ".pdf":
        nothing = {"CreationDate": None, "Creator": None, "Producer": None}
        figure.savefig(path, metadata=nothing)
        return
    for dpi in (DPI, 90, 65, 45):
        figure.savefig(path, dpi=dpi, metadata={"Software": None})
        _pack(path)
        if path.stat().st_size <= BYTES:
            break


def close(figure: Figure) -> None:
    """Free a figure's memory."""
    plt.close(figure)


def _pack(path: Path) -> None:
    """Write a PNG again in fewer bytes; one without photos needs no more than 256 colours."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if image.getcolors(4096):
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(path, optimize=True)


def translation(blocks: Sequence[Mapping[str, Images]]) -> Figure:
    """Rows of a source, of what each translator makes of it, of its labels; last the target."""
    return grids.grid(FRAME, blocks)


def qualitative(rows: Mapping[str, Images]) -> Figure:
    """A column for each of image, truth (if any) and rows' predictions, a line for each scene."""
    scenes = [
        {"": [images[k] for images in rows.values()]} for k in range(len(next(iter(rows.values()))))
    ]
    return grids.grid(FRAME, scenes, tuple(rows), gap=0)


def mosaic(photos: Mapping[str, Images]) -> Figure:
    """Photos, the same below their classes, and classes alone, with the legend of the classes."""
    blocks = [{Path(name).name: images} for name, images in photos.items()]
    return grids.grid(FRAME, blocks, ("photo", "with classes", "classes"), legend=True)


def classes(ious: Mapping[str, np.ndarray]) -> Figure:
    """Bars of IoU in percent [S, 19] by class and row; whiskers span the seeds.

    Classes that no row has, in labels or in predictions, are left out.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 3.4), layout="constrained")
    kept = _present(np.concatenate(list(ious.values())))
    places, width = np.arange(len(kept)), 0.84 / len(ious)
    for k, (row, seeds) in enumerate(ious.items()):
        seeds = seeds[:, kept]
        mean = over_seeds(seeds)
        at = places - 0.42 + width * (k + 0.5)
        axis.bar(at, np.nan_to_num(mean), width, label=row, color=COLOURS[k % len(COLOURS)])
        if len(seeds) > 1:
            spread = np.abs(np.stack([mean - seeds.min(0), seeds.max(0) - mean]))
            axis.errorbar(at, mean, spread, fmt="none", ecolor="black", elinewidth=0.8)
        for place in at[~np.isfinite(mean)]:
            axis.text(place, 0.5, "–", ha="center", fontsize=6)
    axis.set_xticks(places, [labels.CLASSES[k] for k in kept], rotation=40, ha="right")
    axis.set(ylabel="IoU, percent", xlim=(-0.6, len(places) - 0.4), ylim=(0, 100))
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=min(5, len(ious)))
    return figure


def heatmap(rows: Mapping[str, np.ndarray], columns: Sequence[str]) -> Figure:
    """The table: a cell of percents [columns] for each row and class, the means set apart.

    Classes that no row has, in labels or in predictions, are left out.
    """
    figure, axis = plt.subplots(figsize=(WIDTH, 1.5 + 0.27 * len(rows)), layout="constrained")
    values, count = np.array(list(rows.values())), len(labels.CLASSES)
    kept = _present(values[:, :count])
    columns = [*(columns[k] for k in kept), *columns[count:]]
    values = np.concatenate([values[:, kept], values[:, count:]], axis=1)
    _cells(axis, values, np.isfinite(values), digits=1 if len(rows) < count else 0)
    axis.set_xticks(range(len(columns)), columns, rotation=50, ha="right")
    axis.set_yticks(range(len(rows)), list(rows))
    axis.axvline(len(kept) - 0.5, color="white", linewidth=4)
    axis.set_title(
        "IoU and mIoU, percent; – where a class occurs neither in labels nor in predictions"
    )
    return figure


def confusion(shares: Mapping[str, np.ndarray]) -> Figure:
    """By row: percent of each class's pixels (line) that were given a class [19, 19] (column).

    Classes that no row has, in labels or in predictions, are left out.
    """
    kept = _present(np.concatenate([_in_use(matrix) for matrix in shares.values()]))
    names = [labels.CLASSES[k] for k in kept]
    size = WIDTH, 5.2 * -(-len(shares) // 2) if len(shares) > 1 else 8
    across = min(2, len(shares))
    figure, axes = plt.subplots(
        -(-len(shares) // across), across, figsize=size, squeeze=False, layout="constrained"
    )
    for axis, (row, matrix) in zip(axes.flat, shares.items(), strict=False):
        matrix = matrix[np.ix_(kept, kept)]
        _cells(axis, matrix, matrix >= 5, 5 if len(shares) > 1 else 7, digits=0)
        axis.set_xticks(range(len(matrix)), names, rotation=60, ha="right")
        axis.set_yticks(range(len(matrix)), names)
        axis.set(title=f"{row}: percent of a class's pixels", xlabel="predicted", ylabel="label")
    for axis in axes.flat[len(shares) :]:
        axis.set_visible(False)
    return figure


def curves(panels: Sequence[Panel]) -> Figure:
    """Panels of curves over steps: the mean of the seeds, a band from the lowest to the highest."""
    across = min(3, len(panels))
    down = -(-len(panels) // across)
    figure, axes = plt.subplots(
        down, across, figsize=(WIDTH, 0.4 + 2 * down), squeeze=False, layout="constrained"
    )
    names = list(dict.fromkeys(name for panel in panels for name in panel.lines))
    for axis, panel in zip(axes.flat, panels, strict=False):
        _curves(axis, panel, names)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    if len(names) > 1:
        marks = [
            plt.Line2D([], [], color=COLOURS[k % len(COLOURS)], linestyle=DASHES[k % 4])
            for k in range(len(names))
        ]
        figure.legend(marks, names, loc="outside upper center", ncols=min(6, len(names)))
    return figure


def features(panels: Mapping[str, Mapping[str, np.ndarray]]) -> Figure:
    """Of each segmenter the first two principal components [N, 2] of pooled features by domain."""
    size = WIDTH, 1.1 + WIDTH / max(2, len(panels))
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False, layout="constrained")
    names = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    for axis, (title, domains) in zip(axes.flat, panels.items(), strict=True):
        for name, points in domains.items():
            k = names.index(name)
            look = {"color": COLOURS[k], "marker": MARKERS[k], "label": name}
            axis.scatter(*points.T, s=14, alpha=0.7, linewidths=0, **look)
        axis.set(title=title, xlabel="1st component", ylabel="2nd", xticks=[], yticks=[])
    marks = [
        plt.Line2D([], [], color=COLOURS[k], marker=MARKERS[k], linestyle="")
        for k in range(len(names))
    ]
    figure.legend(marks, names, loc="outside upper center", ncols=len(names))
    return figure


def shares(domains: Mapping[str, np.ndarray]) -> Figure:
    """Share of the labelled pixels in percent [19] that each class has in each domain."""
    figure, axis = plt.subplots(figsize=(WIDTH, 3.2), layout="constrained")
    kept = _present(np.where(np.array(list(domains.values())) > 0, 1, np.nan))
    places, width = np.arange(len(kept)), 0.84 / len(domains)
    for k, (name, percent) in enumerate(domains.items()):
        at = places - 0.42 + width * (k + 0.5)
        axis.bar(at, percent[kept], width, label=name, color=COLOURS[k])
    axis.set_xticks(places, [labels.CLASSES[k] for k in kept], rotation=40, ha="right")
    axis.set(ylabel="labelled pixels, percent (log scale)", yscale="log", ylim=(0.01, 100))
    axis.set_yticks([0.01, 0.1, 1, 10, 100], ["0.01", "0.1", "1", "10", "100"])
    axis.grid(axis="x", visible=False)
    figure.legend(loc="outside upper center", ncols=len(domains))
    return figure


def _present(values: np.ndarray) -> list[int]:
    """Columns of values [N, 19] in which some row is finite; all where none is."""
    return np.flatnonzero(np.isfinite(values).any(0)).tolist() or list(range(values.shape[1]))


def _in_use(matrix: np.ndarray) -> np.ndarray:
    """Of a confusion in percent [19, 19]: 1 for a class that is labelled or predicted, else NaN."""
    used = np.isfinite(matrix).any(1) | (np.nan_to_num(matrix) > 0).any(0)
    return np.where(used, 1.0, np.nan)[None]


def _cells(
    axis: plt.Axes, values: np.ndarray, told: np.ndarray, size: float = 6.5, digits: int = 1
) -> None:
    """A heat map of percents with the numbers of the cells that are told."""
    axis.imshow(values, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    axis.set_facecolor("#eeeeee")
    axis.grid(False)
    for (i, j), value in np.ndenumerate(values):
        if not np.isfinite(value):
            axis.text(j, i, "–", ha="center", va="center", fontsize=size)
        elif told[i, j]:
            text = f"{value:.{digits}f}"
            colour = "white" if value < 55 else "black"
            axis.text(j, i, text, ha="center", va="center", fontsize=size, color=colour)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)


def _curves(axis: plt.Axes, panel: Panel, names: Sequence[str]) -> None:
    for name, seeds in panel.lines.items():
        colour = COLOURS[names.index(name) % len(COLOURS)]
        x = seeds[0][0]
        y = np.stack([y for _, y in seeds])
        dash = DASHES[names.index(name) % 4]
        axis.plot(x, over_seeds(y), color=colour, linewidth=1.2, linestyle=dash)
        if len(seeds) > 1:
            axis.fill_between(x, y.min(0), y.max(0), color=colour, alpha=0.2, linewidth=0)
    for step, text in panel.gates:
        axis.axvline(step, color="#555555", linestyle="--", linewidth=0.9)
        axis.annotate(text, (step, 0.98), xycoords=("data", "axes fraction"), fontsize=6.5,
                      rotation=90, va="top", ha="right")  # fmt: skip
    ends = [seeds[0][1][-1] for seeds in panel.lines.values()]
    for level, text in panel.levels:
        below = "top" if np.nanmean(ends) > level else "bottom"
        axis.axhline(level, color="#555555", linestyle=":", linewidth=0.9)
        axis.annotate(text, (0.99, level), xycoords=("axes fraction", "data"), fontsize=6.5,
                      va=below, ha="right")  # fmt: skip
    axis.set_title(panel.title)
    axis.set_xlabel("step")


def over_seeds(seeds: np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is there; NaN where nothing is."""
    there = np.isfinite(seeds)
    total, count = np.where(there, seeds, 0).sum(0), there.sum(0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
