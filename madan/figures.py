"""Figures: what the networks did, to look at."""

from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import numpy as np

from madan import labels

Rows = Mapping[str, list[np.ndarray]]


def translation(rows: Rows, path: Path) -> None:
    """Draw named rows of images uint8 [h, w, 3], or of train ids [h, w] in their colours."""
    columns = max(len(images) for images in rows.values())
    height, width = next(iter(rows.values()))[0].shape[:2]
    size = 1.9 * columns, 1.9 * height / width * len(rows)
    figure, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False)
    for (name, images), row in zip(rows.items(), axes, strict=True):
        for axis, image in zip(row, images, strict=False):
            axis.imshow(image if image.ndim == 3 else labels.colour(image), interpolation="nearest")
        for axis in row:
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
        row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=8)
    figure.subplots_adjust(left=0.13, right=1, bottom=0, top=1, wspace=0.02, hspace=0.02)
    # Neither date nor version: the same images give the same bytes.
    figure.savefig(path, dpi=100, metadata={"Software": None})
    plt.close(figure)
