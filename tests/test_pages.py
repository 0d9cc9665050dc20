"""Pages: a table in Markdown and LaTeX, complete and well formed, whatever stands in it."""

import csv
import io
import re

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from test_escaping import decoded, rendered, words

from madan import config, labels
from madan.config.schema import Row, Table
from madan.report import escaping, markdown, tables
from madan.report.budgets import Budget


@pytest.fixture
def made():
    """Lines of two seeds of `pooled` and `shared`, and one of `sad`."""
    numbers = {"pooled": (30.0, 32.0), "shared": (31.0, 34.0), "sad": (35.0,)}
    return pd.DataFrame(
        [
            dict.fromkeys(tables.COLUMNS, value)
            | {"scale": "miniature", "row": row, "setting": "s", "seed": seed, "images": 200}
            | {"resolution": "64x128", "data": "d4", "mean_over": ", ".join(labels.CLASSES)}
            for row, values in numbers.items()
            for seed, value in enumerate(values)
        ]
    )


def resolved(raw, **changes):
    return config.resolve(raw | {"seeds": [0, 1]} | changes)


def rows_of(text):
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_markdown_has_means_deviations_and_intervals(raw, made):
    text = markdown.files(made, "ablation", resolved(raw))["md"]
    by_row = {row[0]: row for row in rows_of(text.split("The next table compares rows")[0])}
    assert by_row["row"][-4:] == ["mIoU16", "mIoU19", "mIoU13", "n"]
    assert by_row["pooled"][-4:] == ["31.0 ± 1.4", "31.0 ± 1.4", "31.0 ± 1.4", "2"]
    assert by_row["sad"][-4:] == ["35.0", "35.0", "35.0", "1"]
    assert by_row["oracle"][-4:] == ["not run", "not run", "not run", "0"]
    apart = rows_of(text.split("The next table compares rows")[1])
    assert ["shared", "pooled", "+1.50", "-4.85 to +7.85", "2"] in apart
    assert ["sad", "pooled", "+5.00", "–", "1"] in apart


def test_page_says_at_its_top_what_the_table_is(raw, made):
    for key in ("md", "tex"):
        text = markdown.files(made, "ablation", resolved(raw))[key]
        top = text.split("| row" if key == "md" else "\\begin{tabular}")[0]
        for word in (
            "Table ablation", "Scale: miniature", "Target: cityscapes, split test, 200 images",
            "Evaluation size", "64x128 pixels (height x width)", "Seeds: 0, 1, 2", "data: d4.",
            "mIoU16 is the mean over 16 classes: road, sidewalk",
            "mIoU19 is over 19 classes: those of mIoU16 and terrain, truck, train",
            "mIoU13 is over 13 classes: those of mIoU16 without wall, fence, pole",
            "n is the number of seeds",
        ):  # fmt: skip
            assert word in top, word


def test_page_without_a_score_says_so(raw, made):
    top = markdown.files(made.iloc[:0], "ablation", resolved(raw))["md"].split("| row")[0]
    assert "Target: cityscapes, split test, no score yet." in top
    assert "Evaluation size: the size of each label. " in top


def test_every_column_is_explained_at_the_top(raw, made):
    spent = {"pooled": Budget(350, 2800)}
    for scale in ("miniature", "paper"):
        params = resolved(raw, scale=scale)
        text = markdown.files(made, "ablation", params, spent)["md"]
        top, first = text.split("| row", 1)
        titles = ["row", *(title.strip() for title in first.splitlines()[0].strip("|").split("|"))]
        for title in titles[:-1]:
            # The classes are named as a range, and one by one where the mean is explained.
            assert re.search(rf"\b{re.escape(title)}\b", top), title


def test_page_names_classes_that_the_labels_do_not_have(raw, made):
    made["mean_over"] = "road, building, car, bicycle"
    text = markdown.files(made, "ablation", resolved(raw))["md"]
    assert "mIoU16 is the mean over 4 classes: road, building, car, bicycle." in text
    assert "mIoU19 is over 4 classes: those of mIoU16." in text
    assert (
        "The labels of the split do not contain sidewalk, wall, fence, pole, traffic light" in text
    )


def test_no_page_of_the_miniature_speaks_of_published_figures(raw, made):
    for name in raw["tables"]:
        for text in markdown.files(made, name, resolved(raw)).values():
            assert "published" not in text and "verdict" not in text


def test_pages_of_full_size_have_verdicts_and_unrun_rows(raw, made):
    text = markdown.files(made.iloc[:0], "comparison", resolved(raw, scale="paper"))["md"]
    by_row = {row[0]: row for row in rows_of(text.split("The next table has the IoU")[0])}
    assert by_row["row"][-3:] == ["published", "difference", "verdict"]
    assert by_row["madan"][-3:] == ["41.4", "–", "not run"]
    assert by_row["AdaptSegNet (published)"] == [
        "AdaptSegNet (published)", "single-source GTA5", "87.3", "29.8", "78.6", "21.1", "18.2",
        "22.5", "21.5", "11.0", "79.7", "71.3", "46.8", "6.5", "80.1", "26.9", "10.6", "0.3",
        "38.3", "–", "–", "–", "38.3", "–", "published only, seen in one source",
    ]  # fmt: skip
    assert len([row for row in by_row if row.endswith("(published)")]) == 9
    for word in (
        "reproduced",
        "within seed noise",
        "off",
        "unconfirmed",
        "not compared",
        "not run",
    ):
        assert word in text.split("| row")[0]


def test_published_iou_of_each_class_stands_beside_ours_with_the_difference(raw, made):
    made = made.assign(images=500, scale="paper", row="madan").drop_duplicates("seed")
    text = markdown.files(made, "comparison", resolved(raw, scale="paper"))["md"]
    rows = [
        row for row in rows_of(text.split("The next table has the IoU")[1]) if row[0] == "madan"
    ][:3]
    assert [row[1] for row in rows] == ["measured", "published", "difference"]
    assert [row[2] for row in rows] == ["31.0", "86.2", "-55.2"]
    assert [row[-1] for row in rows] == ["31.0", "41.4", "-10.4"]


def test_csv_of_full_size_has_published_figures_and_verdicts(raw, made):
    made = made.assign(images=500, scale="paper", row="madan").drop_duplicates("seed")
    text = markdown.files(made, "comparison", resolved(raw, scale="paper"))["csv"]
    found = list(csv.DictReader(io.StringIO(text)))
    [one, two] = [line for line in found if line["row"] == "madan"]
    assert [line["published"] for line in (one, two)] == ["41.4", "41.4"]
    assert [line["difference"] for line in (one, two)] == ["-11.4", "-9.4"]
    assert one["verdict"] == "off (published with MADAN's protocol)"
    assert {line["verdict"] for line in found if line["row"] == "CDA"} == {
        "published only", "published only, seen in one source",
    }  # fmt: skip


def test_budgets_of_l_task_are_columns_where_they_are_given_and_not_otherwise(raw, made):
    params = resolved(raw)
    plain = markdown.files(made, "ablation", params)
    assert not any("task" in text.replace("along with L_task", "").replace(
        "along with L\\_task", "") for text in plain.values())  # fmt: skip
    spent = {"pooled": Budget(350, 2800), "sad": Budget(190, 1520), "shared": Budget(190, 1520)}
    text = markdown.files(made, "ablation", params, spent)
    by_row = {row[0]: row for row in rows_of(text["md"].split("The next table compares rows")[0])}
    assert by_row["row"][2:4] == ["L_task steps", "L_task images"]
    assert by_row["pooled"][2:4] == ["350", "2800"] and by_row["oracle"][2:4] == ["–", "–"]
    apart = {
        tuple(row[:2]): row[-1]
        for row in rows_of(text["md"].split("The next table compares rows")[1])
    }
    assert apart["sad", "pooled"] == "differs: 190 against 350 steps, 1520 against 2800 images"
    assert apart["sad", "shared"] == "the same"
    assert apart["ccd", "shared"] == "unknown for ccd"
    found = csv.DictReader(io.StringIO(text["csv"]))
    assert [line["task_images"] for line in found] == ["2800", "2800", "1520", "1520", "1520"]


def test_each_dataset_of_a_union_stands_below_the_table(raw, made):
    params = resolved(raw)
    line = {"row": "pooled", "dataset": "rain|fog", "n": 2, "miou16": 30.25, "road": float("nan")}
    members = pd.DataFrame([dict.fromkeys([*tables.SHOWN, *tables.SUBSETS], 50.0) | line])
    text = markdown.files(made, "ablation", params, members=members)
    below = text["md"].split("The target is a union.")[1]
    head, cells = (row for row in rows_of(below) if row[0] in ("row", "pooled"))
    found = dict(zip(head, cells, strict=True))
    assert found["row"] == "pooled" and "rain" in found["dataset"] and found["n"] == "2"
    assert (found["mIoU16"], found["road"], found["sidewalk"]) == ("30.2", "–", "50.0")
    assert "The target is a union." not in markdown.files(made, "ablation", params)["md"]


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(words, words)
def test_names_and_settings_are_shown_inert_in_every_file(raw, made, name, setting):
    params = resolved(raw)
    rows = [
        Row.model_construct(row=f"{k}{name}", setting=setting, published=None, against=None)
        for k in "=<"
    ]
    table = Table.model_construct(target=setting, against=rows[0].row, rows=rows, seeds=[0])
    params = params.model_copy(update={"tables": {"t": table}})
    lines = made.iloc[:2].assign(row=[row.row for row in rows], setting=setting, data=name, seed=0)
    text = markdown.files(lines, "t", params)
    page = rendered(text["md"])
    assert page.tags <= {"h1", "ul", "li", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert not page.other
    shown = [cell.strip() for cell in page.cells]
    for row in rows:
        assert escaping.one_line(row.row) in shown
    for key in ("csv", "differences"):
        for line in csv.reader(io.StringIO(text[key])):
            assert not any(re.match(r"\s*[=@]", cell) for cell in line)
    for line in text["tex"].splitlines():
        if line and not line.startswith(("%", "\\begin", "\\end", "\\hline", "row & ")):
            assert line.endswith(r" \\")
            [first, *_] = re.split(r"(?<!\\) & ", line.removesuffix(r" \\"))
            assert decoded(first) in {escaping.one_line(row.row) for row in rows}


@pytest.mark.parametrize("scale", ["miniature", "paper"])
def test_latex_is_well_formed(raw, made, scale):
    params = resolved(raw, scale=scale)
    for name in params.tables:
        text = markdown.files(made, name, params)["tex"]
        body = [line for line in text.splitlines() if not line.startswith("%")]
        assert "\n".join(body).isascii()
        assert text.count("{") == text.count("}")
        for part in text.split("\\begin{tabular}")[1:]:
            columns = re.match(r"\{(l+r+)\}", part)[1]
            lines = [line for line in part.splitlines() if line.endswith(r"\\")]
            assert len(lines) > 1 and part.count(r"\end{tabular}") == 1
            for line in lines:
                assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
                assert not re.search(r"(?<!\\)[_%#]", line)
