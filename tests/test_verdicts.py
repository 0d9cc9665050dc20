"""Published figures beside ours: which rows, what is compared, what a verdict says."""

import csv
import io

import numpy as np
import pandas as pd
import pytest

from madan import config, labels, published
from madan.config.schema import Verdict
from madan.report import escaping, tables, verdicts

CONFIRMED = published.Figure("any", "m", 40.0, "miou confirmed")
COPIED = published.Figure("any", "m", 40.0, "transcribed")
NAN = float("nan")
TARGETS = {"cityscapes": 500, "bdd100k": 1000}


@pytest.fixture
def params(raw):
    return config.resolve(raw | {"scale": "paper"})


def lines(values, images=500, target="cityscapes"):
    """Lines of rows whose seeds have these numbers everywhere."""
    said = {"scale": "paper", "target": target, "split": "val", "images": images, "step": 9}
    said |= {"resolution": "1024x2048", "data": "d4", "mean_over": ", ".join(labels.CLASSES)}
    return pd.DataFrame(
        [
            dict.fromkeys(tables.COLUMNS, value) | said | {"row": row, "setting": "s", "seed": seed}
            for row, seeds in values.items()
            for seed, value in enumerate(seeds)
        ],
        columns=list(tables.COLUMNS),
    )


def by_row(found):
    return {line["row"]: line for line in found.to_dict("records")}


@pytest.mark.parametrize(
    ("n", "difference", "deviation", "figure", "word"),
    [
        (3, 0.4, 0.1, CONFIRMED, "reproduced"),
        (3, -1.0, 0.1, CONFIRMED, "reproduced"),
        (3, 1.01, 0.1, CONFIRMED, "off"),
        (3, -1.6, 0.8, CONFIRMED, "within seed noise"),
        (3, -1.61, 0.8, CONFIRMED, "off"),
        (2, -1.6, 0.8, CONFIRMED, "off"),
        (2, -1.6, 99.0, CONFIRMED, "off"),
        (1, 5.0, NAN, CONFIRMED, "off"),
        (1, 0.0, NAN, CONFIRMED, "reproduced"),
        (0, NAN, NAN, CONFIRMED, "not run"),
        (0, NAN, NAN, None, "not run"),
        (3, 0.0, 0.1, COPIED, "published figure unconfirmed"),
        (3, NAN, NAN, None, ""),
    ],
)
def test_verdict_by_hand(n, difference, deviation, figure, word):
    near = Verdict(points=1, deviations=2)
    assert verdicts.verdict(n, difference, deviation, figure, near) == word


@pytest.mark.parametrize("figure", [CONFIRMED, COPIED])
def test_nothing_is_concluded_from_other_images(figure):
    near = Verdict(points=1, deviations=2)
    said = verdicts.verdict(3, 0.0, 0.1, figure, near, "8 of 500 images")
    assert said == "not compared: 8 of 500 images"


@pytest.mark.parametrize(("name", "target"), [("comparison", "cityscapes"), ("bdd100k", "bdd100k")])
def test_all_images_of_the_release_are_compared_and_fewer_are_not(params, name, target):
    table, whole = params.tables[name], TARGETS[target]
    for images, reason in (
        (whole, ""),
        (8, f"8 of {whole} images"),
        (528, f"528 of {whole} images"),
    ):
        made = lines({"madan": [40.0]}, images, target)
        assert verdicts.mismatch(made, table, params) == reason
        madan = by_row(verdicts.compared(made, table, params))["madan"]
        assert np.isnan(madan["difference"]) == bool(reason)
        assert ("not compared" in madan["verdict"]) == bool(reason)
        found = verdicts.lines(made, table, params).to_dict("records")
        [line] = [each for each in found if each["row"] == "madan"]
        assert pd.isna(line["difference"]) == bool(reason)
        assert pd.isna(line["difference road"]) == (bool(reason) or target == "bdd100k")


def test_another_split_is_not_compared(raw):
    split = {"evaluation": raw["evaluation"]}
    split["evaluation"]["split"] = "test"
    raw["scales"]["paper"]["evaluation"]["split"] = "test"
    params = config.resolve(raw | {"scale": "paper"} | split)
    said = verdicts.mismatch(lines({"madan": [40.0]}), params.tables["comparison"], params)
    assert said == "measured on test, published on val"


def test_mean_over_fewer_than_16_classes_is_not_compared(params):
    made = lines({"madan": [40.0]}).assign(mean_over=", ".join(labels.CLASSES[1:]))
    said = verdicts.mismatch(made, params.tables["comparison"], params)
    assert said == "mean over 15 of 16 classes"


def test_seeds_of_different_images_are_not_compared(params):
    made = pd.concat([lines({"madan": [40.0]}), lines({"madan": [41.0]}, images=8)])
    said = verdicts.mismatch(made, params.tables["comparison"], params)
    assert said == "8 or 500 of 500 images"


def test_published_figures_stand_beside_numbers_of_full_size_alone(raw, params):
    made = lines({"madan": [40.0, 41.0], "oracle": [62.6], "mdan": [29.0, 33.0, 31.0]})
    small = config.resolve(raw)
    table = small.tables["comparison"]
    assert verdicts.compared(made, table, small).equals(tables.summary(made, table))
    assert verdicts.lines(made, table, small) is made
    found = by_row(verdicts.compared(made, params.tables["comparison"], params))
    assert (found["madan"]["published"], found["madan"]["difference"]) == (41.4, -0.9)
    assert found["madan"]["verdict"] == "reproduced (published with MADAN's protocol)"
    assert found["mdan"]["verdict"].startswith("within seed noise (")
    assert found["oracle"]["verdict"].startswith("published figure unconfirmed (")
    assert found["source-gta5"]["verdict"] == "not run"


def test_verdict_says_with_which_protocol_the_figure_was_published(params):
    made = lines({"cycada-gta5": [38.7]})
    found = by_row(verdicts.compared(made, params.tables["comparison"], params))
    said = "reproduced (published with CyCADA's own protocol: SGD, full-size evaluation)"
    assert found["cycada-gta5"]["verdict"] == said


@pytest.mark.parametrize("target", TARGETS)
def test_every_line_of_the_published_tables_stands_in_one_of_ours(params, target):
    shown = [
        line.figure
        for table in params.tables.values()
        if table.target == target
        for line in verdicts.arranged(table, params)
    ]
    assert set(published.figures(target).values()) <= set(shown)


@pytest.mark.parametrize("name", ["comparison", "bdd100k", "semantic", "ablation"])
def test_rows_are_in_the_order_of_print_and_own_rows_in_their_own(params, name):
    table = params.tables[name]
    found = verdicts.arranged(table, params)
    assert [line.row for line in found if line.row] == list(table.rows)
    order = list(published.figures(table.target).values())
    printed = [order.index(line.figure) for line in found if line.figure]
    assert printed == sorted(printed)


def test_rows_of_other_methods_are_published_only_in_page_and_csv(params):
    table = params.tables["comparison"]
    made = lines({"madan": [40.0]})
    found = verdicts.compared(made, table, params).to_dict("records")
    [road] = [x for x in found if (x["row"], x["setting"]) == ("ROAD", "single-source SYNTHIA")]
    assert (road["origin"], road["n"], road["published"]) == ("published only", 0, 36.2)
    assert (road["published road"], road["verdict"]) == (77.7, "published only")
    cells = list(csv.DictReader(io.StringIO(escaping.csv(verdicts.lines(made, table, params)))))
    [line] = [x for x in cells if x["row"] == "ROAD" and "SYNTHIA" in x["setting"]]
    assert line["origin"] == line["verdict"] == "published only"
    assert (line["published"], line["published bicycle"]) == ("36.2", "23.8")
    # What was not measured here is empty in the columns of measured numbers.
    assert not any(line[name] for name in (*labels.CLASSES, *tables.SUBSETS, "seed", "images"))
    assert "FDA" in line["published_source"]


def test_csv_keeps_its_columns_and_appends_published_values_and_differences_by_class(params):
    table = params.tables["comparison"]
    found = verdicts.lines(lines({"madan": [40.0, 45.5]}), table, params)
    assert found.columns[: len(tables.COLUMNS)].tolist() == list(tables.COLUMNS)
    first, second = found.query("row == 'madan'").to_dict("records")
    assert (first["origin"], first["seed"], first["images"]) == ("measured", 0, 500)
    assert (first["published"], first["difference"], second["difference"]) == (41.4, -1.4, 4.1)
    assert (first["published road"], first["difference road"]) == (86.2, -46.2)
    assert first["verdict"] == second["verdict"] == "off (published with MADAN's protocol)"
    # Whole numbers stay whole beside lines that have none.
    text = escaping.csv(found)
    assert ",500," in text and "500.0" not in text


def test_two_published_figures_of_one_run_are_named(params):
    for name, first, second in (("bdd100k", 35.7, 32.0), ("semantic-bdd100k", 32.0, 35.7)):
        [note] = [x for x in verdicts.notes(params.tables[name], params) if "two published" in x]
        assert f"{first} (" in note and f"{second} (" in note
        assert note.endswith(f"about the first, {first}.")
    # The two figures of CyCADA on GTA5 are the same on Cityscapes.
    assert not any(
        "two published" in x for x in verdicts.notes(params.tables["comparison"], params)
    )


def test_notes_name_the_stronger_single_source_row_and_the_other_network(params):
    said = " ".join(verdicts.notes(params.tables["comparison"], params))
    assert "CyCADA on GTA5 alone (47.9) is above MADAN on both sources (45.4)" in said
    assert "another network" in said and "27.1 over 19" in said and "28.9 over 19" in said


def test_the_miniature_has_no_notes(raw):
    small = config.resolve(raw)
    assert not any(verdicts.notes(table, small) for table in small.tables.values())


def test_published_figures_are_whole_and_classes_average_to_means():
    for target, count in (("cityscapes", 40), ("bdd100k", 23)):
        figures = published.figures(target)
        assert len(figures) == count
        for key, figure in figures.items():
            assert len(figure.ious) in (0, 16)
            if figure.ious:
                assert np.mean(figure.ious) == pytest.approx(figure.miou16, abs=0.051), key
            assert figure.also == "" or figures[figure.also].also in ("", key)
            assert figure.table in ("comparison", "semantic", "ablation")
            assert figure.network in ("VGG-16", "ResNet-101")
            assert figure.source and figure.protocol
            assert figure.mark in ("transcribed", "miou confirmed", "classes confirmed")
            assert figure.confirmed == ("also in" in figure.source), key
    assert published.figures("my-own-city") == {}


def test_published_figures_are_those_that_the_extension_and_others_print():
    cityscapes, bdd100k = (published.figures(target) for target in TARGETS)
    assert cityscapes["multi-source/MADAN+"].miou16 == 42.8
    assert bdd100k["multi-source/MADAN+"].miou16 == 41.6
    large = {key: figure.miou16 for key, figure in cityscapes.items() if "ResNet" in key}
    assert list(large.values()) == [47.9, 39.3, 36.0, 45.4, 48.5]
    large = {key: figure.miou16 for key, figure in bdd100k.items() if "ResNet" in key}
    assert list(large.values()) == [37.2, 29.4, 40.4, 42.7]
    marks = {key: figure.mark for key, figure in cityscapes.items()}
    for key in ("single-source SYNTHIA/ROAD", "single-source SYNTHIA/DCAN",
                "single-source GTA5/CyCADA", "single-source GTA5/DCAN"):  # fmt: skip
        assert marks[key] == "classes confirmed"
    assert marks["single-source SYNTHIA/CDA"] == "miou confirmed"
    assert marks["single-source GTA5/ROAD"] == "transcribed"
