"""Evaluation: every pixel of every image once, at the label's own size."""

import json

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchmetrics.classification import MulticlassConfusionMatrix

from madan.data import batches
from madan.data.datasets import Pictures
from madan.evaluation import metrics
from madan.evaluation.evaluate import evaluate, predict, write
from madan.labels import CLASSES, IGNORE

SIZE = (6, 10)


class Told(nn.Module):
    """An F that reads the classes off the red of the image, which labels were written into."""

    def forward(self, x):
        mean, std = batches.IMAGENET_MEAN[0], batches.IMAGENET_STD[0]
        red = ((x[:, 0] * std + mean) * 255).round().long().clamp(max=len(CLASSES) - 1)
        return F.one_hot(red, len(CLASSES)).permute(0, 3, 1, 2).float()


class Always(nn.Module):
    """An F that says the same class everywhere, and in which mode it was asked."""

    def __init__(self, train_id):
        super().__init__()
        self.train_id, self.modes = train_id, []

    def forward(self, x):
        self.modes.append(self.training)
        said = torch.zeros(len(x), len(CLASSES), *x.shape[2:])
        said[:, self.train_id] = 1
        return said


@pytest.fixture
def prepared(tmp_path):
    """A prepared split with these labels; its images say `told` in red, by default the labels."""

    def prepared(truths, told=None, shards=1):
        folders = []
        for k in range(shards):
            mine, said = truths[k::shards], (truths if told is None else told)[k::shards]
            folder = tmp_path / str(k)
            folder.mkdir()
            tall, wide = (max(extent) for extent in zip(*(t.shape for t in mine), strict=True))
            labels = np.full((len(mine), tall, wide), IGNORE, np.uint8)
            for row, truth in enumerate(mine):
                labels[row, : truth.shape[0], : truth.shape[1]] = truth
            np.save(folder / "labels.npy", labels)
            np.save(folder / "images.npy", np.stack([np.stack([s] * 3, axis=2) for s in said]))
            items = [{"name": str(row), "size": list(t.shape)} for row, t in enumerate(mine)]
            manifest = {"items": items, "pixels": [0] * 19}
            (folder / "manifest.json").write_text(json.dumps(manifest))
            folders.append(folder)
        return Pictures("target", folders, folders)

    return prepared


def drawn(count, seed=0, classes=len(CLASSES), size=SIZE):
    return np.random.default_rng(seed).integers(0, classes, (count, *size)).astype(np.uint8)


def test_segmenter_that_says_the_labels_scores_one(prepared):
    confusion = evaluate(Told(), prepared(drawn(5)), 2, "fp32")
    assert metrics.mean_iou(confusion, range(19)) == 1
    assert confusion.dtype == np.int64
    assert confusion.shape == (19, 19)


def test_rows_are_labels_and_columns_predictions(prepared):
    truths, told = drawn(4), drawn(4, seed=1)
    confusion = evaluate(Told(), prepared(truths, told), 3, "fp32")
    judge = MulticlassConfusionMatrix(19)
    expected = judge(torch.from_numpy(told.astype(int)), torch.from_numpy(truths.astype(int)))
    assert np.array_equal(confusion, expected.numpy())


@pytest.mark.parametrize("batch", [1, 8, 11, 50])
def test_every_image_of_the_split_counts_once_whatever_the_batch(prepared, batch):
    truths = drawn(33)
    confusion = evaluate(Told(), prepared(truths, shards=2), batch, "fp32")
    assert confusion.sum(axis=1).tolist() == np.bincount(truths.ravel(), minlength=19).tolist()
    assert np.array_equal(confusion, np.diag(confusion.diagonal()))


def test_ignored_pixels_do_not_count(prepared):
    truths = drawn(3)
    told = truths.copy()
    truths[:, :2] = IGNORE
    told[:, :2] = 7
    confusion = evaluate(Told(), prepared(truths, told), 2, "fp32")
    assert confusion.sum() == 3 * 4 * SIZE[1]
    assert metrics.pixel_accuracy(confusion) == 1


def test_absent_classes_have_no_score(prepared):
    ious = metrics.iou(evaluate(Told(), prepared(drawn(2, classes=3)), 2, "fp32"))
    assert ious[:3].tolist() == [1, 1, 1]
    assert np.isnan(ious[3:]).all()


def test_scores_are_resized_to_labels_of_native_size(prepared):
    # Blocks of one class, seen by F at half their size: wrong at most along their borders.
    told = drawn(4, size=(2, 3)).repeat(8, 1).repeat(8, 2)
    truths = told.repeat(2, 1).repeat(2, 2)
    confusion = evaluate(Told(), prepared(truths, told), 3, "fp32")
    assert confusion.sum() == truths.size
    assert metrics.pixel_accuracy(confusion) == 1


def test_labels_of_several_sizes_count_without_their_padding(prepared):
    sizes = [(6, 10), (12, 20), (9, 15)]
    truths = [np.full(size, k, np.uint8) for k, size in enumerate(sizes)]
    told = [np.full(SIZE, k, np.uint8) for k in range(3)]
    confusion = evaluate(Told(), prepared(truths, told), 2, "fp32")
    assert confusion.diagonal()[:3].tolist() == [60, 240, 135]
    assert confusion.sum() == 60 + 240 + 135


@pytest.mark.parametrize("size", [(12, 20), (11, 23), (6, 10)])
def test_predictions_are_those_of_scores_enlarged_bilinearly(size):
    score = torch.randn(19, 6, 10, generator=torch.Generator().manual_seed(0))
    seen = predict(score, size)
    judge = cv2.resize(score.permute(1, 2, 0).numpy(), size[::-1], interpolation=cv2.INTER_LINEAR)
    assert seen.dtype == np.uint8
    assert seen.shape == size
    assert (seen == judge.argmax(axis=2)).mean() > 0.995


def test_segmenter_is_evaluated_in_evaluation_mode(prepared):
    net = Always(3).train()
    confusion = evaluate(net, prepared(drawn(5)), 2, "fp32")
    assert net.modes == [False] * 3
    assert not np.delete(confusion, 3, axis=1).any()


def test_bf16_reaches_the_network_and_its_scores_count_in_fp32(prepared):
    seen = []

    class Convolution(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 19, 1)

        def forward(self, x):
            seen.append(self.layer(x))
            return seen[-1]

    pictures = prepared(drawn(3).repeat(2, 1), drawn(3))
    for precision, dtype in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        assert evaluate(Convolution(), pictures, 2, precision).sum() == 3 * 12 * 10
        assert seen.pop().dtype == dtype


def test_class_that_is_only_predicted_does_not_enter_the_mean(prepared):
    truths = drawn(2, classes=3)
    told = truths.copy()
    told[0, 0, :3] = 16
    confusion = evaluate(Told(), prepared(truths, told), 2, "fp32")
    ious = metrics.iou(confusion)
    assert np.flatnonzero(np.isfinite(ious)).tolist() == [0, 1, 2]
    assert metrics.mean_iou(confusion, range(19)) == ious[:3].mean()


def test_score_file_holds_its_protocol_and_the_whole_matrix(tmp_path):
    confusion = np.arange(361).reshape(19, 19)
    write(tmp_path / "score.json", {"cityscapes": confusion}, {"scale": "miniature", "step": 7})
    said = json.loads((tmp_path / "score.json").read_text())
    assert np.array_equal(said.pop("confusion"), confusion)
    assert said == {"scale": "miniature", "step": 7, "mean_over": list(CLASSES)}


def test_score_file_names_the_classes_of_the_truth(tmp_path):
    confusion = np.zeros((19, 19), np.int64)
    confusion[0, 16] = confusion[13, 13] = 3
    write(tmp_path / "score.json", {"cityscapes": confusion}, {})
    assert json.loads((tmp_path / "score.json").read_text())["mean_over"] == ["road", "car"]
