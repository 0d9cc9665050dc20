"""Tables: which columns, what a cell holds, what is averaged over what."""

import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from madan import evaluation, published, tables
from madan.labels import CLASSES
from madan.schema import Row, Table, Verdict

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


def of_one_class(iou):
    """A confusion matrix whose only IoU, of the road, is so many percent."""
    return matrix(_0_0=round(100 * iou), _0_10=0, _0_9=round(10000 - 100 * iou))


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


def settings(scale="miniature"):
    near = Verdict(points=1, deviations=2)
    return SimpleNamespace(scale=scale, evaluation=SimpleNamespace(verdict=near))


def test_summary_is_the_mean_and_the_sample_deviation_over_seeds(score):
    made = scored(score, one=[10, 20, 60], two=[50])
    table = Table(target="cityscapes", rows=rows("two", "one", "three"))
    two, one, three = tables.summary(made, table, settings()).to_dict("records")
    assert (one["row"], one["n"], one["road"]) == ("one", 3, 30)
    # The traffic of 9 is none of the 16: road alone counts there.
    assert one["miou16"] == pytest.approx(30)
    assert one["miou16_sd"] == pytest.approx(np.std([10, 20, 60], ddof=1))
    assert two["n"] == 1 and np.isnan(two["miou16_sd"])
    assert three["n"] == 0 and np.isnan(three["miou16"])


def test_class_absent_from_a_split_has_no_mean_and_one_of_some_seeds_the_mean_of_those(score):
    made = tables.lines(
        [
            score(matrix(_0_0=1, _1_0=1), row="one", seed=0),
            score(matrix(_0_0=1, _13_13=1), row="one", seed=1),
        ]
    )
    [line] = tables.summary(made, Table(target="x", rows=rows("one")), settings()).to_dict(
        "records"
    )
    assert (line["road"], line["car"], line["sidewalk"]) == (75, 100, 0)
    assert np.isnan(line["bus"])


def test_summary_of_nothing_has_its_rows_and_no_numbers():
    table = Table(target="cityscapes", against="one", rows=rows("one", "two"))
    found = tables.summary(tables.lines([]), table, settings())
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


CONFIRMED, COPIED = published.Figure(40.0, "miou confirmed"), published.Figure(40.0, "transcribed")


@pytest.mark.parametrize(
    ("n", "difference", "deviation", "figure", "said"),
    [
        (3, 0.4, 0.1, CONFIRMED, "reproduced"),
        (3, -1.0, 0.1, CONFIRMED, "reproduced"),
        (3, 1.01, 0.1, CONFIRMED, "off"),
        (3, -1.6, 0.8, CONFIRMED, "within seed noise"),
        (3, -1.61, 0.8, CONFIRMED, "off"),
        (1, 5.0, float("nan"), CONFIRMED, "off"),
        (1, 0.0, float("nan"), CONFIRMED, "reproduced"),
        (0, float("nan"), float("nan"), CONFIRMED, "not run"),
        (0, float("nan"), float("nan"), None, "not run"),
        (3, 0.0, 0.1, COPIED, "published figure unconfirmed"),
        (3, float("nan"), float("nan"), None, ""),
    ],
)
def test_verdict_by_hand(n, difference, deviation, figure, said):
    near = Verdict(points=1, deviations=2)
    assert tables.verdict(n, difference, deviation, figure, near) == said


def test_published_figures_stand_beside_numbers_of_full_size_alone(score):
    made = scored(score, madan=[40, 41], oracle=[62.6], other=[7])
    lines = [
        *rows("madan", published="multi-source/MADAN"),
        *rows("oracle", published="oracle/FCN on target"),
        *rows("other"),
    ]
    table = Table(target="cityscapes", rows=lines)
    assert not {"published", "difference", "verdict"} & set(
        tables.summary(made, table, settings()).columns
    )
    found = tables.summary(made, table, settings("paper"))
    assert found["published"].tolist()[:2] == [41.4, 62.6]
    assert found["difference"].tolist()[:2] == [-0.9, 0.0]
    assert found["verdict"].tolist() == ["reproduced", "published figure unconfirmed", ""]


def test_published_figures_are_whole_and_classes_average_to_means():
    for target, count in (("cityscapes", 33), ("bdd100k", 18)):
        assert len(published.figures(target)) == count
    with open(published.__file__.replace(".py", ".csv")) as file:
        for line in csv.DictReader(file):
            ious = [float(line[name]) for name in tables.SHOWN if line[name]]
            assert len(ious) in (0, 16)
            if ious:
                assert np.mean(ious) == pytest.approx(float(line["miou16"]), abs=0.11), line
    assert published.figures("my-own-city") == {}
