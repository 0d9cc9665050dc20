"""CLA of MADAN+: weights by hand, loss and gradients in double precision, who moves whom."""

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
from madan.config.method_settings import Cla
from madan.data import batches
from madan.data.datasets import Pictures
from madan.engine import training
from madan.labels import IGNORE
from madan.methods import category, losses, segmentation
from madan.methods.adaptation import Feat
from madan.methods.adaptation import build as build_run
from madan.methods.category import CategoryAlignment
from madan.models.discriminators import CategoryDiscriminators, FeatureDiscriminator

CROP = (16, 32)
PLAIN = Cla(weight=1, cell=1, pseudo_labels="hard")


def shares(truth, positions, size=1):
    return category.cell_shares(category.one_hot(truth).double(), positions, size)


def test_weights_by_hand():
    """A picture of 4x4 pixels on 2x2 positions: class 0 fills three cells, class 1 half of one."""
    truth = torch.zeros(1, 4, 4, dtype=torch.long)
    truth[0, 2:, 2:] = torch.tensor([[1, 1], [IGNORE, 2]])
    found = losses.category_weights(shares(truth, (2, 2)))
    assert found.shape == (1, 19, 2, 2)
    assert found[0, 0].tolist() == [[1 / 3, 1 / 3], [1 / 3, 0]]
    assert found[0, 1].tolist() == found[0, 2].tolist() == [[0, 0], [0, 1]]
    assert found[0, 3:].abs().max() == 0


def test_loss_by_hand():
    """Two classes in one row of two cells, with logits whose probabilities are known."""
    odds = torch.tensor([[1.0, 3.0], [1.0, 1.0]], dtype=torch.float64)  # of class and cell
    logits = torch.stack([torch.zeros(2, 2), odds.log()])[None, :, :, None]
    share = torch.tensor([[0.5, 1.0], [0.0, 0.25]], dtype=torch.float64)[None, :, None]
    found = losses.category(logits, True, losses.category_weights(share))
    # Class 0 weighs its cells 1/3 and 2/3, class 1 has its second cell alone.
    assert found.item() == pytest.approx(np.log(2) / 3 + 2 / 3 * np.log(4 / 3) + np.log(2))
    found = losses.category(logits, False, losses.category_weights(share))
    assert found.item() == pytest.approx(np.log(2) / 3 + 2 / 3 * np.log(4) + np.log(2))


def derived(logits, side, truth):
    """L_CLA and its gradient, counted pixel by pixel and with the sigmoid of the logits' gap."""
    images, _, classes, rows, columns = logits.shape
    height, width = truth.shape[1:]
    loss, gradient = 0.0, np.zeros(logits.shape)
    for b in range(images):
        counts = np.zeros((classes, rows, columns))
        pixels = np.zeros((rows, columns))
        for y in range(height):
            for x in range(width):
                cell = y * rows // height, x * columns // width
                pixels[cell] += 1
                if truth[b, y, x] != IGNORE:
                    counts[(truth[b, y, x], *cell)] += 1
        for k in range(classes):
            share = counts[k] / pixels
            if not share.any():
                continue
            weight = share / share.sum()
            gap = logits[b, 1, k] - logits[b, 0, k]
            source = 1 / (1 + np.exp(-gap))
            right = source if side else 1 - source
            loss -= (weight * np.log(right)).sum() / images
            towards = weight * (source - side) / images
            gradient[b, 1, k] += towards
            gradient[b, 0, k] -= towards
    return loss, gradient


@pytest.mark.parametrize("side", [True, False])
@pytest.mark.parametrize(("size", "positions"), [((8, 12), (2, 3)), ((9, 13), (4, 3))])
def test_loss_and_gradient_are_those_of_an_independent_derivation(side, size, positions):
    rng = np.random.default_rng(3)
    logits = torch.tensor(rng.normal(size=(2, 2, 19, *positions)), requires_grad=True)
    truth = rng.choice([0, 1, 5, 18, IGNORE], (2, *size), p=[0.6, 0.2, 0.1, 0.05, 0.05])
    found = losses.category_weights(shares(torch.tensor(truth), positions))
    loss = losses.category(logits, side, found)
    loss.backward()
    expected, gradient = derived(logits.detach().numpy(), side, truth)
    assert abs(loss.item() - expected) < 1e-12
    assert abs(logits.grad.numpy() - gradient).max() < 1e-12


@settings(max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(4, 20), st.integers(4, 20)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 3),
)
def test_every_pixel_belongs_to_one_cell_and_every_class_that_is_there_weighs_one(
    pixels, positions, size
):
    truth = torch.randint(0, 3, (2, *pixels), generator=torch.Generator().manual_seed(0))
    found = shares(truth, positions, size)
    rows, columns = (-(-count // size) for count in positions)
    assert found.shape == (2, 19, rows, columns)
    torch.testing.assert_close(found.sum(1), torch.ones(2, rows, columns).double())
    weight = losses.category_weights(found).sum((2, 3))
    present = torch.stack([(truth == k).flatten(1).any(1) for k in range(19)], 1)
    torch.testing.assert_close(weight, present.double())


def test_cells_of_several_positions_average_features_and_labels_alike():
    truth = torch.randint(0, 3, (1, 16, 24), generator=torch.Generator().manual_seed(1))
    found = shares(truth, (4, 6), 2)
    torch.testing.assert_close(found, F.avg_pool2d(shares(truth, (4, 6)), 2))
    x = torch.randn(1, 3, 5, 6).double()
    pooled = category.cells(x, 2)
    assert pooled.shape == (1, 3, 3, 3)
    torch.testing.assert_close(pooled[0, :, 2, 0], x[0, :, 4, :2].mean(1))
    assert category.cells(x, 1) is x


def test_every_class_has_a_discriminator_of_its_own():
    made = CategoryDiscriminators(channels=4, hidden=(6, 5), dropout=0.0, classes=3)
    x = torch.randn(2, 4, 3, 2)
    logits = made(x)
    assert logits.shape == (2, 2, 3, 3, 2)
    for k in range(3):
        alone = FeatureDiscriminator(channels=4, hidden=(6, 5), dropout=0.0)
        state = {}
        for layer, count in ((0, 6), (3, 5), (6, 2)):
            for kind in ("weight", "bias"):
                whole = made.D[layer].get_parameter(kind)
                state[f"D.{layer}.{kind}"] = whole[k * count : (k + 1) * count]
        alone.load_state_dict(state)
        torch.testing.assert_close(logits[:, :, k], alone(x))


def test_class_gradients_do_not_follow_the_number_of_pixels():
    """A class of 95 % and one of 5 %: sums of absolute gradients at the features they lie on."""
    torch.manual_seed(0)
    truth = torch.zeros(1, 10, 10, dtype=torch.long)
    truth[0, 9, :5] = 1
    both = category.one_hot(truth).double()
    judge = CategoryDiscriminators(channels=8, hidden=(16, 16), dropout=0.0, classes=19).double()
    features = torch.randn(1, 8, 10, 10, dtype=torch.float64)

    def ratio(loss):
        seen = features.clone().requires_grad_(True)
        loss(judge(seen)).backward()
        on_cells = [seen.grad.abs()[:, :, truth[0] == k].sum().item() for k in (0, 1)]
        return on_cells[0] / on_cells[1]

    by_pixels = ratio(lambda logits: losses.domain(logits, True, both))
    by_class = ratio(lambda logits: losses.category(logits, True, losses.category_weights(both)))
    assert by_pixels == pytest.approx(19 * by_class)
    assert by_pixels > 15 and 0.5 < by_class < 2


def test_a_class_that_is_absent_teaches_its_discriminator_nothing():
    judge = CategoryDiscriminators(channels=4, hidden=(3, 3), dropout=0.0, classes=19)
    truth = torch.full((2, 4, 4), IGNORE)
    truth[0, :2] = 7
    weight = losses.category_weights(shares(truth, (2, 2)).float())
    losses.category(judge(torch.randn(2, 4, 2, 2)), True, weight).backward()
    last = judge.D[6].weight.grad.view(19, 2, -1).abs().sum((1, 2))
    assert last.nonzero().flatten().tolist() == [7]


def test_image_without_labels_has_loss_and_gradient_zero():
    logits = torch.randn(1, 2, 19, 2, 2, requires_grad=True)
    weight = losses.category_weights(shares(torch.full((1, 4, 4), IGNORE), (2, 2)).float())
    loss = losses.category(logits, True, weight)
    loss.backward()
    assert loss == 0 and logits.grad.abs().max() == 0


@pytest.fixture(scope="module")
def params():
    return config.resolve(tiny(params_yaml()))


@pytest.fixture
def sets(tmp_path):
    names = ("one", "two", "target")
    made = {name: write_set(tmp_path / name, name, seed=k) for k, name in enumerate(names)}
    made["target"] = Pictures("target", [tmp_path / "target"])
    return made


@pytest.fixture
def build(params, sets):
    """Stage 3 of MADAN+ of a slim F on two sources; `cla=None` leaves CLA out."""

    def build(dropout=0.0, seed=0, accumulate=1, cla={}, **changed):
        training.begin(seed, 1)
        net = segmentation.build(params.networks.segmenter.model_copy(update={"dropout": dropout}))
        plain = {"crop": CROP, "batch": 4, "class_weights": None, "accumulate": accumulate}
        task = params.training.segmenter.model_copy(update=plain)
        task = segmentation.Supervised(net, [sets["one"], sets["two"]], task, 100, seed)
        plain = {"on": "features", "weight": 1, "lr_discriminator": 0.05}
        own = params.training.adaptation.model_copy(update=plain | changed)
        network = params.networks.feature_discriminator.model_copy(update={"dropout": dropout})
        chosen = None if cla is None else PLAIN.model_copy(update=cla)
        return Feat(task, sets["target"], own, network, chosen)

    return build


def still(method):
    """The method, whose optimisers leave gradients where they are and move nothing."""
    for optimizer in method.optimizers.values():
        optimizer.step = lambda: None
    return method


def test_a_step_moves_f_and_the_discriminators_of_the_classes_that_are_there(build):
    method = build()
    before = {name: weights(module) for name, module in method.modules.items()}
    run(method, 1)
    for name in ("F", "DF"):
        assert moved(method.modules[name], before[name]) == set(before[name])
    # Every class may be a pseudo-label of the target; the hidden layers hold all of them.
    last = method.modules["DC"].D[6].weight - before["DC"]["D.6.weight"]
    changed = last.view(19, 2, -1).abs().sum((1, 2)).nonzero().flatten().tolist()
    assert set(range(5)) <= set(changed) and len(changed) < 19


def test_neither_player_leaves_a_gradient_on_the_other(build):
    method = build()
    head, net = method.category, method.net
    x = torch.rand(2, 3, *CROP)
    scores, features = net.forward_features(x)
    head.align(features, scores).backward()
    assert all(p.grad is None for p in head.discriminators.parameters())
    assert any(p.grad is not None for p in net.parameters())
    net.zero_grad()
    scores, features = net.forward_features(x)
    truth = torch.zeros(2, *CROP, dtype=torch.long)
    head.discriminate(features, truth, features, scores)[0].backward()
    assert all(p.grad is None for p in net.parameters())
    assert any(p.grad is not None for p in head.discriminators.parameters())


@pytest.mark.parametrize("pseudo_labels", ["hard", "soft"])
def test_pseudo_labels_are_fs_own_and_pass_no_gradient(build, pseudo_labels):
    method = build(cla={"pseudo_labels": pseudo_labels})
    scores = torch.randn(2, 19, 8, 8, requires_grad=True)
    features = torch.randn(2, 8, 4, 4, requires_grad=True)
    loss = method.category.align(features, scores)
    loss.backward()
    assert scores.grad is None and features.grad.abs().max() > 0
    said = scores.detach().softmax(1)
    if pseudo_labels == "hard":
        said = category.one_hot(said.argmax(1)).float()
    weight = losses.category_weights(F.avg_pool2d(said, 2))
    expected = losses.category(method.category.discriminators(features), True, weight)
    torch.testing.assert_close(loss, expected)


def test_f_is_moved_towards_the_sources_side_of_every_class(build):
    """A small step down F's gradient of CLA alone makes the discriminators take T for source."""
    method = build()
    run(method, 3)
    net, head = method.net, method.category
    images = method.task.unlabelled(method.target, 3)

    def loss():
        scores, features = net.eval().forward_features(batches.imagenet(images))
        return head.align(features, scores)

    net.zero_grad()
    before = loss()
    before.backward()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter -= 1e-3 * parameter.grad
    assert loss() < before


def test_discriminators_learn_to_tell_the_sides_apart(build):
    method = build(weight=0, cla={"weight": 0})
    found = run(method, 30)
    early, late = ([line["d_cla"] for line in part] for part in (found[:5], found[-5:]))
    assert np.mean(late) < np.mean(early)


def test_gradient_of_f_is_that_of_the_weighted_sum(build, sets):
    method = still(build(weight=0.3, cla={"weight": 0.7, "cell": 2}))
    net, d_f = copy.deepcopy(method.net).train(), copy.deepcopy(method.discriminator)
    d_c = copy.deepcopy(method.category.discriminators)
    figures = run(method, 1)[0]
    x, truth = method.task.begin(0)
    x_target = method.task.unlabelled(sets["target"], 0)
    scores, features = net.forward_features(batches.imagenet(x))
    scores_target, features_target = net.forward_features(batches.imagenet(x_target))

    def judged(features, truth, side):
        pooled = F.avg_pool2d(features, 2, ceil_mode=True)
        found = shares(truth, tuple(features.shape[2:]), 2).float()
        return losses.category(d_c(pooled), side, losses.category_weights(found))

    pseudo = scores_target.argmax(1)
    task = F.cross_entropy(scores, truth, ignore_index=IGNORE)
    cla = judged(features_target, pseudo, True)
    (task + 0.3 * losses.domain(d_f(features_target), True) + 0.7 * cla).backward()
    d_c.zero_grad()
    d_cla = judged(features.detach(), truth, True)
    d_cla = (d_cla + judged(features_target.detach(), pseudo, False)) / 2
    d_cla.backward()
    assert figures["cla"] == pytest.approx(cla.item(), rel=1e-5)
    assert figures["d_cla"] == pytest.approx(d_cla.item(), rel=1e-5)
    for ours, reference in ((method.net, net), (method.category.discriminators, d_c)):
        for one, other in zip(ours.parameters(), reference.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-6)


def test_weight_zero_of_cla_is_training_without_it_bit_for_bit(build):
    """With L_feat off, too: the dropout of one discriminator follows on that of the other."""
    method = build(dropout=0.5, weight=0, cla={"weight": 0})
    without = build(dropout=0.5, weight=0, cla=None)
    run(method, 3)
    run(without, 3)
    assert not moved(method.net, weights(without.net))
    other = build(dropout=0.5, weight=0)
    run(other, 3)
    assert moved(other.net, weights(without.net))


@pytest.mark.parametrize("parts", [2, 3])
def test_a_batch_in_parts_has_the_gradients_and_figures_of_the_whole(build, parts):
    found = []
    for accumulate in (1, parts):
        method = still(build(accumulate=accumulate))
        figures = run(method, 1)[0]
        every = [p.grad.flatten() for m in method.modules.values() for p in m.parameters()]
        found.append((torch.cat(every), figures))
    (whole, figures), (summed, in_parts) = found
    assert (whole - summed).norm() < 2e-4 * whole.norm()
    assert in_parts == pytest.approx(figures, rel=1e-4)


def test_resumed_alignment_ends_with_the_same_bits(build):
    whole, half, resumed = (build(dropout=0.5) for _ in range(3))
    run(whole, 4)
    run(half, 2)
    for name, module in half.modules.items():
        resumed.modules[name].load_state_dict(copy.deepcopy(module.state_dict()))
    for name, optimizer in half.optimizers.items():
        resumed.optimizers[name].load_state_dict(copy.deepcopy(optimizer.state_dict()))
    run(resumed, 2, first=2)
    assert set(whole.modules) == {"F", "DF", "DC"} == set(whole.optimizers)
    for name, module in whole.modules.items():
        assert not moved(resumed.modules[name], weights(module))


def test_ignored_batches_leave_finite_steps(build, sets):
    for name in ("one", "two"):
        sets[name]._labels[0] = np.full_like(sets[name]._labels[0], IGNORE)
    method = build()
    assert all(np.isfinite(list(line.values())).all() for line in run(method, 2))
    assert all(value.isfinite().all() for value in method.net.state_dict().values())


def test_a_run_that_says_cla_has_it(params, sets):
    run_ = {"method": "feat", "target": "cityscapes", "train_on": ["gta5"]}
    for cla in (False, True):
        net = segmentation.build(params.networks.segmenter)
        run = schema.Adaptation(cla=cla, **run_)
        made = build_run(params, run, net, [sets["one"]], sets["target"], 10, 0)
        assert isinstance(made.category, CategoryAlignment) == cla
    assert made.category.settings == params.training.cla
    assert made.category.discriminators.D[0].in_channels == net.head
