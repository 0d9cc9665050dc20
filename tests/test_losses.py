"""Each loss against hand numbers and torch's own functions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from madan.labels import IGNORE
from madan.methods import losses

CLASSES = 19


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


@pytest.fixture
def scores(rng):
    return torch.randn(2, CLASSES, 4, 5, generator=rng)


@pytest.fixture
def truth(rng):
    drawn = torch.randint(CLASSES, (2, 4, 5), generator=rng)
    drawn[0, :2] = IGNORE
    return drawn


def test_adversarial_by_hand():
    output = torch.tensor([0.0, 3.0])
    assert losses.adversarial(output, real=True).item() == (1 + 4) / 2
    assert losses.adversarial(output, real=False).item() == (0 + 9) / 2


@pytest.mark.parametrize("real", [True, False])
def test_adversarial_is_least_squares_over_all_patches(real, rng):
    output = torch.randn(3, 1, 4, 5, generator=rng)
    judge = nn.MSELoss()(output, torch.full_like(output, float(real)))
    torch.testing.assert_close(losses.adversarial(output, real), judge)


def test_cycle_is_the_mean_absolute_difference(rng):
    one, other = (torch.randn(2, 3, 4, 5, generator=rng) for _ in range(2))
    torch.testing.assert_close(losses.cycle(one, other), nn.L1Loss()(one, other))
    assert losses.cycle(one, one) == 0


def test_semantic_consistency_is_torchs_divergence_summed_over_classes(scores, rng):
    source = torch.randn(scores.shape, generator=rng)
    # KLDivLoss takes log q first and gives KL(p || q): p is F_A's view of the adapted image.
    judge = nn.KLDivLoss(reduction="none", log_target=True)
    expected = judge(source.log_softmax(1), scores.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(losses.semantic_consistency(scores, source), expected)


def test_semantic_consistency_by_hand_and_its_direction():
    adapted = torch.tensor([0.5, 0.5]).log().view(1, 2, 1, 1)
    source = torch.tensor([0.9, 0.1]).log().view(1, 2, 1, 1)
    forth = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)
    back = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    assert losses.semantic_consistency(adapted, source).item() == pytest.approx(forth)
    assert losses.semantic_consistency(source, adapted).item() == pytest.approx(back)


def test_semantic_consistency_of_equal_views_is_zero(scores):
    assert losses.semantic_consistency(scores, scores + 7).item() == pytest.approx(0, abs=1e-6)


def test_semantic_consistency_survives_a_certain_segmenter():
    certain = torch.zeros(1, CLASSES, 1, 1)
    certain[0, 3] = 500
    other = certain.flip(1).requires_grad_()
    loss = losses.semantic_consistency(other, certain)
    loss.backward()
    assert loss.item() == pytest.approx(500)
    assert other.grad.isfinite().all()


def test_semantic_consistency_moves_the_adapted_view_and_not_a_detached_source(scores):
    adapted, source = scores.requires_grad_(), scores.detach().roll(1, 1).requires_grad_()
    losses.semantic_consistency(adapted, source.detach()).backward()
    assert adapted.grad.abs().sum() > 0
    assert source.grad is None


@pytest.mark.parametrize("weighted", [False, True])
def test_task_and_its_gradient_are_torchs_cross_entropy(scores, truth, weighted, rng):
    weights = torch.rand(CLASSES, generator=rng) * 5 if weighted else None
    ours, theirs = (scores.clone().requires_grad_() for _ in range(2))
    loss = losses.task(ours, truth, weights)
    judge = F.cross_entropy(theirs, truth, weights, ignore_index=IGNORE)
    torch.testing.assert_close(loss, judge)
    loss.backward()
    judge.backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_task_by_hand():
    scores = torch.zeros(1, 2, 1, 3)
    scores[0, 0, 0] = torch.tensor([math.log(3), math.log(3), 99])
    truth = torch.tensor([[[0, 1, IGNORE]]])
    by_hand = -(math.log(3 / 4) + math.log(1 / 4)) / 2
    assert losses.task(scores, truth, None).item() == pytest.approx(by_hand)
    by_hand = -(1 * math.log(3 / 4) + 4 * math.log(1 / 4)) / 5
    assert losses.task(scores, truth, torch.tensor([1.0, 4.0])).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("weighted", [False, True])
def test_batch_of_ignored_pixels_has_loss_and_gradient_zero(scores, weighted):
    weights = torch.full((CLASSES,), 2.0) if weighted else None
    scores.requires_grad_()
    loss = losses.task(scores, torch.full((2, 4, 5), IGNORE), weights)
    loss.backward()
    assert loss.item() == 0
    assert (scores.grad == 0).all()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("wrong", [CLASSES, 254, -1])
def test_label_that_is_no_class_is_an_error(scores, truth, wrong, weighted):
    truth[1, 2, 3] = wrong
    with pytest.raises((IndexError, RuntimeError)):
        losses.task(scores, truth, torch.ones(CLASSES) if weighted else None)


def test_domain_of_an_undecided_discriminator_is_log_two():
    logits = torch.zeros(2, 2, 3, 4)
    for is_source in (True, False):
        assert losses.domain(logits, is_source).item() == pytest.approx(math.log(2))


def test_second_logit_of_domain_speaks_for_the_source():
    logits = torch.tensor([0.0, 2.0]).view(1, 2, 1, 1)
    assert losses.domain(logits, True).item() == pytest.approx(math.log(1 + math.exp(-2)))
    assert losses.domain(logits, False).item() == pytest.approx(math.log(1 + math.exp(2)))


@pytest.mark.parametrize("is_source", [True, False])
def test_domain_is_the_mean_over_places_of_a_binary_cross_entropy(is_source, rng):
    logits = torch.randn(3, 2, 4, 5, generator=rng)
    difference = logits[:, 1] - logits[:, 0]
    judge = nn.BCEWithLogitsLoss()(difference, torch.full_like(difference, float(is_source)))
    torch.testing.assert_close(losses.domain(logits, is_source), judge)
