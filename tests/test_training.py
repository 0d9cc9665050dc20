"""The loop: exact resume, one writer, states of others refused, schedules."""

import csv
import fcntl
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from madan.engine import resume, training
from madan.errors import Refusal


class Walk:
    """A method whose every step depends on all before it and on random numbers."""

    def __init__(self, steps_until_kill=None, poison=None):
        self.net = nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 1))
        self.modules = {"net": self.net}
        self.optimizers = {"net": torch.optim.Adam(self.net.parameters(), 0.1)}
        self.kill, self.poison = steps_until_kill, poison

    def update(self, step):
        if step == self.kill:
            os.kill(os.getpid(), signal.SIGTERM)
        loss = self.net(torch.randn(8, 4)).square().mean()
        self.optimizers["net"].zero_grad()
        loss.backward()
        self.optimizers["net"].step()
        return {"loss": float("nan") if step == self.poison else loss.item()}


@pytest.fixture
def go(tmp_path):
    def go(method_args=(), steps=11, log="log.csv", **more):
        training.begin(3, 1)
        method = Walk(*method_args)
        settings = {"training": {"lr": 0.1}} | more.pop("settings", {})
        run = training.Run(
            title="walk", seed=3, steps=steps, save_every=3, log_every=2,
            state=tmp_path / "state", key=more.get("key", "k"), settings=settings,
        )  # fmt: skip
        training.fit(method, run, tmp_path / log)
        return method, run

    return go


def test_a_run_stopped_by_a_signal_and_resumed_ends_with_the_same_bits(go, tmp_path):
    whole, _ = go(key="whole", log="whole.csv")
    with pytest.raises(SystemExit):
        go((4,))
    resumed, _ = go()
    for one, other in zip(whole.net.parameters(), resumed.net.parameters(), strict=True):
        assert torch.equal(one, other)
    assert (tmp_path / "log.csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_a_resumed_run_goes_on_from_the_saved_step(go):
    with pytest.raises(SystemExit):
        go((4,))
    counted = []
    original = Walk.update
    Walk.update = lambda self, step: counted.append(step) or original(self, step)
    try:
        go()
    finally:
        Walk.update = original
    assert counted == list(range(5, 11))


def test_log_holds_means_over_its_window_and_the_last_step(go, tmp_path):
    go()
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 8, 10, 11]


def test_state_of_other_settings_is_refused_with_the_differing_key(go):
    with pytest.raises(SystemExit):
        go((4,))
    with pytest.raises(Refusal, match=r"training\.lr was 0\.1, now 0\.2"):
        go(settings={"training": {"lr": 0.2}})


def test_the_only_state_damaged_is_refused_by_name(go, tmp_path):
    with pytest.raises(SystemExit):
        go((1,))
    state = tmp_path / "state" / "k-step2-0of1.pt"
    state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    with pytest.raises(Refusal, match="k-step2-0of1.pt is damaged: delete .* from the start"):
        go()


def test_state_that_would_run_code_is_refused(go, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    (tmp_path / "state").mkdir()
    resume.write(tmp_path / "state", "k", 3, {"step": 3, "log": Evil()})
    with pytest.raises(Refusal, match="damaged"):
        go()
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("content", [{}, {"settings": 3}, {"settings": {}, "step": "x"}])
def test_a_sealed_file_that_is_no_state_is_refused(go, tmp_path, content):
    (tmp_path / "state").mkdir()
    resume.write(tmp_path / "state", "k", 3, content)
    with pytest.raises(Refusal, match="does not fit this run|other settings"):
        go()


def test_second_writer_is_refused(go, tmp_path):
    (tmp_path / "state").mkdir()
    with (tmp_path / "state" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Refusal, match="being trained by another process"):
            go()


def test_a_figure_that_is_not_finite_stops_with_the_step_and_keeps_the_state(go, tmp_path):
    with pytest.raises(Refusal, match=r"loss is not finite at step 7 \(loss nan\); the last saved"):
        go((None, 7))
    state = resume.read(tmp_path / "state", "k", torch.device("cpu"))
    assert state["step"] == 6


def test_weights_that_are_not_finite_are_not_saved(go, tmp_path, monkeypatch):
    whole = Walk.update

    def update(self, step):
        figures = whole(self, step)
        if step == 5:
            with torch.no_grad():
                self.net[0].weight[0, 0] = float("inf")
        return figures

    monkeypatch.setattr(Walk, "update", update)
    with pytest.raises(Refusal, match=r"net\.0\.weight is not finite after step 5"):
        go()
    assert [saved.step for saved in resume.found(tmp_path / "state", "k")] == [3]


def test_asked_to_leave_in_the_last_step_it_finishes(go, tmp_path):
    go((10,))
    assert (tmp_path / "log.csv").exists()


def test_states_are_forgotten_after_success(go, tmp_path):
    with pytest.raises(SystemExit):
        go((4,))
    _, run = go()
    training.forget(run)
    assert not list((tmp_path / "state").glob("*.pt"))


def test_signal_handlers_are_given_back(go):
    before = signal.getsignal(signal.SIGTERM)
    go()
    assert signal.getsignal(signal.SIGTERM) is before


def test_linear_decay_is_the_released_one_from_an_epoch_earlier():
    """Of 200 epochs the release's rate falls from the 99th on; half of them would be the 100th."""
    with np.load(Path(__file__).parent / "golden/gan_losses.npz") as golden:
        theirs = golden["rates"].tolist()
    ours = [training.linear_decay(epoch, 200, 99 / 200) for epoch in range(1, 201)]
    assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-12)
    halved = [training.linear_decay(epoch, 200, 0.5) for epoch in range(1, 201)]
    assert halved == pytest.approx(theirs, abs=1 / 100)


def test_linear_decay_holds_then_falls_to_zero():
    factors = [training.linear_decay(step, 10, 0.6) for step in range(11)]
    assert factors == pytest.approx([1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25, 0])


def test_one_cycle_rises_to_one_and_ends_near_zero():
    factors = [training.one_cycle(step, 100) for step in range(100)]
    assert max(factors) == pytest.approx(1) and factors.index(max(factors)) == 24
    assert factors[0] < 0.1 and factors[-1] == pytest.approx(0)
    assert all(training.one_cycle(0, steps) >= 0 for steps in (1, 2, 3))


def test_rates_keep_each_groups_factor():
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = torch.optim.Adam(
        [{"params": [w], "factor": f} for w, f in zip(weights, (1, 10), strict=True)]
    )
    training.set_rate(optimizer, 0.5)
    assert [group["lr"] for group in optimizer.param_groups] == [0.5, 5.0]


@pytest.mark.parametrize(("instructions", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_half_precision_only_where_the_processor_has_it(
    instructions, precision, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": instructions})
    assert training.resolved("auto") == precision
    with training.autocast("auto"):
        assert torch.is_autocast_enabled("cpu") == instructions
    assert [training.resolved(p) for p in ("fp32", "bf16")] == ["fp32", "bf16"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_network_keeps_its_keys_values_and_gradients_but_for_rounding():
    nets = []
    for wanted in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(8, 8), nn.ReLU())
        nets.append(training.compiled(net, wanted))
    plain, quick = nets
    assert list(plain.state_dict()) == list(quick.state_dict())
    x = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(quick(x), plain(x))
    for net in nets:
        net(x).square().mean().backward()
    for p, q in zip(plain.parameters(), quick.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad)
