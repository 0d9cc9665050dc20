"""Supervised training: what a step changes, from which images, at which rate."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import params_yaml, tiny, write_set
from hypothesis import given
from hypothesis import strategies as st

from madan import config
from madan.config.training_settings import ClassWeights
from madan.data import batches
from madan.engine import training
from madan.labels import IGNORE
from madan.methods import segmentation

CROP = (16, 32)
PLAIN = {
    "crop": CROP,
    "batch": 4,
    "jitter": 0,
    "flip": False,
    "weight_decay": 0,
    "schedule": "constant",
    "class_weights": None,
}


class Plain:
    """A set of images of one grey level, all of one class."""

    def __init__(self, name, grey, train_id, count=6):
        self.name, self.grey, self.train_id, self.count = name, grey, train_id, count

    def __len__(self):
        return self.count

    def image(self, index):
        return np.full((*CROP, 3), self.grey, np.uint8)

    def label(self, index):
        return np.full(CROP, self.train_id, np.uint8)


@pytest.fixture(scope="module")
def params():
    return config.resolve(tiny(params_yaml()))


@pytest.fixture
def build(params):
    """Supervised training of a slim F, plain but for the settings given."""

    def build(sets, steps=100, seed=0, dropout=0.0, **changed):
        training.begin(seed, 1)
        net = segmentation.build(params.networks.segmenter.model_copy(update={"dropout": dropout}))
        settings = params.training.segmenter.model_copy(update=PLAIN | changed)
        return segmentation.Supervised(net, sets, settings, steps, seed)

    return build


@pytest.fixture
def pictures(tmp_path):
    return write_set(tmp_path / "set", "set")


def watch(net):
    """A list that fills with what F sees and what it says."""
    seen = []
    net.register_forward_hook(lambda _, given, said: seen.append((given[0], said)))
    return seen


def test_step_changes_every_weight(build, pictures):
    method = build([pictures])
    before = copy.deepcopy(method.net.state_dict())
    method.update(0)
    same = [
        key for key, value in method.net.state_dict().items() if torch.equal(value, before[key])
    ]
    assert not same


def test_loss_falls_on_a_repeated_batch(build, pictures):
    method = build([pictures], lr=0.01)
    figures = [method.update(step)["task"] for step in range(20)]
    assert figures[-1] < 0.6 * figures[0]


def test_images_learn_the_labels_of_their_own_set(build):
    method = build([Plain("dark", 20, 4), Plain("light", 230, 9)], lr=0.02)
    for step in range(40):
        method.update(step)
    seen = watch(method.net)
    assert method.update(40)["task"] < 0.1
    [(images, scores)] = seen
    said = scores.argmax(1).flatten(1).mode().values
    assert said.tolist() == [4 if image.mean() < 0 else 9 for image in images]


def test_loss_is_the_weighted_cross_entropy_of_the_batch_that_f_sees(build, pictures):
    method = build([pictures], class_weights=ClassWeights(power=0.5, cap=3), flip=True)
    seen = watch(method.net)
    figure = method.update(7)["task"]
    [(images, scores)] = seen
    batch = batches.draw(pictures, 0, 7, 4, CROP, True, labelled=True)
    assert torch.equal(images, batches.imagenet(batch.images))
    pixels = pictures.pixels()
    present = pixels[:5] / pixels.sum()
    weights = torch.tensor([*np.minimum(3, present**-0.5), *[3.0] * 14]).float()
    expected = F.cross_entropy(scores, batch.truth(), weights, ignore_index=IGNORE)
    assert figure == pytest.approx(expected.item(), rel=1e-5)


def test_class_weights_follow_the_pixels_of_all_sets(params, tmp_path):
    sets = [write_set(tmp_path / str(k), str(k), seed=k) for k in range(2)]
    settings = params.training.segmenter.model_copy(
        update={"class_weights": ClassWeights(power=1, cap=50)}
    )
    shares = [pictures.pixels() / pictures.pixels().sum() for pictures in sets]
    mean = (shares[0] + shares[1]) / 2
    expected = [1 / f if f else 50 for f in mean]
    assert segmentation.class_weights(sets, settings).tolist() == pytest.approx(expected)


def test_without_class_weights_no_labels_are_counted(params):
    settings = params.training.segmenter.model_copy(update={"class_weights": None})
    assert segmentation.class_weights([object()], settings) is None


@given(st.integers(1, 50), st.integers(1, 50))
def test_shares_are_even_and_sum_to_the_batch(batch, sets):
    shares = segmentation.shares(batch, sets)
    assert len(shares) == sets
    assert sum(shares) == batch
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


@pytest.mark.parametrize(("batch", "expected"), [(4, [2, 2]), (5, [3, 2])])
def test_every_batch_takes_equal_shares_of_the_sets(build, batch, expected):
    # The sets differ in size: shares are of sets, not of images.
    method = build([Plain("dark", 0, 0, count=2), Plain("light", 255, 1, count=9)], batch=batch)
    seen = watch(method.net)
    for step in range(3):
        method.update(step)
    for images, _ in seen:
        dark = sum(bool(image.mean() < 0) for image in images)
        assert [dark, len(images) - dark] == expected


def test_batch_of_ignored_pixels_moves_nothing(build):
    method = build([Plain("ignored", 90, IGNORE)])
    before = copy.deepcopy(method.net.state_dict())
    assert method.update(0) == {"task": 0}
    assert all(torch.equal(value, before[key]) for key, value in method.net.state_dict().items())


def test_rate_is_constant_or_follows_one_cycle(build, pictures):
    constant = build([pictures], steps=8, lr=0.01)
    cycle = build([pictures], steps=8, lr=0.01, schedule="one-cycle")
    rates = {"constant": [], "one-cycle": []}
    for step in range(8):
        for method in (constant, cycle):
            method.update(step)
            [group] = method.optimizers["F"].param_groups
            rates[method.settings.schedule].append(group["lr"])
    assert rates["constant"] == [0.01] * 8
    assert rates["one-cycle"] == [0.01 * training.one_cycle(step, 8) for step in range(8)]
    assert rates["one-cycle"][1] == 0.01
    assert rates["one-cycle"][-1] == pytest.approx(0, abs=1e-9)


def test_weight_decay_shrinks_weights_that_nothing_else_moves(build):
    method = build([Plain("ignored", 90, IGNORE)], lr=0.1, weight_decay=0.5)
    before = copy.deepcopy(method.net.state_dict())
    method.update(0)
    for key, value in method.net.state_dict().items():
        torch.testing.assert_close(value, before[key] * (1 - 0.1 * 0.5))


def test_jitter_changes_what_f_sees(build, pictures):
    seen = []
    for amount in (0, 0.3):
        method = build([pictures], jitter=amount)
        watched = watch(method.net)
        method.update(2)
        seen.append(watched[0][0])
    assert seen[0].shape == seen[1].shape
    assert not torch.equal(*seen)


def test_dropout_is_on_while_training_even_after_an_evaluation(build, pictures):
    method = build([pictures], dropout=0.5)
    method.net.eval()
    method.update(0)
    assert method.net.training


def test_bf16_trains_weights_that_stay_fp32(build, pictures):
    method = build([pictures], precision="bf16")
    seen = watch(method.net)
    figure = method.update(0)["task"]
    assert seen[0][1].dtype == torch.bfloat16
    assert {parameter.dtype for parameter in method.net.parameters()} == {torch.float32}
    exact = build([pictures]).update(0)["task"]
    assert figure == pytest.approx(exact, rel=0.02)


def test_two_runs_of_one_seed_have_the_same_bits_and_another_seed_others(build, pictures):
    nets = []
    for seed in (0, 0, 1):
        method = build([pictures], seed=seed)
        for step in range(2):
            method.update(step)
        nets.append(torch.cat([p.flatten() for p in method.net.parameters()]))
    assert torch.equal(nets[0], nets[1])
    assert not torch.equal(nets[0], nets[2])


@pytest.mark.parametrize("parts", [2, 3, 4])
def test_a_batch_in_parts_has_the_gradients_and_the_loss_of_the_whole(build, tmp_path, parts):
    # Ignored pixels lie unevenly, so that a mean of the parts' own means would be another loss.
    pictures = write_set(tmp_path / "uneven", "uneven")
    pictures._labels[0] = pictures._labels[0].copy()
    pictures._labels[0][:2, :12] = IGNORE
    weighted = ClassWeights(power=0.5, cap=3)
    found = []
    for accumulate in (1, parts):
        method = build([pictures], accumulate=accumulate, class_weights=weighted)
        seen = watch(method.net)
        figure = method.update(0)["task"]
        gradients = torch.cat([p.grad.flatten() for p in method.net.parameters()])
        found.append((figure, gradients, max(len(images) for images, _ in seen)))
    (whole, gradient, _), (in_parts, summed, largest) = found
    assert largest == -(-4 // parts)
    assert in_parts == pytest.approx(whole, rel=1e-6)
    assert (summed - gradient).norm() < 1e-6 * gradient.norm()
