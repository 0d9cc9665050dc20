"""Self-training: teacher, pseudo-labels, ClassMix and masks by hand; who moves whom; resuming."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import params_yaml, tiny, write_set
from hypothesis import given, settings
from hypothesis import strategies as st
from test_adaptation import moved, run, weights

from madan import config
from madan.config import schema
from madan.data import batches
from madan.data.datasets import Pictures
from madan.engine import training
from madan.labels import IGNORE
from madan.methods import losses, segmentation, self_training
from madan.methods.adaptation import build as build_run
from madan.methods.self_training import SelfTraining

CROP = (16, 32)


@pytest.fixture(scope="module")
def params():
    return config.resolve(tiny(params_yaml()))


@pytest.fixture
def sets(tmp_path):
    names = ("one", "two", "three", "target")
    made = {name: write_set(tmp_path / name, name, seed=k) for k, name in enumerate(names)}
    made["target"] = Pictures("target", [tmp_path / "target"])  # Without its labels.
    return made


@pytest.fixture
def supervised(params, sets):
    """Supervised training of a slim F on the sources, plain but for the settings given."""

    def supervised(sources=("one", "two"), dropout=0.0, seed=0, **changed):
        training.begin(seed, 1)
        net = segmentation.build(params.networks.segmenter.model_copy(update={"dropout": dropout}))
        plain = {"crop": CROP, "batch": 4, "class_weights": None, "jitter": 0} | changed
        own = params.training.segmenter.model_copy(update=plain)
        return segmentation.Supervised(net, [sets[name] for name in sources], own, 100, seed)

    return supervised


@pytest.fixture
def build(params, sets, supervised):
    def build(sources=("one", "two"), dropout=0.0, masked=False, task={}, **changed):
        plain = {"threshold": 0.053, "jitter": 0, "blur": 0, "alpha": 0.9} | changed
        own = params.training.self_training.model_copy(update=plain)
        return SelfTraining(supervised(sources, dropout, **task), sets["target"], own, masked)

    return build


BOTH = pytest.mark.parametrize("masked", [False, True])


def still(method):
    """The method, whose optimiser leaves gradients where they are and moves nothing."""
    method.optimizers["F"].step = lambda: None
    return method


def test_teacher_is_the_moving_average_by_the_formula(build):
    """In double precision: a copy at first, then a_t teacher + (1 - a_t) student."""
    method = build(alpha=0.8)
    method.net.double()
    method.teacher.double()
    rng = torch.Generator().manual_seed(0)
    expected = None
    for step in range(12):
        student = torch.cat([p.detach().flatten() for p in method.net.parameters()])
        alpha = min(1 - 1 / (step + 1), 0.8)
        expected = student if step == 0 else alpha * expected + (1 - alpha) * student
        method.teacher.update_parameters(method.net)
        found = torch.cat([p.flatten() for p in method.teacher.module.parameters()])
        assert (found - expected).abs().max() < 1e-12
        with torch.no_grad():
            for parameter in method.net.parameters():
                parameter += torch.randn(parameter.shape, generator=rng, dtype=torch.float64)


def test_decay_by_hand():
    found = [self_training.decay(n, 0.7) for n in range(5)]
    assert found == pytest.approx([0, 0.5, 2 / 3, 0.7, 0.7])


@BOTH
def test_the_teacher_gets_no_gradient_and_no_step_of_the_optimiser(build, masked):
    method = build(dropout=0.5, masked=masked)
    run(method, 3)
    optimised = {id(p) for group in method.optimizers["F"].param_groups for p in group["params"]}
    for parameter in method.teacher.parameters():
        assert parameter.grad is None and not parameter.requires_grad
        assert id(parameter) not in optimised
    assert not method.teacher.training and method.net.training
    before = weights(method.net)
    frozen = weights(method.teacher)
    method.teacher.update_parameters = lambda net: None
    run(method, 1, first=3)
    assert not moved(method.teacher, frozen) and moved(method.net, before)


def test_a_step_moves_all_of_f(build):
    method = build(masked=True)
    before = weights(method.net)
    run(method, 1)
    assert moved(method.net, before) == set(before)


def test_labels_of_the_target_are_never_read(build, sets, monkeypatch):
    def refuse(index):
        raise AssertionError("a label of the target was read")

    for name in ("label", "pixels"):
        monkeypatch.setattr(sets["target"], name, refuse)
    assert not sets["target"]._labels
    run(build(masked=True), 2)


class Says(torch.nn.Module):
    """An F that says the same of every image: class 3 on the left, less surely 4 on the right."""

    head = 1

    def __init__(self, left=4.0, right=1.0):
        super().__init__()
        scores = torch.zeros(1, 19, 4, 8)
        scores[:, 3, :, :2], scores[:, 4, :, 2:] = left, right
        self.scores = torch.nn.Parameter(scores)

    def forward(self, x):
        return self.scores.expand(len(x), -1, -1, -1)


def test_pseudo_labels_and_their_weight_by_hand(build):
    method = build(threshold=0.5)
    method.teacher.module = Says()
    classes, share = method._pseudo_labels(torch.zeros(3, 3, 4, 8))
    assert classes[0, 0].tolist() == [3, 3, 4, 4, 4, 4, 4, 4]
    # e^4 of e^4 + 18 is 0.75, e of e + 18 is 0.13: a quarter of the pixels is confident.
    assert share.item() == 0.25
    method.settings = method.settings.model_copy(update={"threshold": 0.8})
    assert method._pseudo_labels(torch.zeros(3, 3, 4, 8))[1].item() == 0
    method.settings = method.settings.model_copy(update={"threshold": 0.1})
    assert method._pseudo_labels(torch.zeros(3, 3, 4, 8))[1].item() == 1


def test_the_teacher_sees_the_target_as_it_is_and_without_dropout(build, sets):
    method = build(dropout=0.5, jitter=0.5, blur=1.0, task={"jitter": 0.5})
    seen = []
    method.teacher.register_forward_pre_hook(lambda net, given: seen.append(given[0]))
    run(method, 1)
    drawn = batches.draw(sets["target"], 0, 0, 4, CROP, method.task.settings.flip).images
    assert torch.equal(seen[0], batches.imagenet(drawn))
    assert not any(part.training for part in method.teacher.modules())


def test_half_of_the_classes_of_an_image_are_pasted_and_nothing_that_is_ignored():
    truth = torch.tensor([[[0, 0, 1, IGNORE], [2, 2, 1, IGNORE]], [[5, 5, 5, 5]] * 2])
    found = [self_training.class_masks(truth, 0, step, [0, 1]) for step in range(60)]
    first = torch.stack([mask[0] for mask in found])
    assert not first[:, :, 3].any()
    assert torch.equal(first[:, 0, 0], first[:, 0, 1])  # A class is pasted as a whole.
    pasted = torch.stack([first[:, 0, 0], first[:, 0, 2], first[:, 1, 0]], 1)
    assert (pasted.sum(1) == 2).all()  # Of three classes, two.
    assert (pasted.sum(0) > 25).all()  # Each of them as often as the others.
    assert all(mask[1].all() for mask in found)  # Of one class, that one.
    assert not self_training.class_masks(torch.full((1, 2, 2), IGNORE), 0, 0, [0]).any()


def test_the_classes_that_are_pasted_are_a_function_of_seed_step_and_row():
    truth = torch.arange(8).view(1, 2, 4).repeat(2, 1, 1)
    both = self_training.class_masks(truth, 0, 3, [0, 1])
    assert torch.equal(both[1:], self_training.class_masks(truth[1:], 0, 3, [1]))
    assert not torch.equal(both[0], both[1])
    assert not torch.equal(both, self_training.class_masks(truth, 1, 3, [0, 1]))


def test_confidence_weighs_the_loss_of_a_pixel_and_not_its_divisor():
    scores = torch.randn(2, 19, 3, 4, dtype=torch.float64)
    truth = torch.randint(0, 19, (2, 3, 4))
    truth[0, 0] = IGNORE
    class_weights = torch.rand(19, dtype=torch.float64) + 0.5
    trust = torch.rand(2, 3, 4, dtype=torch.float64)
    log = scores.log_softmax(1).numpy()
    total, summed = 0.0, 0.0
    for b, y, x in np.ndindex(2, 3, 4):
        k = int(truth[b, y, x])
        if k != IGNORE:
            total += class_weights[k].item()
            summed -= (trust[b, y, x] * class_weights[k]).item() * log[b, k, y, x]
    found = losses.task(scores, truth, class_weights, confidence=trust)
    assert found.item() == pytest.approx(summed / total, rel=1e-12)
    ones = losses.task(scores, truth, class_weights, confidence=torch.ones_like(trust))
    assert ones.item() == pytest.approx(losses.task(scores, truth, class_weights).item())


@BOTH
def test_gradient_is_that_of_the_sum_that_the_papers_write(build, sets, masked):
    method = still(build(masked=masked, weight=0.6, task={"flip": False}))
    net, teacher = copy.deepcopy(method.net), copy.deepcopy(method.net).eval()
    x, truth = method.task.begin(0)
    # Rows of the batch: two images of each source, each with the image of the target in its row.
    x_target = batches.draw(sets["target"], 0, 0, 4, CROP, False).images
    with torch.no_grad():
        probability, pseudo = teacher(batches.imagenet(x_target)).softmax(1).max(1)
    threshold = probability.median().item()
    method.settings = method.settings.model_copy(update={"threshold": threshold})
    share = (probability >= threshold).double().mean().item()
    assert 0.4 < share < 0.6
    figures = run(method, 1)[0]
    mixed, mixed_truth, trust = x_target.clone(), pseudo.clone(), torch.full(pseudo.shape, share)
    for b in range(4):
        pasted = self_training.class_masks(truth[b : b + 1], 0, 0, [b])[0]
        mixed[b, :, pasted], mixed_truth[b, pasted], trust[b, pasted] = (
            x[b, :, pasted], truth[b, pasted], 1.0,
        )  # fmt: skip
    assert 0 < (trust == 1).double().mean() < 1

    def entropy(images, labels):
        return F.cross_entropy(net(batches.imagenet(images)), labels, reduction="none")

    loss = entropy(x, truth).mean() + 0.6 * (trust * entropy(mixed, mixed_truth)).mean()
    if masked:
        hidden = [self_training.patches(CROP, 0.5, 8, 0, 0, b) for b in range(4)]
        kept = ~torch.from_numpy(np.stack(hidden))[:, None]
        seen = batches.imagenet(x_target) * kept
        loss = loss + share * F.cross_entropy(net(seen), pseudo)
    loss.backward()
    assert figures["confident"] == pytest.approx(share)
    for one, other in zip(method.net.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)


def test_weight_zero_is_training_by_l_task_alone_bit_for_bit(build, supervised):
    method, alone = build(dropout=0.5, weight=0), supervised(dropout=0.5)
    run(method, 3)
    run(alone, 3)
    assert not moved(method.net, weights(alone.net))
    other = build(dropout=0.5)
    run(other, 3)
    assert moved(other.net, weights(alone.net))


def test_no_confident_pixel_leaves_what_is_pasted(build):
    figures = run(build(threshold=1.0, masked=True), 1)[0]
    assert figures["confident"] == 0 and figures["masked"] == 0 and figures["mixed"] > 0


@pytest.mark.parametrize("sources", [["one"], ["one", "two"], ["one", "two", "three"]])
def test_any_number_of_sources_shares_the_batch(build, sources):
    figures = run(build(sources, masked=True, task={"batch": 5}), 2)
    assert set(figures[0]) == {"task", "mixed", "masked", "confident"}
    assert all(np.isfinite(list(line.values())).all() for line in figures)


def test_masks_are_whole_patches_of_the_share_that_is_set():
    found = np.stack([self_training.patches((20, 24), 0.7, 8, 0, step, 0) for step in range(200)])
    assert found.shape == (200, 20, 24)
    assert found.mean() == pytest.approx(0.7, abs=0.03)
    blocks = found[:, :16].reshape(200, 2, 8, 3, 8)
    assert (blocks.all((2, 4)) | ~blocks.any((2, 4))).all()
    assert (found[:, 16:] == found[:, 16:17]).all()  # Cut at the border.
    assert not self_training.patches((16, 16), 0.0, 8, 0, 0, 0).any()
    assert self_training.patches((16, 16), 1.0, 8, 0, 0, 0).all()
    one, other = (self_training.patches((64, 64), 0.5, 8, 0, 0, row) for row in (0, 1))
    assert (one != other).any()


def test_what_is_hidden_is_zero_for_f(build):
    method = build(masked=True, masking=schema_masking(ratio=1.0))
    seen = []
    view = method.task.view
    method.task.view = lambda images: seen.append(batches.imagenet(images)) or view(images)
    run(method, 1)
    assert seen[2].abs().max() < 1e-6 and seen[1].abs().max() > 0.1


def schema_masking(**changed):
    from madan.config.method_settings import Masking

    return Masking(**{"ratio": 0.5, "block": 8, "weight": 1} | changed)


@settings(max_examples=20, deadline=None)
@given(st.floats(0.15, 1.15), st.integers(2, 9))
def test_blur_keeps_the_mean_and_softens(sigma, side):
    images = torch.zeros(2, 3, side, side)
    images[:, :, side // 2, side // 2] = 1
    found = self_training.blurred(images, np.array([[0.2, 0.5], [0.6, 0.5]]), 0.5, (sigma, sigma))
    assert torch.equal(found[1], images[1])  # Drawn above the share.
    assert found[0].max() <= 1 and found.shape == images.shape
    even = self_training.blurred(torch.ones(1, 3, side, side), np.zeros((1, 2)), 1, (sigma, sigma))
    torch.testing.assert_close(even, torch.ones(1, 3, side, side))


def test_colours_and_blur_of_mixed_images_are_a_function_of_the_step(build):
    method = build(jitter=0.5, blur=0.5)
    images = torch.rand(4, 3, *CROP) * 2 - 1
    again = method._augment(images, 3, "mixed")
    assert torch.equal(method._augment(images, 3, "mixed"), again)
    for other in (method._augment(images, 4, "mixed"), method._augment(images, 3, "masked")):
        assert not torch.equal(other, again)


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_has_the_gradients_and_figures_of_the_whole(build, parts):
    found = []
    for accumulate in (1, parts):
        method = still(build(masked=True, task={"accumulate": accumulate}))
        figures = run(method, 1)[0]
        found.append((torch.cat([p.grad.flatten() for p in method.net.parameters()]), figures))
    (whole, figures), (summed, in_parts) = found
    assert (whole - summed).norm() < 2e-4 * whole.norm()
    assert in_parts == pytest.approx(figures, rel=1e-4)


@BOTH
def test_resumed_self_training_ends_with_the_same_bits(build, masked):
    more = {"dropout": 0.5, "masked": masked, "jitter": 0.2, "blur": 0.5}
    whole, half, resumed = (build(**more) for _ in range(3))
    run(whole, 5)
    run(half, 3)
    for name, module in half.modules.items():
        resumed.modules[name].load_state_dict(copy.deepcopy(module.state_dict()))
    for name, optimizer in half.optimizers.items():
        resumed.optimizers[name].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(resumed, 2, first=3)
    assert int(resumed.teacher.n_averaged) == 5
    for name, module in whole.modules.items():
        assert not moved(resumed.modules[name], weights(module))


def test_ignored_batches_leave_finite_steps(build, sets):
    for name in ("one", "two"):
        sets[name]._labels[0] = np.full_like(sets[name]._labels[0], IGNORE)
    method = build(masked=True)
    assert all(np.isfinite(list(line.values())).all() for line in run(method, 2))
    assert all(value.isfinite().all() for value in method.net.state_dict().values())


def test_a_run_of_params_yaml_is_built_with_its_own_weight_and_switch(params, sets):
    run = schema.Adaptation(
        method="self-training", target="cityscapes", train_on=["gta5"], weight=0.5, masked=True
    )
    net = segmentation.build(params.networks.segmenter)
    made = build_run(params, run, net, [sets["one"]], sets["target"], 10, 0)
    assert isinstance(made, SelfTraining) and made.masked
    assert made.settings == params.training.self_training.model_copy(update={"weight": 0.5})
