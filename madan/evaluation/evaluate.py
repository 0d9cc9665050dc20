"""Evaluation of a segmenter: one confusion matrix over a whole split, at the labels' own size."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from madan import labels
from madan.data import batches
from madan.data.datasets import ImageSet
from madan.engine import training
from madan.engine.progress import Meter
from madan.evaluation import metrics
from madan.models.drn26 import Net


def evaluate(net: Net, pictures: ImageSet, batch: int, precision: str) -> np.ndarray:
    """Count the confusion matrix int64 [19, 19] of F over a split.

    The class scores of F are resized bilinearly to the size of each label. `batch` is a number of
    images, `precision` one of fp32, bf16 and auto.
    """
    total = np.zeros((len(labels.CLASSES),) * 2, np.int64)
    for row, score in scored(net, pictures, batch, precision):
        truth = pictures.label(row)
        total += metrics.confusion(truth, predict(score, truth.shape), len(labels.CLASSES))
    return total


@torch.inference_mode()
def scored(
    net: Net, pictures: ImageSet, batch: int, precision: str
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the number of every picture and its class scores [19, h, w], fp32, without dropout."""
    net.eval()
    meter = Meter("evaluate", len(pictures), every=60)
    for first in range(0, len(pictures), batch):
        rows = range(first, min(first + batch, len(pictures)))
        images = np.stack([pictures.image(row) for row in rows])
        x = batches.scale(batches.on(training.device(), images))
        with training.autocast(precision):
            score = net(batches.imagenet(x))
        yield from zip(rows, score.float(), strict=True)
        meter.show(rows.stop, {})
    meter.close()


def predict(score: torch.Tensor, size: tuple[int, ...]) -> np.ndarray:
    """Return the train ids uint8 [H, W] of one image's class scores [19, h, w].

    Scores of another size are resized bilinearly first.
    """
    if tuple(score.shape[1:]) != tuple(size):
        score = F.interpolate(score[None], size=size, mode="bilinear", align_corners=False)[0]
    # On CPU max is several times faster than argmax.
    return score.max(0).indices.byte().cpu().numpy()


def write(path: Path, confusions: Mapping[str, np.ndarray], protocol: Mapping[str, Any]) -> None:
    """Write a score: its protocol, the classes that means are over, and its confusion matrix.

    `confusions` has a matrix, int [19, 19], for each dataset of the target. The score is their
    sum. A target of several datasets keeps the matrix of each one as `members`.

    `mean_over` names the classes that the truth of the split labels (`metrics.mean_iou`). Every
    figure of a table follows from the matrix.
    """
    confusion = np.sum([*confusions.values()], axis=0)
    names = [labels.CLASSES[k] for k in np.flatnonzero(metrics.labelled(confusion))]
    score = {**protocol, "mean_over": names, "confusion": confusion.tolist()}
    if len(confusions) > 1:
        score["members"] = {name: each.tolist() for name, each in confusions.items()}
    text = json.dumps(score)
    path.write_text(text + "\n")
