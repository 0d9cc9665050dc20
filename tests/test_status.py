"""Status: done, running, waiting, stale, and the reason in words."""

import json
import subprocess
import sys

import pytest
from conftest import tiny
from test_graph import make

from madan import config
from madan.pipeline import status
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph

RUN = parse("segmenters/source-gta5")
TABLE = parse("tables/miou")


@pytest.fixture
def graph(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Graph(config.resolve(tiny(raw, ("source-gta5",))))


def stands(graph) -> dict:
    return {line.artefact: line[1:] for line in status.lines(graph, "miou")}


def test_what_lacks_its_inputs_waits_and_what_has_them_is_next(graph):
    found = stands(graph)
    assert found[parse("miniature/gta5")] == ("next", "all that it needs is there")
    assert found[RUN] == ("waiting", "for prepared/gta5/train/0, waiting")
    make(graph, *graph.inputs(RUN))
    assert stands(graph)[RUN][0] == "next"


def test_a_changed_setting_is_named_with_what_it_was_and_is(graph, raw):
    make(graph, RUN)
    assert stands(graph)[RUN] == ("done", "")
    raw["training"]["segmenter"]["lr"] = 0.5
    later = Graph(config.resolve(tiny(raw, ("source-gta5",))))
    assert stands(later)[RUN] == ("stale", "training.segmenter.lr was 0.002, is 0.5")


def test_changed_code_is_named_by_its_module(graph):
    make(graph, RUN)
    line = json.loads(graph.certificate(RUN).read_text())
    line["code"]["losses"] = "0" * 16
    graph.certificate(RUN).write_text(json.dumps(line))
    assert stands(graph)[RUN] == ("stale", "losses.py changed")


def test_what_follows_a_missing_input_says_so(graph):
    make(graph, RUN)
    [shard] = graph.inputs(RUN)
    graph.certificate(shard).unlink()
    assert stands(graph)[RUN] == ("stale", "prepared/gta5/train/0 is missing")


def test_a_running_job_shows_the_last_line_of_its_log(graph):
    folder = str(graph.folder(RUN))
    log = graph.folder(RUN).relative_to("results/miniature").with_suffix(".log")
    hold = f"""
import sys; from pathlib import Path; from madan import files
with files.locked(Path({folder!r})):
    print("held", flush=True); sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as job:
        assert job.stdout.readline() == "held\n"
        assert stands(graph)[RUN] == ("running", "just begun")
        path = graph.folder(RUN).__class__("logs/miniature", log)
        path.parent.mkdir(parents=True)
        path.write_text("a run: 5/9  1.00/s  4 s left  task 1.0\na run: 7/9  1.00/s  2 s left  \n")
        assert stands(graph)[RUN] == ("running", "7/9, 2 s left")
        job.stdin.close()
    assert stands(graph)[RUN][0] == "waiting"


def test_status_imports_no_torch_and_shows_every_run(graph, capsys):
    status.show(status.lines(graph, "miou"), graph)
    said = capsys.readouterr().out
    assert "segmenters/source-gta5" in said and "tables/miou" in said and "waiting" in said
    code = "import sys, madan.pipeline.status; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
