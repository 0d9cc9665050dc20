"""Training as a command does it: kept steps, interruptions, what is published."""

import contextlib
import os
import shutil
import signal

import pytest
import torch
from conftest import tiny
from safetensors import safe_open
from test_graph import make
from test_training import Walk

from madan import config
from madan.engine import training
from madan.errors import Refusal
from madan.models import checkpoints
from madan.pipeline.artefacts import parse
from madan.pipeline.graph import Graph
from madan.pipeline.jobs import inputs, training_run
from madan.pipeline.publishing import Job

ARTEFACT = parse("translators/cyclegan-gta5")


@pytest.fixture
def go(raw, tmp_path, monkeypatch):
    """Train a small method as the translator that keeps steps 2 and 4 of 6; give its folder."""

    def go(place, kill=None):
        (tmp_path / place).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / place)
        params = tiny(raw)
        params["training"]["translator"]["steps"] = 6
        params["training"]["save_every"] = 3
        params["translators"]["cyclegan-gta5"]["keep"] = [2, 4]
        graph = Graph(config.resolve(params))
        for other in graph.inputs(ARTEFACT):
            if not graph.certificate(other).exists():
                make(graph, other)
        job = Job(graph, ARTEFACT)
        run, method = training_run.start(job, None, 1), Walk(kill)
        training_run.train(job, method, run, method.modules, kept=method.modules)
        return graph.folder(ARTEFACT).absolute()

    return go


def weights(path):
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


def test_kept_steps_are_given_out_and_say_which_they_are(go):
    folder = go("whole")
    names = {"weights.safetensors", "weights-step2.safetensors", "weights-step4.safetensors"}
    assert {path.name for path in folder.iterdir()} == names | {"certificate.json", "log.csv"}
    told = {name: checkpoints.story(folder / name)["step"] for name in names}
    assert sorted(told.values()) == [2, 4, 6] and told["weights-step4.safetensors"] == 4
    two, four, six = (weights(folder / name) for name in sorted(names))
    assert not torch.equal(two["net.0.weight"], four["net.0.weight"])
    assert not torch.equal(four["net.0.weight"], six["net.0.weight"])
    assert not list(folder.parents[4].glob("state/**/*.safetensors"))


@pytest.mark.parametrize("kill", [0, 1, 2, 3, 4])
def test_an_interrupted_run_gives_out_the_same_bytes_for_every_kept_step(go, kill):
    whole = go("whole")
    with pytest.raises(SystemExit):
        go("broken", kill)
    broken = go("broken")
    for path in whole.iterdir():
        assert path.read_bytes() == (broken / path.name).read_bytes()


def test_kept_weights_that_are_gone_are_refused_by_name(go, tmp_path):
    with pytest.raises(SystemExit):
        go("broken", 4)
    [kept] = [path for path in tmp_path.glob("broken/state/**/*-step2.safetensors")]
    kept.unlink()
    with pytest.raises(Refusal, match="step2.safetensors is gone.*delete .* from the start"):
        go("broken")
    shutil.rmtree(kept.parent)
    go("broken")


def test_a_run_that_is_asked_to_leave_ends_as_the_signal_says(go):
    with pytest.raises(SystemExit) as ended:
        go("broken", 2)
    assert ended.value.code == 128 + signal.SIGTERM


def test_generators_of_a_kept_step_are_found_by_its_name(raw, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = Graph(config.resolve(tiny(raw)))
    folder = graph.folder(parse("translators/madan"))
    assert inputs.weights(graph, parse("translators/madan")) == folder / "weights.safetensors"
    kept = inputs.weights(graph, parse("translators/madan"), 120)
    assert kept == folder / "weights-step120.safetensors"


def test_the_task_segmenter_of_a_translator_is_its_segmenter(raw, tmp_path, monkeypatch):
    from madan.methods import segmentation

    monkeypatch.chdir(tmp_path)
    graph = Graph(config.resolve(tiny(raw)))
    training.begin(0, 1)
    task = segmentation.build(graph.params.networks.segmenter)
    path = inputs.weights(graph, parse("translators/joint"))
    os.makedirs(path.parent)
    checkpoints.save(path, {"FA": task}, {})
    loaded = inputs.segmenter(graph, parse("translators/joint"))
    for one, other in zip(task.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("other", [{"widths": (16,) * 5}, {"head": 16}, {"convs": (1, 1, 2, 1, 1)}])
def test_a_judge_of_another_width_or_depth_is_refused(raw, tmp_path, monkeypatch, other):
    from madan.methods import segmentation

    monkeypatch.chdir(tmp_path)
    graph = Graph(config.resolve(tiny(raw)))
    training.begin(0, 1)
    judge = segmentation.build(graph.params.networks.segmenter.model_copy(update=other))
    path = inputs.weights(graph, parse("segmenters/source-gta5"))
    os.makedirs(path.parent)
    checkpoints.save(path, {"F": judge}, {})
    with pytest.raises(Refusal, match="do not fit the network of params.yaml"):
        inputs.segmenter(graph, parse("segmenters/source-gta5"))


# --- Settings, data and processes that change half way through a training ------------------------


@pytest.fixture
def half(raw, tmp_path, monkeypatch):
    """Train a segmenter of a small method for 6 steps; return the steps that it did."""
    monkeypatch.chdir(tmp_path)
    run = parse("segmenters/source-gta5")
    params = tiny(raw)
    params["training"]["segmenter"]["steps"] = 6
    params["training"]["save_every"] = 1

    def half(kill=None, lr=0.1, shard="x", processes=None):
        params["training"]["segmenter"]["lr"] = lr
        graph = Graph(config.resolve(params))
        for other in graph.ancestry(graph.inputs(run)):
            make(graph, other, shard if other.kind == "prepared" else "x")
        if processes:
            graph.train_with(run, processes)
        job, steps = Job(graph, run), []
        loop, method = training_run.start(job, None, 1), Walk(kill)
        update = method.update
        method.update = lambda step: steps.append(step) or update(step)
        with contextlib.suppress(SystemExit):
            training_run.train(job, method, loop, method.modules)
        return steps

    return half


def test_a_run_stopped_tried_with_another_value_and_put_back_goes_on(half, capsys):
    assert half(kill=2) == [0, 1, 2]
    assert half(lr=0.5) == [0, 1, 2, 3, 4, 5]
    assert "2 saved states of other settings, code or data are kept in state/" in (
        capsys.readouterr().out
    )
    assert half() == [3, 4, 5]
    assert half() == [0, 1, 2, 3, 4, 5]


def test_a_run_whose_data_was_mended_half_way_starts_from_the_beginning(half):
    assert half(kill=2) == [0, 1, 2]
    assert half(shard="mended") == [0, 1, 2, 3, 4, 5]


def test_a_run_of_another_number_of_processes_starts_from_the_beginning(half):
    assert half(kill=2, processes=2) == [0, 1, 2]
    assert half() == [0, 1, 2, 3, 4, 5]
    assert half(processes=2) == [3, 4, 5]


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_every_signal_that_asks_to_leave_is_heeded(number):
    before = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        with training.signals() as asked:
            os.kill(os.getpid(), number)
            assert asked == [number]
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_run_under_nohup_goes_on_when_the_terminal_closes():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with training.signals() as asked:
            os.kill(os.getpid(), signal.SIGHUP)
            assert asked == []
    finally:
        signal.signal(signal.SIGHUP, before)
