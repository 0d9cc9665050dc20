"""Two recorded steps of the released multi-source model, from the package's networks and losses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from released_steps import Released
from test_fcn8s import NARROW

from madan.models.discriminators import PatchGAN
from madan.models.fcn8s import FCN8s
from madan.models.generator import Generator

GOLDEN = Path(__file__).parent / "golden"
RECORDED = json.loads((GOLDEN / "multi_step.json").read_text())
CYCLEGANS = ("G_1", "R_1", "G_2", "R_2", "D_1", "D_2")
AGGREGATION = ("SAD", "CCD_1", "CCD_2")
PLAIN = {"cycle": 1.0, "identity": 0.0, "gates": True}
CASES = {
    "full": ((*CYCLEGANS, "DT", *AGGREGATION, "F_1", "F_2"), PLAIN),
    "plain_shared": ((*CYCLEGANS, "DT"), PLAIN),
    "unshared": ((*CYCLEGANS, "DT_1", "DT_2"), PLAIN),
    "idt": ((*CYCLEGANS, "DT"), PLAIN | {"cycle": 10.0, "identity": 0.5}),
    "gates_closed": ((*CYCLEGANS, "DT", *AGGREGATION), PLAIN | {"gates": False}),
}


def networks(names):
    """Networks as they were at the start: generators from their seed, others as kept."""
    torch.manual_seed(9)
    sizes = {"ngf": 4, "blocks": 9, "end_kernel": 7, "upsample": "transposed"}
    made = {
        name: Generator(**sizes, dropout=False, colour=False)
        for name in ("G_1", "R_1", "G_2", "R_2")
    }
    kept = {}
    for file in ("multi_step_judges", "multi_step_discriminators"):
        with np.load(GOLDEN / f"{file}.npz") as arrays:
            kept |= {key: torch.from_numpy(arrays[key]) for key in arrays}
    for name in names:
        if name not in made:
            judge = name.startswith("F_")
            patches = PatchGAN(ndf=4, layers=3, norm="instance")
            made[name] = FCN8s(**NARROW).eval() if judge else patches
            prefix = "DT." if name.startswith("DT") else f"{name}."
            state = {k.removeprefix(prefix): v for k, v in kept.items() if k.startswith(prefix)}
            missing, surplus = made[name].load_state_dict(state, strict=False)
            # Biases of discriminators and the score layers of the skips begin with 0.
            assert not surplus and all("score_" in key or "bias" in key for key in missing)
            for key in missing:
                made[name].get_parameter(key).data.zero_()
    return {name: made[name] for name in names}


def images(step):
    torch.manual_seed(70 + step)
    one, two, target = (torch.rand(1, 3, 64, 64) * 2 - 1 for _ in range(3))
    return {1: one, 2: two}, target


@pytest.fixture(scope="module")
def steps():
    """Losses of both steps of a case, and the networks after each."""
    made = {}

    def steps(case):
        if case not in made:
            names, options = CASES[case]
            model = Released(networks(names), **options)
            made[case] = []
            for step in (0, 1):
                said = {name: loss.item() for name, loss in model.step(*images(step)).items()}
                weights = {
                    name: {key: value.clone() for key, value in net.state_dict().items()}
                    for name, net in model.net.items()
                }
                made[case].append((said, weights))
        return made[case]

    return steps


@pytest.mark.parametrize("case", CASES)
def test_every_loss_of_two_steps_is_the_released_one(steps, case):
    for (said, _), recorded in zip(steps(case), RECORDED[case], strict=True):
        # Divergences were recorded as sums, ten times over.
        said = {n: v * (778240 if n.startswith("semantic") else 1) for n, v in said.items()}
        assert said == pytest.approx(recorded, rel=1e-5)


def test_weights_after_two_steps_are_the_released_ones(steps):
    """By their sums. Biases before a normalisation get whole steps of rounding errors: left out."""
    for (_, weights), recorded in zip(steps("full"), RECORDED["digests"], strict=True):
        for name, digests in recorded.items():
            for key, (total, absolute) in digests.items():
                value = weights[name][key].double()
                assert value.abs().sum().item() == pytest.approx(absolute, rel=1e-5)
                assert value.sum().item() == pytest.approx(total, abs=1e-4 * absolute)
