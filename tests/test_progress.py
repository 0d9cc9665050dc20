"""What a long job shows: lines that can be read, TensorBoard where it is, and no change of bits."""

import importlib.util
import re
import sys
import types

import pytest
import torch

from madan.engine import progress, training
from madan.engine.progress import Board, Meter


def test_a_line_has_step_images_a_second_time_left_and_means_over_sources(capsys):
    meter = Meter("a run", 4, every=0, images=6)
    meter.show(2, {"cycle.gta5": 0.1, "cycle.synthia": 0.3, "task": 1})
    said = capsys.readouterr().out
    assert re.fullmatch(
        r"a run: 2/4  [\d.]+/s  \d+ s left  [\d.]+ images/s  cycle 0.200  task 1.000\n", said
    )


def test_lines_become_rarer_and_the_last_step_is_always_told(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    meter = Meter("a run", 200)
    for done in range(1, 201):
        now[0] += 1
        meter.show(done, {})
    steps = [int(line.split()[2].split("/")[0]) for line in capsys.readouterr().out.splitlines()]
    assert steps == [5, 15, 35, 65, 95, 125, 155, 185, 200]


@pytest.fixture
def written(monkeypatch):
    """What a stand-in for TensorBoard's writer was told."""
    told = []

    class Writer:
        def __init__(self, folder, purge_step):
            told.append(("opened", folder, purge_step))

        def __getattr__(self, name):
            return lambda *words: told.append((name, *words))

    there = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: True if name == "tensorboard" else there(name)
    )
    module = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    return told


class Painter:
    """A method that draws, and shows what it drew."""

    def __init__(self):
        self.net = torch.nn.Linear(1, 1)
        self.modules = {"net": self.net}
        self.optimizers = {"net": torch.optim.SGD(self.net.parameters(), 0.1)}

    def update(self, step):
        loss = (self.net(torch.rand(2, 1)) - step).square().mean()
        training.descend(self.optimizers["net"], loss)
        return {"loss.a": loss.item()}

    def look(self):
        return {"picture": torch.rand(3, 2, 2) * 0 - 1}


def _trained(folder, board):
    folder.mkdir(exist_ok=True)
    training.begin(0, 1)
    method = Painter()
    run = training.Run("walk", 0, 4, 2, 2, folder / "state", "k", {}, board=board)
    training.fit(method, run, folder / "log.csv")
    return method.net.weight.item(), (folder / "log.csv").read_text()


def test_tensorboard_has_the_figures_of_the_log_and_changes_no_bit(written, tmp_path):
    seen = _trained(tmp_path, tmp_path / "board")
    kinds = [line[0] for line in written]
    assert written[0] == ("opened", str(tmp_path / "board"), 1)
    assert kinds.count("add_scalar") == 2 and kinds.count("add_image") == 2 and kinds[-1] == "close"
    logged = [float(line.split(",")[1]) for line in seen[1].splitlines()[1:]]
    assert [line[2:] for line in written if line[0] == "add_scalar"] == [
        (logged[0], 2), (logged[1], 4),
    ]  # fmt: skip
    assert all((line[2] == 0).all() for line in written if line[0] == "add_image")
    assert _trained(tmp_path / "other", None) == seen


def test_without_the_extra_there_is_no_board(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    board = Board(tmp_path / "board", 0)
    board.figures(1, {"a": 1.0})
    board.samples(1, Painter())
    board.close()
    assert not (tmp_path / "board").exists()
