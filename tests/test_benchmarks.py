"""Benchmarks compare like with like: their own checks pass, and what they write is complete.

How fast anything is, no test says.
"""

import csv

import pytest
import torch
from conftest import PROJECT

BENCHMARKS = PROJECT / "benchmarks"


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    monkeypatch.chdir(PROJECT)
    return pytest.importorskip("table")


def test_ours_and_the_baselines_do_the_same(table, tmp_path, monkeypatch):
    """Everything but what a compiler has to make first, in a tiny setting."""
    from pairs import TINY, checked

    monkeypatch.setattr("shutil.which", lambda name: None)
    names = [checked(pair) is not None and pair.name for pair in table.pairs(TINY, tmp_path)]
    assert len(set(names)) == len(names) > 12


def test_a_baseline_that_computes_something_else_is_refused(table):
    from pairs import Pair, checked

    with pytest.raises(SystemExit, match="wrong: error 0.5, more than 0.1"):
        checked(Pair("wrong", "", int, int, lambda: 0.5, 0.1))
    with pytest.raises(SystemExit, match="nan"):
        checked(Pair("nothing", "", int, int, lambda: float("nan"), 0.1))


def test_table_is_written_between_its_marks_and_as_csv(table, tmp_path, monkeypatch):
    from pairs import row

    document, out = tmp_path / "performance.md", tmp_path / "results/benchmarks.csv"
    marks = "<!-- measured: begin -->", "<!-- measured: end -->"
    document.write_text("before\n\n{}\nold\n{}\n\nafter\n".format(*marks))
    monkeypatch.setattr(table, "DOCUMENT", document)
    monkeypatch.setattr(table, "CSV", out)
    table.written([row("quick", [(4, 2), (9, 3), (8, 2)], 0.25, "twice")], 1.0)
    text = document.read_text()
    assert text.startswith("before") and text.endswith("after\n") and "old" not in text
    assert "| quick | 3.00 | 2.00–4.00 | 8000 | 2000 | 3 | 0.25 | twice |" in text
    with out.open() as file:
        [line] = csv.DictReader(file)
    assert float(line["ratio"]) == 3 and line["torch"] and line["threads"]


def test_growth_measures_every_line_of_its_table(table):
    import growth

    for what, by, values in growth.LINES:
        seconds, memory = growth.measure(what, by, min(values) if by != "images" else 8)
        assert seconds > 0 and memory > 0, (what, by)


def test_what_a_step_saves_is_counted_once_and_by_hand(table):
    import memory
    import torch

    stays, kept, tera = memory.segmenter(torch.nn.Conv2d(3, 19, 1), (6, 8), 2)
    weights = 3 * 19 + 19
    assert stays * 2**30 == pytest.approx(16 * weights)
    # Input of the convolution, its log-softmax, labels, and the number of them.
    assert kept * 2**30 == pytest.approx(2 * 6 * 8 * (3 * 4 + 19 * 4 + 8) + 4)
    # A product and a sum for every weight of the kernel and pixel, forward and twice backward.
    assert tera * 1e12 == pytest.approx(3 * 2 * 3 * 19 * 2 * 6 * 8)


def test_peak_counts_what_is_held_at_once_and_each_storage_once(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    peak = pytest.importorskip("peak")
    with peak.Peak() as seen:
        one = torch.zeros(1000, device="meta")  # 4000 bytes
        same = one.view(10, 100)[1:]
        for _ in range(3):
            torch.zeros(500, device="meta")  # freed at once
        assert (seen.now, seen.most) == (4000, 6000)
        del one
        assert seen.now == 4000 and same.shape == (9, 100)
        del same
        assert (seen.now, seen.most) == (0, 6000)
