"""Pages: a table in Markdown and LaTeX, complete and well formed, whatever stands in it."""

import re

import pandas as pd
import pytest

from madan import config, pages, tables


@pytest.fixture
def made():
    """Lines of two seeds of `pooled` and `shared`, and one of `sad`."""
    numbers = {"pooled": (30.0, 32.0), "shared": (31.0, 34.0), "sad": (35.0,)}
    return pd.DataFrame(
        [
            dict.fromkeys(tables.COLUMNS, value)
            | {"scale": "miniature", "row": row, "seed": seed, "images": 200, "data": "d4"}
            for row, values in numbers.items()
            for seed, value in enumerate(values)
        ]
    )


def resolved(raw, **changes):
    return config.resolve(raw | {"seeds": [0, 1]} | changes)


def rows_of(text):
    return [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]


def test_markdown_has_means_deviations_and_intervals(raw, made):
    text = pages.files(made, "ablation", resolved(raw))["md"]
    by_row = {row[0]: row for row in rows_of(text.split("Differences")[0])}
    assert by_row["row"][-4:] == ["mIoU16", "mIoU19", "mIoU13", "n"]
    assert by_row["pooled"][-4:] == ["31.0 ± 1.4", "31.0 ± 1.4", "31.0 ± 1.4", "2"]
    assert by_row["sad"][-4:] == ["35.0", "35.0", "35.0", "1"]
    assert by_row["oracle"][-4:] == ["not run", "not run", "not run", "0"]
    apart = rows_of(text.split("Differences")[1])
    assert ["shared", "pooled", "+1.50", "-4.85 to +7.85", "2"] in apart
    assert ["sad", "pooled", "+5.00", "–", "1"] in apart


def test_pages_say_scale_split_seeds_and_data(raw, made):
    for key in ("md", "tex"):
        first = pages.files(made, "ablation", resolved(raw))[key].splitlines()[0]
        for word in ("miniature", "cityscapes test", "200 images", "0, 1", "data d4"):
            assert word in first


def test_no_page_of_the_miniature_speaks_of_published_figures(raw, made):
    for name in raw["tables"]:
        for text in pages.files(made, name, resolved(raw)).values():
            assert "published" not in text and "verdict" not in text


def test_pages_of_full_size_have_verdicts_and_unrun_rows(raw, made):
    text = pages.files(made.iloc[:0], "comparison", resolved(raw, scale="paper"))["md"]
    by_row = {row[0]: row for row in rows_of(text.split("Differences")[0])}
    assert by_row["row"][-3:] == ["published", "difference", "verdict"]
    assert by_row["madan"][-3:] == ["41.4", "–", "not run"]


@pytest.mark.parametrize("scale", ["miniature", "paper"])
def test_latex_is_well_formed(raw, made, scale):
    params = resolved(raw, scale=scale)
    for name in params.tables:
        text = pages.files(made, name, params)["tex"]
        body = [line for line in text.splitlines() if not line.startswith("%")]
        assert text.isascii() or "±" in text.splitlines()[0]
        assert "\n".join(body).isascii()
        assert text.count("{") == text.count("}")
        for part in text.split("\\begin{tabular}")[1:]:
            columns = re.match(r"\{(l+r+)\}", part)[1]
            lines = [line for line in part.splitlines() if line.endswith(r"\\")]
            assert len(lines) > 1 and part.count(r"\end{tabular}") == 1
            for line in lines:
                assert len(re.findall(r"(?<!\\)&", line)) == len(columns) - 1
                assert not re.search(r"(?<!\\)[_%#]", line)


def test_special_signs_are_escaped():
    assert pages._escaped("a_b & 5 % ± –") == r"a\_b \& 5 \% $\pm$ --"
    assert "\\|" in pages._markdown(pd.DataFrame({"a": ["x|y"], "b": ["z"]}))
