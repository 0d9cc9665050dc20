"""Scores against hand numbers, torchmetrics, the Cityscapes scripts and the released code."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from madan.evaluation.metrics import confusion, iou, labelled, mean_iou, pixel_accuracy
from madan.labels import CLASSES_13, CLASSES_16, IGNORE, TABLES, to_label_ids

CLASSES = 19
SHAPE = (6, 9)
SUBSETS = (range(CLASSES), CLASSES_16, CLASSES_13)
truths = hnp.arrays(np.uint8, SHAPE, elements=st.sampled_from([*range(CLASSES), IGNORE]))
predicted = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, CLASSES - 1))


def drawn(seed=0, shape=(40, 50)):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, shape).astype(np.uint8)
    prediction = np.where(rng.random(shape) < 0.6, label, rng.integers(0, CLASSES, shape))
    label[rng.random(shape) < 0.1] = IGNORE
    return label, prediction.astype(np.uint8)


def test_numbers_by_hand():
    label = np.array([[0, 0, 0, 1], [1, 1, IGNORE, 0]])
    prediction = np.array([[0, 0, 1, 1], [1, 0, 2, 0]])
    counts = confusion(label, prediction, 3)
    assert counts.tolist() == [[3, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert counts.dtype == np.int64
    assert iou(counts)[:2].tolist() == [3 / 5, 2 / 4]
    assert mean_iou(counts, range(3)) == pytest.approx(0.55)
    assert mean_iou(counts, [1]) == 0.5
    assert pixel_accuracy(counts) == 5 / 7


def test_absent_class_is_not_counted():
    label, prediction = np.array([0, 0, 1]), np.array([0, 0, 1])
    counts = confusion(label, prediction, 3)
    assert math.isnan(iou(counts)[2])
    assert mean_iou(counts, range(3)) == 1
    assert math.isnan(mean_iou(counts, [2]))


def test_class_that_is_only_predicted_has_no_iou_but_its_pixels_are_errors():
    counts = confusion(np.array([0, 0, 1, 1]), np.array([0, 2, 1, 1]), 3)
    assert labelled(counts).tolist() == [True, True, False]
    assert iou(counts)[:2].tolist() == [1 / 2, 1]
    assert math.isnan(iou(counts)[2])
    assert mean_iou(counts, range(3)) == 3 / 4
    assert pixel_accuracy(counts) == 3 / 4


def test_three_stray_pixels_of_a_class_that_camvid_does_not_label_cost_next_to_nothing():
    """They used to make the mean one over 12 classes instead of 11."""
    classes = sorted(set(TABLES["camvid"].tolist()) - {IGNORE})
    label = np.repeat(np.array(classes, np.uint8), 1000)
    prediction = label.copy()
    prediction[::2] = np.roll(label, 1000)[::2]
    clean = confusion(label, prediction, CLASSES)
    prediction[[1, 3, 5]] = 16  # train
    stray = confusion(label, prediction, CLASSES)
    points = 100 * (mean_iou(stray, range(CLASSES)) - mean_iou(clean, range(CLASSES)))
    assert len(classes) == 11
    assert points == pytest.approx(0, abs=0.02)


def test_nothing_labelled_is_no_score():
    counts = confusion(np.full((2, 2), IGNORE), np.zeros((2, 2), int), CLASSES)
    assert not counts.any()
    assert math.isnan(pixel_accuracy(counts))
    assert math.isnan(mean_iou(counts, range(CLASSES)))


@pytest.mark.parametrize(
    ("label", "prediction", "message"),
    [
        ([[19]], [[0]], r"label must be one of 0..18, but it is \[19\]"),
        ([[-1]], [[0]], r"label must be one of 0..18, but it is \[-1\]"),
        ([[0]], [[255]], r"prediction must be one of 0..18, but it is \[255\]"),
        ([[0, 1]], [[0]], r"label has the shape \(1, 2\) but the prediction \(1, 1\)"),
    ],
)
def test_what_cannot_be_counted_is_refused(label, prediction, message):
    with pytest.raises(ValueError, match=message):
        confusion(np.array(label), np.array(prediction), CLASSES)


def test_figures_of_the_released_evaluation():
    with np.load(Path(__file__).parent / "golden" / "scores.npz") as golden:
        counts = confusion(golden["label"], golden["prediction"], CLASSES)
        assert (counts == golden["confusion"]).all()
        assert iou(counts) * 100 == pytest.approx(golden["iou"], rel=1e-8)
        assert pixel_accuracy(counts) * 100 == pytest.approx(float(golden["accuracy"]), rel=1e-8)
        frequency = counts.sum(axis=1) / counts.sum()
        assert frequency @ iou(counts) * 100 == pytest.approx(
            float(golden["frequency_weighted_iou"])
        )


def test_torchmetrics_agrees_where_the_truth_has_every_class():
    label, prediction = drawn()
    tensors = torch.from_numpy(prediction).int(), torch.from_numpy(label).int()
    counts = confusion(label, prediction, CLASSES)
    judge = MulticlassConfusionMatrix(CLASSES, ignore_index=IGNORE)
    assert (judge(*tensors).numpy() == counts).all()
    judge = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=IGNORE)
    ious = judge(*tensors).numpy()
    assert labelled(counts).all()
    assert iou(counts) == pytest.approx(ious, rel=1e-5)
    for subset in SUBSETS:
        assert mean_iou(counts, subset) == pytest.approx(ious[list(subset)].mean(), rel=1e-5)
    judge = MulticlassJaccardIndex(CLASSES, average="macro", ignore_index=IGNORE)
    assert mean_iou(counts, range(CLASSES)) == pytest.approx(float(judge(*tensors)), rel=1e-5)


def test_the_cityscapes_scripts_agree_where_the_truth_has_every_class(monkeypatch):
    monkeypatch.setattr(official.args, "evalInstLevelScore", False)
    label, prediction = drawn(1)
    counts = confusion(label, prediction, CLASSES)
    # Their matrix is indexed by label id, and what we ignore is their 0, which they leave out.
    matrix = official.generateMatrix(official.args)
    ids = to_label_ids(label), to_label_ids(prediction)
    np.add.at(matrix, tuple(each.ravel() for each in ids), 1)
    names = [official.id2label[int(to_label_ids(np.array([i]))[0])] for i in range(CLASSES)]
    theirs = {
        each.name: official.getIouScoreForLabel(each.id, matrix, official.args) for each in names
    }
    assert labelled(counts).all()
    assert iou(counts) == pytest.approx(list(theirs.values()))
    average = official.getScoreAverage(theirs, official.args)
    assert mean_iou(counts, range(CLASSES)) == pytest.approx(average)


@given(truths, predicted, predicted)
def test_classes_of_a_mean_do_not_depend_on_what_is_predicted(label, one, other):
    counts = [confusion(label, prediction, CLASSES) for prediction in (one, other)]
    assert (np.isfinite(iou(counts[0])) == np.isfinite(iou(counts[1]))).all()
    assert (labelled(counts[0]) == labelled(counts[1])).all()


@given(truths, predicted)
def test_mean_is_over_the_classes_of_the_truth_as_torchmetrics_has_their_ious(label, prediction):
    counts = confusion(label, prediction, CLASSES)
    judge = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=IGNORE)
    ious = judge(torch.from_numpy(prediction).int(), torch.from_numpy(label).int()).numpy()
    for subset in SUBSETS:
        counted = [k for k in subset if (label == k).any()]
        expected = ious[counted].mean() if counted else math.nan
        assert mean_iou(counts, subset) == pytest.approx(expected, rel=1e-5, nan_ok=True)


@given(truths, predicted)
def test_parts_add_up(label, prediction):
    whole = confusion(label, prediction, CLASSES)
    parts = [confusion(label[i], prediction[i], CLASSES) for i in range(SHAPE[0])]
    assert (whole == sum(parts)).all()
    assert whole.sum() == (label != IGNORE).sum()


@given(truths, predicted, st.permutations(range(CLASSES)))
def test_renaming_the_classes_renames_the_scores(label, prediction, order):
    renamed = np.full(256, IGNORE, dtype=np.uint8)
    renamed[:CLASSES] = order
    before = confusion(label, prediction, CLASSES)
    after = confusion(renamed[label], renamed[prediction], CLASSES)
    assert np.array_equal(iou(after)[list(order)], iou(before), equal_nan=True)
    assert np.array_equal(pixel_accuracy(after), pixel_accuracy(before), equal_nan=True)


@given(truths, predicted)
def test_scores_lie_between_0_and_1(label, prediction):
    counts = confusion(label, prediction, CLASSES)
    present = iou(counts)[np.isfinite(iou(counts))]
    assert ((present >= 0) & (present <= 1)).all()
    subset = mean_iou(counts, CLASSES_16)
    assert math.isnan(subset) or 0 <= subset <= 1


@given(truths)
def test_the_label_itself_is_a_perfect_prediction(label):
    counts = confusion(label, np.where(label == IGNORE, 0, label), CLASSES)
    assert set(iou(counts)[np.isfinite(iou(counts))]) <= {1.0}
