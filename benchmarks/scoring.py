"""Labels and scores against plain ways and against what people use."""

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import plain
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from numpy.typing import NDArray
from pairs import Pair, Size
from torchmetrics.classification import MulticlassConfusionMatrix

from madan import labels
from madan.data import layouts, masks
from madan.evaluation import evaluate, export, metrics
from madan.miniature import world

CLASSES = len(labels.CLASSES)
MEANING = layouts.Meaning("ids", layouts.LAYOUTS["cityscapes"].table, released=True)
Array = NDArray[np.integer]


def pairs(size: Size, scratch: Path) -> Iterator[Pair]:
    """label-remap, confusion, score-image, score-cityscapes."""
    yield _remap(size)
    yield from _counts(size, scratch)


def _remap(size: Size) -> Pair:
    _, truth = world.draw("gta5", "train", 0, seed=0, size=size.native)
    table = layouts.LAYOUTS["gta5"].table
    native = labels.to_label_ids(truth)
    # An id that no class has, too.
    native[:4] = 5

    def check() -> float:
        expected = plain.remapped(native, labels.TABLES["gta5"])
        return float((labels.look_up(labels.TABLES["gta5"], native) != expected).mean())

    what = f"{size.native[0]}x{size.native[1]} uint8 ids, beside one mask for each of 35"
    return Pair(
        "label-remap", what, lambda: plain.remapped(native, table),
        lambda: labels.look_up(table, native), check, 0.0,
    )  # fmt: skip


def _counts(size: Size, scratch: Path) -> Iterator[Pair]:
    rng = np.random.default_rng(0)
    _, truth = world.draw("cityscapes", "train", 0, seed=0, size=size.scored)
    wrong = rng.random(truth.shape) < 0.2
    seen = np.where(wrong | (truth == labels.IGNORE), rng.integers(0, CLASSES, truth.shape), truth)
    seen = seen.astype(np.uint8)
    score = torch.nn.functional.one_hot(torch.from_numpy(seen).long(), CLASSES)
    score = score.permute(2, 0, 1).float().contiguous()
    long_truth, long_seen = truth.astype(np.int64), seen.astype(np.int64)
    expected = plain.confusion(long_truth, long_seen, CLASSES)
    metric = MulticlassConfusionMatrix(CLASSES, ignore_index=labels.IGNORE, validate_args=False)

    def ours() -> np.ndarray:
        return metrics.confusion(truth, seen, CLASSES)

    def scored() -> np.ndarray:
        predicted = evaluate.predict(score, truth.shape)
        return metrics.confusion(truth, predicted, CLASSES)

    def by_torchmetrics() -> np.ndarray:
        metric.reset()
        metric.update(score[None], torch.from_numpy(long_truth)[None])
        return metric.compute().numpy()

    def error(found: np.ndarray) -> float:
        return float(np.abs(found - expected).sum())

    what = f"{size.scored[0]}x{size.scored[1]}, 19 classes"
    yield Pair(
        "confusion", f"{what}, beside bincount of int64 ids behind a mask",
        lambda: plain.confusion(long_truth, long_seen, CLASSES), ours, lambda: error(ours()), 0.0,
    )  # fmt: skip
    yield Pair(
        "score-image", f"{what}, from scores to counts, beside torchmetrics",
        by_torchmetrics, scored, lambda: error(scored()) + error(by_torchmetrics()), 0.0,
    )  # fmt: skip
    yield _files(what, scratch, truth, seen, expected)


def _files(what: str, scratch: Path, truth: Array, seen: Array, expected: Array) -> Pair:
    """From two PNGs of label ids to counts, beside evaluatePair of the Cityscapes scripts."""
    paths = [scratch / "seen.png", scratch / "truth.png"]
    for path, train_ids in zip(paths, (seen, truth), strict=True):
        path.write_bytes(export.png(labels.to_label_ids(train_ids)))
    args = copy.copy(official.args)
    args.evalInstLevelScore = args.evalPixelAccuracy = False
    kept = labels.to_label_ids(np.arange(CLASSES, dtype=np.uint8))

    def theirs() -> Array:
        matrix = official.generateMatrix(args)
        official.evaluatePair(*map(str, paths), matrix, {}, {}, args)
        return matrix[np.ix_(kept, kept)].astype(np.int64)

    def ours() -> Array:
        found, true = (masks.read(path, MEANING).truth for path in paths)
        return metrics.confusion(true, found, CLASSES)

    def check() -> float:
        return float(np.abs(theirs() - expected).sum() + np.abs(ours() - expected).sum())

    what = f"{what}, from PNGs to counts, beside evaluatePair of cityscapesScripts"
    return Pair("score-cityscapes", what, theirs, ours, check, 0.0)
