"""Alignment along with L_task: what F and D_F learn, by class, in parts; the control; resuming."""

import copy

import numpy as np
import pytest
import torch
from conftest import params_yaml, tiny, write_set
from test_adaptation import moved, run, weights

from madan import config
from madan.config import schema
from madan.data import batches
from madan.engine import training
from madan.labels import IGNORE
from madan.methods import losses, segmentation
from madan.methods.adaptation import Feat
from madan.methods.adaptation import build as build_run
from madan.models.discriminators import FeatureDiscriminator

CROP = (16, 32)


@pytest.fixture(scope="module")
def params():
    return config.resolve(tiny(params_yaml()))


@pytest.fixture
def sets(tmp_path):
    names = ("one", "two", "target")
    return {name: write_set(tmp_path / name, name, seed=k) for k, name in enumerate(names)}


@pytest.fixture
def task(params, sets):
    """Supervised training of a slim F on both sources."""

    def task(dropout=0.0, seed=0, **changed):
        training.begin(seed, 1)
        net = segmentation.build(params.networks.segmenter.model_copy(update={"dropout": dropout}))
        plain = {"crop": CROP, "batch": 4, "class_weights": None} | changed
        settings = params.training.segmenter.model_copy(update=plain)
        return segmentation.Supervised(net, [sets["one"], sets["two"]], settings, 100, seed)

    return task


@pytest.fixture
def build(params, sets, task):
    def build(dropout=0.0, seed=0, accumulate=1, **changed):
        supervised = task(dropout, seed, accumulate=accumulate)
        plain = {"on": "features", "weight": 1, "lr_discriminator": 0.05}
        settings = params.training.adaptation.model_copy(update=plain | changed)
        network = params.networks.feature_discriminator.model_copy(update={"dropout": dropout})
        return Feat(supervised, sets["target"], settings, network)

    return build


BOTH = pytest.mark.parametrize("classwise", [False, True])


@BOTH
@pytest.mark.parametrize("on", ["scores", "features"])
def test_a_step_moves_all_of_f_and_of_d_f(build, on, classwise):
    method = build(on=on, classwise=classwise)
    before = {name: weights(module) for name, module in method.modules.items()}
    run(method, 1)
    for name, module in method.modules.items():
        assert moved(module, before[name]) == set(before[name])


@BOTH
def test_weight_zero_is_training_by_l_task_alone_bit_for_bit(build, task, classwise):
    method, alone = build(dropout=0.5, weight=0, classwise=classwise), task(dropout=0.5)
    before = weights(method.discriminator)
    run(method, 3)
    run(alone, 3)
    assert not moved(method.net, weights(alone.net))
    assert moved(method.discriminator, before)


@BOTH
def test_gradient_of_f_is_that_of_l_task_and_of_the_weighted_l_feat(build, sets, classwise):
    """D_F as it stood gives F its gradient, and learns from both sides itself."""
    method = build(weight=0.3, classwise=classwise)
    net, judge = copy.deepcopy(method.net).train(), copy.deepcopy(method.discriminator)
    for optimizer in method.optimizers.values():
        optimizer.step = lambda: None
    figures = run(method, 1)[0]
    x, truth = method.task.begin(0)
    x_target = method.task.unlabelled(sets["target"], 0)
    scores, features = net.forward_features(batches.imagenet(x))
    scores_target, features_target = net.forward_features(batches.imagenet(x_target))

    def classes(scores, features):
        grid = tuple(features.shape[2:])
        pooled = torch.nn.functional.adaptive_avg_pool2d(scores.detach().softmax(1), grid)
        return pooled if classwise else None

    on_target = classes(scores_target, features_target)
    task = torch.nn.functional.cross_entropy(scores, truth, ignore_index=IGNORE)
    feat = losses.domain(judge(features_target), True, on_target)
    (task + 0.3 * feat).backward()
    judge.zero_grad()
    told = losses.domain(judge(features.detach()), True, classes(scores, features))
    told = told + losses.domain(judge(features_target.detach()), False, on_target)
    (told / 2).backward()
    assert figures["task"] == pytest.approx(task.item(), rel=1e-5)
    assert figures["feat"] == pytest.approx(feat.item(), rel=1e-5)
    assert figures["d_feat"] == pytest.approx(told.item() / 2, rel=1e-5)
    for ours, reference in ((method.net, net), (method.discriminator, judge)):
        for one, other in zip(ours.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)


@BOTH
@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_has_the_gradients_and_figures_of_the_whole(build, parts, classwise):
    found = []
    for accumulate in (1, parts):
        method = build(accumulate=accumulate, classwise=classwise)
        for optimizer in method.optimizers.values():
            optimizer.step = lambda: None
        figures = run(method, 1)[0]
        every = [p.grad.flatten() for m in method.modules.values() for p in m.parameters()]
        found.append((torch.cat(every), figures))
    (whole, figures), (summed, in_parts) = found
    assert (whole - summed).norm() < 2e-4 * whole.norm()
    assert in_parts == pytest.approx(figures, rel=1e-4)


def test_images_of_the_target_are_jittered_as_those_of_the_sources_are(task, sets):
    method = task(jitter=0.3, flip=False)
    drawn = batches.draw(sets["target"], 0, 2, 4, CROP, False).images
    expected = batches.jitter(drawn, 0.3, 0, 2)
    assert torch.equal(method.unlabelled(sets["target"], 2), expected)


def test_ignored_batches_and_an_absent_class_leave_finite_steps(build, sets):
    for name in ("one", "two"):
        sets[name]._labels[0] = np.full_like(sets[name]._labels[0], IGNORE)
    method = build(classwise=True)
    assert all(np.isfinite(list(line.values())).all() for line in run(method, 2))
    assert all(value.isfinite().all() for value in method.net.state_dict().values())


def test_label_that_is_no_class_is_an_error(build, sets):
    sets["one"]._labels[0] = np.full_like(sets["one"]._labels[0], 19)
    with pytest.raises((IndexError, RuntimeError)):
        run(build(), 1)


@BOTH
def test_resumed_alignment_ends_with_the_same_bits(build, classwise):
    whole, half, resumed = (build(dropout=0.5, classwise=classwise) for _ in range(3))
    run(whole, 4)
    run(half, 2)
    for name, module in half.modules.items():
        resumed.modules[name].load_state_dict(copy.deepcopy(module.state_dict()))
    for name, optimizer in half.optimizers.items():
        resumed.optimizers[name].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(resumed, 2, first=2)
    for name, module in whole.modules.items():
        assert not moved(resumed.modules[name], weights(module))


def test_one_certain_class_is_judged_as_its_own_logits_say():
    net = FeatureDiscriminator(channels=4, hidden=(8, 8), dropout=0.0, classes=3)
    logits = net(torch.randn(2, 4, 5, 6))
    assert logits.shape == (2, 2, 3, 5, 6)
    certain = torch.zeros(2, 3, 5, 6)
    certain[:, 1] = 1
    for is_source in (True, False):
        alone = losses.domain(logits[:, :, 1], is_source)
        assert losses.domain(logits, is_source, certain).item() == pytest.approx(alone.item())
    even = torch.full_like(certain, 1 / 3)
    mean = sum(losses.domain(logits[:, :, k], True).item() for k in range(3)) / 3
    assert losses.domain(logits, True, even).item() == pytest.approx(mean)


@pytest.mark.parametrize("gamma", [0.5, 10])
def test_soft_maximum_by_hand_and_where_exponentials_overflow(gamma):
    values = np.array([0.2, 1.1, 0.7])
    by_hand = np.log(np.exp(gamma * values).sum()) / gamma
    tensor = torch.tensor(values, dtype=torch.float64)
    assert losses.soft_maximum(tensor, gamma).item() == pytest.approx(by_hand)
    huge = losses.soft_maximum(tensor + 1e4, gamma).item()
    assert huge == pytest.approx(by_hand + 1e4)
    assert losses.soft_maximum(tensor, None).item() == 1.1


@pytest.mark.parametrize("method", ["adda", "feat"])
def test_a_run_may_differ_in_weight_level_and_classes(params, sets, method):
    own = {"weight": 0.0, "on": "features", "classwise": True}
    sources = {} if method == "adda" else {"train_on": ["gta5"]}
    run_ = schema.Adaptation(
        method=method, target="cityscapes", start="madan-pixel", **own, **sources
    )
    net = segmentation.build(params.networks.segmenter)
    made = build_run(params, run_, net, [sets["one"]], sets["target"], 10, 0)
    assert made.settings.model_dump(include=set(own)) == own
    assert made.discriminator.classes == 19
    assert made.discriminator.D[0].in_channels == net.head
