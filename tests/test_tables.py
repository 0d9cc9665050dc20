"""Tables: which columns, what a cell holds, what is averaged over what."""

import csv
import io

import numpy as np
import pytest

from madan import evaluation, tables
from madan.labels import CLASSES

PROTOCOL = {
    "scale": "miniature",
    "run": "segmenters/one",
    "seed": 0,
    "target": "cityscapes",
    "split": "test",
    "images": 8,
    "resolution": "64x128",
    "checkpoint": "last step",
    "step": 600,
    "torch": "2.14.1",
}
CERTIFICATE = {"content": "c0", "settings": "s1", "code": "k2", "inputs": "i3", "data": "d4"}
COLUMNS = [
    "scale", "row", "setting", "seed", *CLASSES, "miou19", "miou16", "miou13", "pixel_accuracy",
    "classes", "target", "split", "images", "resolution", "step", "torch", "settings", "data",
    "code",
]  # fmt: skip


def matrix(**cells):
    """A confusion matrix from cells such as _0_9=1: label 0 taken for 9 once."""
    confusion = np.zeros((19, 19), np.int64)
    for cell, count in cells.items():
        confusion[tuple(map(int, cell.strip("_").split("_")))] = count
    return confusion


# Road 3/4, wall 1/2, fence 0 (only predicted), terrain 1/2; terrain is none of the 16 classes,
# wall and fence are none of the 13.
KNOWN = matrix(_0_0=3, _0_9=1, _9_9=1, _3_3=1, _3_4=1)


@pytest.fixture
def score(tmp_path):
    """A score on disk, as a table finds it."""

    def score(confusion=KNOWN, row="one", setting="source-only", certificate=CERTIFICATE, **said):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        evaluation.write(path, confusion, PROTOCOL | said)
        return tables.Score(row, setting, path, certificate)

    return score


def cells(table):
    return list(csv.DictReader(io.StringIO(table.to_csv(index=False))))


def test_columns_are_exactly_these(score):
    assert tables.lines([score()]).columns.tolist() == COLUMNS


def test_line_by_hand(score):
    [line] = cells(tables.lines([score(seed=3)]))
    shown = {name: line[name] for name in ("road", "wall", "fence", "terrain")}
    assert shown == {"road": "75.0", "wall": "50.0", "fence": "0.0", "terrain": "50.0"}
    assert float(line["miou19"]) == 43.75
    assert float(line["miou16"]) == 41.67
    assert float(line["miou13"]) == 75
    assert float(line["pixel_accuracy"]) == 71.43
    assert line["classes"] == "4"


def test_protocol_and_certificate_stand_in_the_line(score):
    [line] = cells(tables.lines([score(row="madan", setting="multi-source", seed=3)]))
    expected = PROTOCOL | {"row": "madan", "setting": "multi-source", "seed": 3}
    expected |= {"settings": "s1", "data": "d4", "code": "k2"}
    for name in ("run", "checkpoint"):
        del expected[name]
    assert {name: line[name] for name in expected} == {k: str(v) for k, v in expected.items()}


def test_absent_class_is_an_empty_cell_and_not_averaged(score):
    [line] = cells(tables.lines([score(matrix(_0_0=1, _1_0=1))]))
    assert line["road"] == "50.0"
    assert line["sidewalk"] == "0.0"
    assert all(line[name] == "" for name in CLASSES[2:])
    assert line["miou19"] == line["miou16"] == line["miou13"] == "25.0"
    assert line["classes"] == "2"


def test_mean_over_a_subset_without_any_class_is_an_empty_cell(score):
    [line] = cells(tables.lines([score(matrix(_9_9=5))]))
    assert (line["miou19"], line["miou16"], line["miou13"]) == ("100.0", "", "")


def test_ious_are_rounded_to_hundredths(score):
    [line] = cells(tables.lines([score(matrix(_0_0=2, _1_0=1))]))
    assert line["road"] == "66.67"
    assert line["miou19"] == "33.33"


def test_lines_keep_the_order_of_the_scores(score):
    found = [score(row=row, seed=seed) for row in ("z", "a") for seed in (1, 0)]
    lines = cells(tables.lines(found))
    order = [("z", "1"), ("z", "0"), ("a", "1"), ("a", "0")]
    assert [(line["row"], line["seed"]) for line in lines] == order


def test_the_same_scores_give_the_same_bytes(score):
    found = [score(seed=seed) for seed in range(2)]
    assert tables.lines(found).to_csv() == tables.lines(found).to_csv()


def test_metrics_are_means_over_seeds_of_each_row(score):
    # 1/2, 1/2; then 3/4, wall 1 and terrain 1/2; then 2/3, 0.
    half = matrix(_0_0=1, _1_1=1, _1_0=1)
    more, third = matrix(_0_0=3, _0_9=1, _9_9=1, _3_3=1), matrix(_0_0=2, _1_0=1)
    found = [score(confusion, row="z", seed=k) for k, confusion in enumerate((half, more))]
    found += [score(confusion, row="a", seed=k) for k, confusion in enumerate((third, half, half))]
    found.append(score(matrix(), row="none"))
    made = tables.metrics(found)
    assert list(made) == ["z", "a", "none"]
    assert made["z"] == {"miou19": 62.5, "miou16": 68.75, "miou13": 62.5}
    assert made["a"] == {"miou19": 44.44, "miou16": 44.44, "miou13": 44.44}
    assert made["none"] == dict.fromkeys(("miou19", "miou16", "miou13"))


def test_whole_confusion_of_large_counts_stays_exact(score):
    [line] = cells(tables.lines([score(matrix(_0_0=3 * 10**12, _1_0=10**12))]))
    assert line["road"] == "75.0"
