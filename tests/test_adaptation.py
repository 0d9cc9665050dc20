"""Feature alignment: who learns when, from whose images, and what the control shows."""

import copy

import numpy as np
import pytest
import torch
from conftest import params_yaml, tiny, write_set
from test_fcn8s import GOLDEN, load, narrow
from torch import nn

from madan import config
from madan.data import batches
from madan.data.datasets import Pictures
from madan.engine import training
from madan.errors import Refusal
from madan.methods import losses, segmentation
from madan.methods.adaptation import Accuracy, Adda
from madan.models.discriminators import FeatureDiscriminator

CROP = (16, 32)
LEVELS = {"dark": (0, 60), "pale": (140, 200), "target": (200, 256)}


class Plain(nn.Module):
    """An F of two linear layers, whose features and scores say how bright an image is."""

    head = 8

    def __init__(self):
        super().__init__()
        self.hidden, self.score = nn.Conv2d(3, 8, 4, stride=4), nn.Conv2d(8, 19, 1)

    def forward_features(self, x):
        features = self.hidden(x)
        return self.score(features), features


@pytest.fixture(scope="module")
def params():
    return config.resolve(tiny(params_yaml()))


@pytest.fixture
def sets(tmp_path):
    """Two sources and a target of different brightness, so that D_F can tell them."""
    made = {}
    for k, (name, levels) in enumerate(LEVELS.items()):
        folder = tmp_path / name
        write_set(folder, name, size=CROP, seed=k)
        noise = np.random.default_rng(k).integers(*levels, (4, *CROP, 3), dtype=np.uint8)
        np.save(folder / "images.npy", noise)
        made[name] = Pictures(name, [folder])
    return made


@pytest.fixture
def build(params, sets):
    """ADDA of a slim F, with an open gate unless the settings say otherwise."""

    def build(sources=("dark", "pale"), seed=0, dropout=0.0, plain_net=False, **changed):
        training.begin(seed, 1)
        net = Plain() if plain_net else segmentation.build(params.networks.segmenter)
        plain = {"crop": CROP, "batch": 4, "flip": False, "gate": 0, "weight": 1, "window": 2}
        plain |= {"lr": 0.05, "lr_discriminator": 0.1}
        settings = params.training.adaptation.model_copy(update=plain | changed)
        network = params.networks.feature_discriminator.model_copy(
            update={"hidden": (8, 8), "dropout": dropout}
        )
        sources = [sets[name] for name in sources]
        return Adda(net, sources, sets["target"], settings, network, seed)

    return build


def weights(module):
    return {key: value.clone() for key, value in module.state_dict().items()}


def moved(module, before):
    return {
        key for key, value in module.state_dict().items() if not torch.equal(value, before[key])
    }


def run(method, steps, first=0):
    figures = []
    for step in range(first, first + steps):
        torch.manual_seed(step)
        figures.append(method.update(step))
    return figures


@pytest.mark.parametrize("on", ["scores", "features"])
def test_closed_gate_leaves_f_untouched_and_teaches_d_f(build, on):
    method = build(gate=1, on=on)
    net, discriminator = weights(method.net), weights(method.discriminator)
    figures = run(method, 3)
    assert not moved(method.net, net)
    assert moved(method.discriminator, discriminator) == set(discriminator)
    assert all("feat" not in line for line in figures)


def test_open_gate_updates_f(build):
    method = build(on="scores")
    net = weights(method.net)
    figures = run(method, 1)
    assert moved(method.net, net) == set(net)
    assert "feat" in figures[0]


def test_features_are_aligned_without_the_score_layers(build):
    method = build(on="features")
    net = weights(method.net)
    run(method, 2)
    last = f"vgg_head.{len(method.net.vgg_head) - 1}."
    score_layers = {key for key in net if key.startswith(("score_pool", last))}
    assert len(score_layers) == 6
    assert moved(method.net, net) == set(net) - score_layers


def test_weight_zero_leaves_f_untouched(build):
    method = build(weight=0)
    net = weights(method.net)
    figures = run(method, 3)
    assert not moved(method.net, net)
    assert all("feat" in line for line in figures)


def test_f_does_not_disturb_what_d_f_learns(build):
    # With weight 0 F stays what it is, so D_F must learn the same with and without F's steps.
    opened, closed = build(weight=0, gate=0), build(weight=0, gate=1)
    run(opened, 4)
    run(closed, 4)
    assert not moved(opened.discriminator, weights(closed.discriminator))


def test_frozen_copy_never_changes(build):
    method = build()
    start = weights(method.net)
    run(method, 3)
    assert moved(method.net, start)
    assert not moved(method.fixed, start)
    assert not any(parameter.requires_grad for parameter in method.fixed.parameters())


def watch(net):
    """A list that fills with the images that reach the first layer of a network."""
    seen = []
    net.vgg[0].register_forward_hook(lambda _, given, __: seen.append(given[0]))
    return seen


def test_frozen_copy_sees_equal_shares_of_the_sources_and_f_the_target(build, sets):
    method = build(batch=5)
    by_fixed, by_net = watch(method.fixed), watch(method.net)
    run(method, 3)
    for step, (x, x_target) in enumerate(zip(by_fixed, by_net, strict=True)):
        for images, name, count in (
            (x[:3], "dark", 3), (x[3:], "pale", 2), (x_target, "target", 5)
        ):  # fmt: skip
            expected = batches.draw(sets[name], 0, step, count, CROP, False).images
            assert torch.equal(images, batches.imagenet(expected))


@pytest.mark.parametrize("on", ["scores", "features"])
def test_d_f_learns_to_call_the_frozen_copys_view_source_and_fs_view_target(build, sets, on):
    method = build(["dark"], gate=1, on=on, plain_net=True)
    figures = run(method, 30)
    assert figures[-1]["accuracy"] == 1
    assert figures[-1]["d_feat"] < 0.5 * figures[0]["d_feat"]
    for name, side in (("dark", 1), ("target", 0)):
        images = batches.draw(sets[name], 0, 0, 4, CROP, False).images
        scores, features = method.fixed.forward_features(batches.imagenet(images))
        logits = method.discriminator(scores if on == "scores" else features)
        assert (logits.argmax(1) == side).all()


@pytest.mark.parametrize("on", ["scores", "features"])
def test_f_learns_to_make_d_f_take_target_for_source(build, sets, on):
    # D_F is as good as fixed, so that only F moves.
    method = build(lr_discriminator=1e-12, on=on, plain_net=True)

    def taken_for_source():
        images = batches.draw(sets["target"], 0, 0, 4, CROP, False).images
        with torch.no_grad():
            scores, features = method.net.forward_features(batches.imagenet(images))
            logits = method.discriminator(scores if on == "scores" else features)
        return logits.softmax(1)[:, 1].mean().item()

    before = taken_for_source()
    run(method, 10)
    assert taken_for_source() > before + 0.1


def test_figures_are_those_of_d_f_before_its_step(build, sets):
    method = build(window=1, plain_net=True)
    run(method, 6)
    discriminator, net = copy.deepcopy(method.discriminator), copy.deepcopy(method.net)
    figures = run(method, 1, first=6)[0]
    x = [batches.draw(sets[name], 0, 6, 2, CROP, False).images for name in ("dark", "pale")]
    x_target = batches.draw(sets["target"], 0, 6, 4, CROP, False).images
    with torch.no_grad():
        on_source = discriminator(method.fixed.forward_features(batches.imagenet(torch.cat(x)))[0])
        on_target = discriminator(net.forward_features(batches.imagenet(x_target))[0])
    right = [*(on_source[:, 1] > on_source[:, 0]), *(on_target[:, 1] < on_target[:, 0])]
    accuracy = torch.stack(right).float().mean().item()
    assert 0.5 < accuracy < 1
    assert figures["accuracy"] == pytest.approx(accuracy)
    mean = (losses.domain(on_source, True) + losses.domain(on_target, False)) / 2
    assert figures["d_feat"] == pytest.approx(mean.item(), rel=1e-5)


def test_gate_opens_above_its_value_and_not_at_it(build):
    figures = run(build(weight=0, window=1, plain_net=True), 12)
    reached = [line["accuracy"] for line in figures]
    gate = sorted(set(reached))[1]
    assert min(reached) < gate < max(reached)
    again = run(build(weight=0, window=1, gate=gate, plain_net=True), 12)
    assert [line["accuracy"] for line in again] == reached
    assert ["feat" in line for line in again] == [value > gate for value in reached]


def test_neither_f_nor_its_frozen_copy_has_dropout_while_aligned(build):
    method = build()
    method.net.train()
    run(method, 1)
    assert not method.net.training
    assert not method.fixed.training
    assert method.discriminator.training


def test_gate_that_never_opened_is_refused_with_advice(build):
    method = build(gate=1)
    run(method, 2)
    with pytest.raises(Refusal, match=r"never began.*over 2 iterations.*lower the gate, or raise"):
        method.check()


def test_gate_that_opened_once_is_enough_even_after_a_resume(build):
    method = build(gate=0)
    run(method, 1)
    method.check()
    resumed = build(gate=1)
    resumed.accuracy.load_state_dict(method.accuracy.state_dict())
    run(resumed, 1, first=1)
    resumed.check()


def test_accuracy_is_the_mean_of_its_window_where_the_unseen_count_zero():
    accuracy = Accuracy(4)
    values = [1, 0.5, 0.5, 1, 0.5]
    means = [accuracy.add(step, value) for step, value in enumerate(values)]
    assert means == [0.25, 0.375, 0.5, 0.75, 0.625]


def test_window_survives_the_saved_state():
    whole, half, resumed = Accuracy(3), Accuracy(3), Accuracy(3)
    values = [0.5, 1, 0.25, 0.75, 0.5]
    expected = [whole.add(step, value) for step, value in enumerate(values)]
    for step in range(2):
        half.add(step, values[step])
    resumed.load_state_dict(half.state_dict())
    assert [resumed.add(step, values[step]) for step in range(2, 5)] == expected[2:]


def test_resumed_alignment_ends_with_the_same_bits(build):
    whole = build(dropout=0.5)
    run(whole, 4)
    half = build(dropout=0.5)
    run(half, 2)
    resumed = build(dropout=0.5)
    for name, module in half.modules.items():
        resumed.modules[name].load_state_dict(copy.deepcopy(module.state_dict()))
    for name, optimizer in half.optimizers.items():
        resumed.optimizers[name].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(resumed, 2, first=2)
    for name, module in whole.modules.items():
        assert not moved(resumed.modules[name], weights(module))


def test_control_differs_from_alignment_in_f_alone(build):
    aligned, control = build(weight=0.5), build(weight=0)
    run(aligned, 1)
    run(control, 1)
    assert not moved(aligned.discriminator, weights(control.discriminator))
    assert moved(aligned.net, weights(control.net))


def seeded_images(seed):
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(seed))


def seeded_truth(seed):
    return torch.randint(0, 19, (2, 64, 96), generator=torch.Generator().manual_seed(seed))


def largest_error(name, module):
    """Of sum and absolute sum of each tensor, against the recorded ones, relative to the latter."""
    with np.load(GOLDEN / "adaptation_steps.npz") as file:
        names, digests = file[f"{name}_names"].tolist(), file[f"{name}_digests"]
    tensors = {key: value.double() for key, value in module.state_dict().items()}
    assert sorted(tensors) == sorted(names)
    found = [[tensors[key].sum().item(), tensors[key].abs().sum().item()] for key in names]
    return (abs(np.array(found) - digests) / digests[:, 1:]).max()


def released_iteration(net, discriminator, optimizers, step, on):
    """As released, weights shared: D_F, then F by L_feat, then F by L_task, a step for each."""
    x, x_target = seeded_images(20 + step), seeded_images(30 + step) * 0.7 + 0.3
    seen = 0 if on == "scores" else 1
    with torch.no_grad():
        source, target = (net.forward_features(each)[seen] for each in (x, x_target))
    told = losses.domain(discriminator(source), True), losses.domain(discriminator(target), False)
    training.descend(optimizers["DF"], (told[0] + told[1]) / 2)
    views = net.forward_features(x_target)
    feat = losses.domain(discriminator(views[seen]), True)
    training.descend(optimizers["F"], 0.1 * feat)
    task = losses.task(net(x), seeded_truth(40 + step), None)
    training.descend(optimizers["F"], task)
    on_target = losses.task(views[0], seeded_truth(50 + step), None)
    return [each.item() for each in ((told[0] + told[1]) / 2, feat, task, on_target)]


@pytest.mark.parametrize("on", ["scores", "features"])
def test_two_iterations_in_the_released_arrangement_have_the_released_numbers(on):
    net = narrow()
    torch.manual_seed(6)
    discriminator = FeatureDiscriminator(
        channels=19 if on == "scores" else 64, hidden=(512, 256), dropout=0.0
    )
    modules = {"F": net, "DF": discriminator}
    optimizers = {
        name: torch.optim.SGD(module.parameters(), 2e-3, 0.9, weight_decay=5e-4)
        for name, module in modules.items()
    }
    found = [released_iteration(net, discriminator, optimizers, step, on) for step in range(2)]
    np.testing.assert_allclose(found, load("adaptation_steps")[f"adda_{on}_losses"], rtol=1e-5)
    for name, module in modules.items():
        assert largest_error(f"adda_{on}_{name}", module) < 1e-6
