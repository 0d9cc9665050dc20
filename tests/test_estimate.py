"""Plan: sums, chains and sizes by hand; what is tried is tried once and has a believable cost."""

import importlib
import json
import re
from pathlib import Path

import pytest
import torch
from conftest import tiny
from test_graph import make

from madan import config
from madan.engine import gpu
from madan.errors import Refusal
from madan.pipeline import calibration, estimate, trials
from madan.pipeline.artefacts import parse
from madan.pipeline.calibration import Cost
from madan.pipeline.estimate import Line
from madan.pipeline.graph import Graph


@pytest.fixture
def graph(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Graph(config.resolve(tiny(raw)))


def seconds_each(graph, took=1.0, done=()):
    return [Line(a, a in done, 1, took, 0, 0) for a in graph.everything()]


def test_one_at_a_time_takes_the_sum(graph):
    lines = seconds_each(graph)
    assert estimate.duration(graph, lines, 1) == len(lines)


def test_any_number_at_a_time_takes_the_longest_chain(graph):
    lines = seconds_each(graph)
    first = parse("miniature/gta5")
    assert estimate.duration(graph, lines, 1000) == 1 + max(
        graph.following(line.artefact) for line in lines
    )
    slow = [line._replace(seconds=100.0) if line.artefact == first else line for line in lines]
    assert estimate.duration(graph, slow, 1000) >= 100 + graph.following(first)


def test_more_at_a_time_never_takes_longer_than_one(graph):
    lines = seconds_each(graph)
    one, two, three = (estimate.duration(graph, lines, many) for many in (1, 2, 3))
    assert len(lines) / 3 <= three <= two <= one
    assert two >= len(lines) / 2


def test_what_is_done_takes_no_time(graph):
    done = graph.ancestry([parse("segmenters/source-gta5")])
    lines = seconds_each(graph, done=done)
    assert estimate.duration(graph, lines, 1) == len(lines) - len(done)
    assert estimate.duration(graph, seconds_each(graph, done=graph.everything()), 1) == 0


@pytest.mark.parametrize(
    ("kind", "name", "units", "size"),
    [
        ("miniature", "cityscapes", 24, 0),
        ("verified", "cityscapes/test", 8, 0),
        ("prepared", "synthia/train/1", 4, 4 * 64 * 128 * 4),
        ("stylised", "cyclegan-combined/both", 16, 16 * 64 * 128 * 3),
        ("segmenters", "pooled", 3, 0),
        ("scores", "segmenters/pooled/cityscapes/test", 8, 0),
        ("tables", "miou", 1, 0),
    ],
)
def test_units_and_bytes_by_hand(graph, kind, name, units, size):
    artefact = parse(f"{kind}/{name}")
    assert estimate._units(artefact, graph.params) == units
    assert estimate._bytes(artefact, graph.params) == size


def test_published_counts_stand_for_data_that_are_not_there(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    raw["scale"] = "paper"
    graph = Graph(config.resolve(raw))
    assert estimate._images(graph.params, "gta5", "train") == 24966
    assert estimate._images(graph.params, "cityscapes", "val") == 500
    shard = parse("prepared/cityscapes/val/0")
    assert estimate._units(shard, graph.params) == 63
    assert estimate._bytes(shard, graph.params) == 63 * (3 * 600 * 1080 + 1024 * 2048)


def test_runs_that_differ_only_in_steps_sources_names_or_seed_are_tried_once(raw, graph):
    alike = {
        estimate._alike(graph, parse(f"segmenters/{name}")) for name in ("source-gta5", "stage-1")
    }
    alike.add(estimate._alike(graph, parse("segmenters/source-gta5", 1)))
    raw["segmenters"]["source-gta5"]["steps"] = 77
    other = Graph(config.resolve(raw))
    alike.add(estimate._alike(other, parse("segmenters/source-gta5")))
    assert len(alike) == 1
    gans = [parse(f"translators/cyclegan-{name}") for name in ("gta5", "synthia", "combined")]
    assert len({estimate._alike(graph, gan) for gan in gans}) == 1
    assert estimate._alike(graph, parse("translators/madan")) != estimate._alike(graph, gans[0])
    raw["training"]["segmenter"]["batch"] = 4
    wider = Graph(config.resolve(raw))
    assert estimate._alike(wider, parse("segmenters/source-gta5")) not in alike


def test_an_artefact_of_other_settings_is_not_done(raw, graph, monkeypatch):
    make(graph, parse("prepared/gta5/train/0"))
    monkeypatch.setattr(estimate, "calibrate", lambda g, *_: Costs())
    done = {line.artefact for line in estimate.lines(graph, ["miou"], 1, 0) if line.done}
    assert done == set(graph.ancestry([parse("prepared/gta5/train/0")]))
    raw["miniature"]["seed"] = 7
    assert not any(line.done for line in estimate.lines(Graph(config.resolve(raw)), ["miou"], 1, 0))


class Costs(dict):
    def __missing__(self, key):
        return estimate.Cost(1, 1, 1, 1)


def test_jobs_on_gpus_run_at_most_one_a_gpu(graph):
    lines = seconds_each(graph)
    on_gpu = [line for line in lines if isinstance(line.artefact, trials.ON_GPU)]
    free = estimate.duration(graph, lines, 1000)
    assert free < len(on_gpu) <= estimate.duration(graph, lines, 1000, 1)
    two = estimate.duration(graph, lines, 1000, 2)
    assert max(free, len(on_gpu) / 2) <= two < estimate.duration(graph, lines, 1000, 1)
    assert estimate.duration(graph, lines, 1000, 1000) == free


@pytest.fixture
def pretend(graph, tmp_path, monkeypatch):
    """Trials in real processes, of a function in the place of `calibration._cost`."""

    def pretend(name, together=2):
        (tmp_path / "pretended.py").write_text(PRETENDED)
        monkeypatch.syspath_prepend(tmp_path)
        pretended = importlib.import_module("pretended")
        monkeypatch.setattr(calibration, "_try", getattr(pretended, name))
        return calibration.tried(parse("segmenters/pooled"), together, 0.1)

    return pretend


PRETENDED = """
import os, signal, time
from madan.pipeline.calibration import NO_MEMORY, Cost

def first(place):
    return place.name == "0"

def fine(artefact, seconds, place, barrier, answer, begun):
    barrier.wait()
    answer.send(Cost(1.0 + first(place), 2.0, 30, 4))

def killed(artefact, seconds, place, barrier, answer, begun):
    if first(place):
        os.kill(os.getpid(), signal.SIGKILL)
    barrier.wait()

def dead(artefact, seconds, place, barrier, answer, begun):
    if first(place):
        os._exit(3)
    barrier.wait()

def full(artefact, seconds, place, barrier, answer, begun):
    if first(place):
        answer.send(NO_MEMORY)
    barrier.wait()

def wrong(artefact, seconds, place, barrier, answer, begun):
    if first(place):
        answer.send("ValueError: x")
    barrier.wait()
"""


def test_costs_of_processes_are_averaged(pretend):
    assert pretend("fine") == Cost(1.5, 2.0, 30, 4)


@pytest.mark.parametrize("how", ["killed", "full"])
def test_a_job_that_runs_out_of_memory_does_not_fit_and_holds_nobody_up(pretend, how):
    assert not pretend(how).fits


@pytest.mark.parametrize(("how", "reason"), [("dead", "exit code 3"), ("wrong", "ValueError: x")])
def test_a_trial_that_ends_without_an_answer_or_wrongly_is_refused_at_once(pretend, how, reason):
    with pytest.raises(Refusal, match=rf"segmenters/pooled.*could not be tried.*{reason}"):
        pretend(how)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_too_little_memory_is_told_from_other_errors(error, monkeypatch):
    sent = []

    def raises(*_):
        raise error

    monkeypatch.setattr(calibration, "_cost", raises)
    monkeypatch.setattr(calibration.process, "begin", lambda: None)
    answer = type("Answer", (), {"send": sent.append})
    calibration._try(None, 0, None, None, answer, 0)
    error = ValueError("other")
    calibration._try(None, 0, None, None, answer, 0)
    assert sent == [calibration.NO_MEMORY, "ValueError: other"]


def test_what_does_not_fit_is_a_row_and_the_others_go_on(graph, monkeypatch, capsys):
    """All but the translators fit; on two GPUs two trials of theirs run at a time."""
    asked = {}

    def tried(artefact, together, seconds):
        asked[artefact.kind] = together
        return Cost(1, 1, 1, 1, fits=artefact.kind != "translators")

    monkeypatch.setattr(calibration, "tried", tried)
    monkeypatch.setenv("MADAN_GPUS", "2")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    lines = estimate.lines(graph, ["miou"], 4, 0)
    assert {line.artefact.kind for line in lines if not line.fits} == {"translators"}
    assert asked["segmenters"] == asked["translators"] == asked["scores"] == 2
    assert asked["miniature"] == asked["prepared"] == 4
    estimate.show(graph, lines, 4)
    shown = capsys.readouterr().out
    assert re.search(r"translators/madan .*does not fit", shown)
    assert re.search(r"segmenters/source-gta5 .*\d s", shown)
    assert "jobs do not fit into memory and count as no time" in shown
    [kept] = Path("state/plan").glob("*-4.json")
    assert not any(key.startswith("translators") for key in json.loads(kept.read_text()))


def test_a_trial_on_a_gpu_has_a_lease_of_its_own(graph, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for name, value in {"MADAN_GPUS": "2", "MADAN_ALLOW_CPU": "1"}.items():
        monkeypatch.setenv(name, value)
    taken = []
    monkeypatch.setattr(gpu, "lease", lambda count: taken.append(count))
    trials.start(parse("segmenters/pooled"), graph.params)
    trials.start(parse("prepared/synthia/train/1"), graph.params)
    assert taken == [1]


@pytest.mark.slow
def test_what_was_tried_is_believable_and_kept(world):
    world.change("tables.miou.rows", [world.params["tables"]["miou"]["rows"][0]])
    said = world.run("madan", "estimate", "--jobs", "1", "--seconds", "0.2").stdout
    assert "segmenters/source-gta5" in said and "1 at a time" in said
    [kept] = Path(world.root, "state", "plan").glob("*-1.json")
    for alike, (start, unit, memory, weights) in json.loads(kept.read_text()).items():
        assert 0 < start < 120 and 0 <= unit < 20
        assert 10e6 < memory < 8e9
        assert (weights > 0) == alike.startswith("segmenters")
    before = kept.read_bytes()
    assert "trying" not in world.run("madan", "estimate", "--jobs", "1").stdout
    assert kept.read_bytes() == before
