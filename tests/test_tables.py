"""Tables: which columns, what a cell holds, what is averaged over what."""

import csv
import io
import json

import numpy as np
import pytest
from scipy import stats

from madan.config.schema import Row, Table
from madan.errors import Refusal
from madan.evaluation import evaluate
from madan.labels import CLASSES, CLASSES_13, CLASSES_16
from madan.report import tables

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
    "code", "mean_over",
]  # fmt: skip


def matrix(**cells):
    """A confusion matrix from cells such as _0_9=1: label 0 taken for 9 once."""
    confusion = np.zeros((19, 19), np.int64)
    for cell, count in cells.items():
        confusion[tuple(map(int, cell.strip("_").split("_")))] = count
    return confusion


# Road 3/4, wall 1/2, terrain 1/2; fence is only predicted; terrain is none of the 16 classes, wall
# and fence are none of the 13.
KNOWN = matrix(_0_0=3, _0_9=1, _9_9=1, _3_3=1, _3_4=1)


@pytest.fixture
def score(tmp_path):
    """A score on disk, as a table finds it."""

    def score(confusion=KNOWN, row="one", setting="source-only", certificate=CERTIFICATE, **said):
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.json"
        named = confusion if isinstance(confusion, dict) else {"cityscapes": confusion}
        evaluate.write(path, named, PROTOCOL | said)
        return tables.Score(row, setting, path, certificate)

    return score


def cells(table):
    return list(csv.DictReader(io.StringIO(table.to_csv(index=False))))


def test_columns_are_exactly_these(score):
    assert tables.lines([score()]).columns.tolist() == COLUMNS


def test_line_by_hand(score):
    [line] = cells(tables.lines([score(seed=3)]))
    shown = {name: line[name] for name in ("road", "wall", "fence", "terrain")}
    assert shown == {"road": "75.0", "wall": "50.0", "fence": "", "terrain": "50.0"}
    assert float(line["miou19"]) == 58.33
    assert float(line["miou16"]) == 62.5
    assert float(line["miou13"]) == 75
    assert float(line["pixel_accuracy"]) == 71.43
    assert line["classes"] == "3"
    assert line["mean_over"] == "road, wall, terrain"


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


def test_rows_are_over_the_same_classes_whatever_they_predict(score):
    """A row that predicts a class without a label somewhere was once divided by one more."""
    clean = score(matrix(_0_0=9, _1_1=4, _0_1=1), row="clean")
    stray = score(matrix(_0_0=6, _1_1=4, _0_1=1, _0_16=3), row="stray")
    lines = tables.lines([clean, stray])
    assert lines["classes"].tolist() == [2, 2]
    assert lines["mean_over"].tolist() == ["road, sidewalk"] * 2
    assert lines["miou19"].tolist() == [85.0, 70.0]


@pytest.mark.parametrize("read", [tables.lines, tables.averages])
def test_scores_over_different_classes_are_not_put_into_one_table(score, read):
    found = [score(matrix(_0_0=1, _1_1=1)), score(matrix(_0_0=1), row="other", seed=4)]
    with pytest.raises(Refusal) as refusal:
        read(found)
    said = str(refusal.value)
    assert str(found[0].path) in said and str(found[1].path) in said
    assert "2 classes (road, sidewalk)" in said and "1 class (road)" in said
    assert said.endswith("madan evaluate segmenters/one cityscapes/test --seed 4")


def test_with_all_19_classes_labelled_every_mean_is_that_of_all_its_classes(score):
    confusion = np.random.default_rng(0).integers(1, 50, (19, 19))
    [line] = tables.lines([score(confusion)]).to_dict("records")
    both = confusion.sum(0) + confusion.sum(1)
    ious = 100 * confusion.diagonal() / (both - confusion.diagonal())
    assert line["classes"] == 19
    assert line["miou19"] == round(ious.mean(), 2)
    assert line["miou16"] == round(ious[list(CLASSES_16)].mean(), 2)
    assert line["miou13"] == round(ious[list(CLASSES_13)].mean(), 2)


def test_metrics_are_means_over_seeds_of_each_row(score):
    # Road, sidewalk and terrain have 1/2, 1/2, 1; then 3/5, 1, 0. Terrain is none of the 16.
    half, more = matrix(_0_0=1, _1_1=1, _1_0=1, _9_9=1), matrix(_0_0=3, _1_1=1, _0_9=1, _9_0=1)
    found = [score(confusion, row="z", seed=k) for k, confusion in enumerate((half, more))]
    found += [score(confusion, row="a", seed=k) for k, confusion in enumerate((more, half, half))]
    made = tables.averages(found)
    assert list(made) == ["z", "a"]
    assert made["z"] == {"miou19": 60.0, "miou16": 65.0, "miou13": 65.0}
    assert made["a"] == {"miou19": 62.22, "miou16": 60.0, "miou13": 60.0}


def test_metrics_of_a_split_without_labels_are_none(score):
    assert tables.averages([score(matrix(), row="none")]) == {
        "none": dict.fromkeys(("miou19", "miou16", "miou13"))
    }


def test_whole_confusion_of_large_counts_stays_exact(score):
    [line] = cells(tables.lines([score(matrix(_0_0=3 * 10**12, _1_0=10**12))]))
    assert line["road"] == "75.0"


def of_one_class(iou):
    """A confusion matrix whose only IoU, of the road, is so many percent."""
    return matrix(_0_0=round(100 * iou), _0_10=0, _0_9=round(10000 - 100 * iou))


def test_each_dataset_of_a_union_has_a_line_and_their_sum_is_the_score(score):
    parts = {"dry": matrix(_0_0=3, _0_1=1), "wet": matrix(_1_1=2, _1_0=2)}
    found = [score(parts, row="union", seed=seed) for seed in (0, 1)]
    lines = tables.members(found)
    assert lines[["row", "dataset", "n"]].values.tolist() == [
        ["union", "dry", 2], ["union", "wet", 2],
    ]  # fmt: skip
    assert lines["road"][0] == 75 and np.isnan(lines["road"][1])
    assert lines["sidewalk"][1] == 50 and np.isnan(lines["sidewalk"][0])
    # Each mean is over the classes that the truth of the dataset contains.
    assert lines["miou16"].tolist() == [75.0, 50.0]
    whole = tables.lines(found)
    assert whole["road"].tolist() == [50.0, 50.0] and whole["sidewalk"].tolist() == [40.0, 40.0]


def test_one_dataset_as_target_has_no_lines_of_datasets(score):
    assert tables.members([score()]).empty
    assert "members" not in json.loads(score().path.read_text())


def scored(score, **rows):
    """Lines of rows whose seeds have these IoUs of the road."""
    return tables.lines(
        [
            score(of_one_class(iou), row=name, seed=seed)
            for name, ious in rows.items()
            for seed, iou in enumerate(ious)
            if iou is not None
        ]
    )


def rows(*names, **more):
    return [Row(row=name, setting="any", run=f"segmenters/{name}", **more) for name in names]


def test_summary_is_the_mean_and_the_sample_deviation_over_seeds(score):
    made = scored(score, one=[10, 20, 60], two=[50])
    table = Table(target="cityscapes", rows=rows("two", "one", "three"))
    two, one, three = tables.summary(made, table).to_dict("records")
    assert (one["row"], one["n"], one["road"]) == ("one", 3, 30)
    # The traffic of 9 is none of the 16: road alone counts there.
    assert one["miou16"] == pytest.approx(30)
    assert one["miou16_sd"] == pytest.approx(np.std([10, 20, 60], ddof=1))
    assert two["n"] == 1 and np.isnan(two["miou16_sd"])
    assert three["n"] == 0 and np.isnan(three["miou16"])


def test_class_without_a_label_has_no_mean_over_seeds(score):
    made = tables.lines(
        [
            score(matrix(_0_0=1, _1_0=1), row="one", seed=0),
            score(matrix(_0_0=1, _1_13=1), row="one", seed=1),
        ]
    )
    [line] = tables.summary(made, Table(target="x", rows=rows("one"))).to_dict("records")
    assert (line["road"], line["sidewalk"]) == (75, 0)
    assert np.isnan(line["car"]) and np.isnan(line["bus"])


def test_summary_of_nothing_has_its_rows_and_no_numbers():
    table = Table(target="cityscapes", against="one", rows=rows("one", "two"))
    found = tables.summary(tables.lines([]), table)
    assert found["n"].tolist() == [0, 0] and found["miou16"].isna().all()
    apart = tables.differences(tables.lines([]), table)
    assert apart["n"].tolist() == [0, 0, 0] and apart["difference"].isna().all()


def test_differences_are_paired_by_seed_with_students_interval(score):
    mine, other = [10.0, 25.0, 60.0, None], [12.0, 20.0, 50.0, 99.0]
    made = scored(score, mine=mine, other=other)
    table = Table(target="cityscapes", against="other", rows=rows("mine", "other"))
    [line] = tables.differences(made, table).query("mean == 'miou16'").to_dict("records")
    assert (line["row"], line["against"], line["n"]) == ("mine", "other", 3)
    low, high = stats.ttest_rel(mine[:3], other[:3]).confidence_interval(0.95)
    assert line["difference"] == pytest.approx(13 / 3, abs=0.006)
    assert (line["low"], line["high"]) == pytest.approx((low, high), abs=0.006)
    assert (line["scale"], line["data"]) == ("miniature", "d4")


def test_one_seed_has_a_difference_and_no_interval(score):
    made = scored(score, mine=[30], other=[20])
    table = Table(target="cityscapes", rows=[*rows("mine", against="other"), *rows("other")])
    [line] = tables.differences(made, table).query("mean == 'miou16'").to_dict("records")
    assert line["difference"] == 10
    assert np.isnan([line["sd"], line["low"], line["high"]]).all()


def test_a_row_is_compared_with_its_own_and_with_the_tables():
    table = Table(target="cityscapes", against="a", rows=[*rows("a", "b"), *rows("c", against="b")])
    apart = tables.differences(tables.lines([]), table)
    pairs = dict.fromkeys(zip(apart["row"], apart["against"], strict=True))
    assert list(pairs) == [("b", "a"), ("c", "a"), ("c", "b")]
