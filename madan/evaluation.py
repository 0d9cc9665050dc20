"""Evaluation of a segmenter: one confusion matrix over a whole split at native resolution."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from madan import batches, labels, scores, training
from madan.datasets import ImageSet
from madan.drn26 import Net
from madan.progress import Meter


def evaluate(net: Net, pictures: ImageSet, batch: int, precision: str) -> np.ndarray:
    """Confusion matrix int64 [19, 19] of F's predictions, scores resized to each label's size."""
    total = np.zeros((len(labels.CLASSES),) * 2, np.int64)
    for row, score in scored(net, pictures, batch, precision):
        truth = pictures.label(row)
        total += scores.confusion(truth, predict(score, truth.shape), len(labels.CLASSES))
    return total


@torch.inference_mode()
def scored(
    net: Net, pictures: ImageSet, batch: int, precision: str
) -> Iterator[tuple[int, torch.Tensor]]:
    """The row of every picture and its scores [19, h, w], fp32, of F without dropout."""
    net.eval()
    meter = Meter("evaluate", len(pictures), every=60)
    for first in range(0, len(pictures), batch):
        rows = range(first, min(first + batch, len(pictures)))
        images = np.stack([pictures.image(row) for row in rows])
        x = batches.scale(batches.on(training.device(), images))
        with training.autocast(precision):
            found = net(batches.imagenet(x))
        yield from zip(rows, found.float(), strict=True)
        meter.show(rows.stop, {})
    meter.close()


def predict(score: torch.Tensor, size: tuple[int, ...]) -> np.ndarray:
    """Train ids uint8 [H, W] of one image's scores [19, h, w], enlarged bilinearly."""
    if tuple(score.shape[1:]) != tuple(size):
        score = F.interpolate(score[None], size=size, mode="bilinear", align_corners=False)[0]
    # On CPU max is several times faster than argmax.
    return score.max(0).indices.byte().cpu().numpy()


def write(path: Path, confusion: np.ndarray, protocol: Mapping[str, Any]) -> None:
    """Write a score: its protocol and its confusion matrix, from which every figure follows."""
    path.write_text(json.dumps({**protocol, "confusion": confusion.tolist()}) + "\n")
