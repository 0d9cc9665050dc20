"""The losses of the paper as pure functions of tensors; weights are applied where sums are written.

x_i: image of source i; x'_i = G_i(x_i): its adaptation; D outputs are patch logits [B, 1, h, w],
scores of F are [B, 19, H, W]. Adversarial terms are least squares (LSGAN, Mao et al. 2017), as
in the released code, where the paper writes logarithms.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from madan import labels


def adversarial(output: Tensor, real: bool) -> Tensor:
    """L_GAN, least squares: mean (D(x) - 1)^2 for real, mean D(x)^2 for fake."""
    return (output - 1).square().mean() if real else output.square().mean()


def cycle(reconstructed: Tensor, image: Tensor) -> Tensor:
    """L_cyc: mean absolute difference of G_{T->i}(G_i(x_i)) and x_i, and the way round."""
    return (reconstructed - image).abs().mean()


def semantic_consistency(adapted: Tensor, source: Tensor) -> Tensor:
    """L_sem: KL(F_A(G_i(x_i)) || F_i(x_i)), mean over pixels; DSC, or SC when F_A is F_i."""
    log_adapted, log_source = adapted.log_softmax(1), source.log_softmax(1)
    return (log_adapted.exp() * (log_adapted - log_source)).sum(1).mean()


def task(
    scores: Tensor, truth: Tensor, weights: Tensor | None, total: Tensor | None = None,
    confidence: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """L_task: cross-entropy of F(x'_i) against y_i [B, H, W]; 0 where every pixel is ignored.

    `total` is what the sum over pixels is divided by, `task_total` of this batch if none is given.
    `confidence` [B, H, W] multiplies the loss of each pixel, and not that divisor.
    """
    how = "sum" if confidence is None and _adds_up_in_order(scores) else "none"
    loss = F.cross_entropy(scores, truth, weights, ignore_index=labels.IGNORE, reduction=how)
    if how == "none":
        loss = (loss if confidence is None else loss * confidence).sum()
    total = task_total(truth, weights) if total is None else total
    return loss / total.to(loss).clamp_min(torch.finfo(loss.dtype).tiny)


def task_total(truth: Tensor, weights: Tensor | None) -> Tensor:
    """Sum of the class weights of the labelled pixels of y_i; their number where all weigh 1."""
    counted = truth[truth != labels.IGNORE]
    return weights[counted].sum() if weights is not None else counted.new_tensor(len(counted))


def domain(logits: Tensor, is_source: bool, classes: Tensor | None = None) -> Tensor:
    """L_feat: cross-entropy of D_F's two logits [B, 2, ...] against source (1) or target (0).

    Class by class (CLA), logits are [B, 2, K, h, w] and `classes` [B, K, h, w] are F's
    probabilities, by which the K judgements of a position are weighed.
    """
    truth = logits.new_full((len(logits), *logits.shape[2:]), int(is_source)).long()
    if classes is None:
        if _adds_up_in_order(logits):
            return F.cross_entropy(logits, truth)
        return F.cross_entropy(logits, truth, reduction="none").mean()
    return (F.cross_entropy(logits, truth, reduction="none") * classes).sum(1).mean()


def category(logits: Tensor, is_source: bool, weights: Tensor) -> Tensor:
    """L_CLA: sum over classes and cells of weights [B, K, h, w] times the cross-entropy of the
    class's two logits [B, 2, K, h, w] against source (1) or target (0), mean over images.
    """
    truth = logits.new_full((len(logits), *logits.shape[2:]), int(is_source)).long()
    entropy = F.cross_entropy(logits, truth, reduction="none")
    return (entropy * weights).sum((1, 2, 3)).mean()


def category_weights(shares: Tensor) -> Tensor:
    """Shares [B, K, h, w] of a class in the cells, divided by their sum over the image's cells.

    A class that an image does not have weighs 0 there, and every other class 1.
    """
    total = shares.sum((2, 3), keepdim=True)
    return shares / total.where(total > 0, 1)


def soft_maximum(values: Tensor, gamma: float | None) -> Tensor:
    """MDAN's sum over sources: log sum exp(gamma l_i) / gamma of losses [M]; None: the maximum."""
    return values.max() if gamma is None else torch.logsumexp(gamma * values, 0) / gamma


def _adds_up_in_order(scores: Tensor) -> bool:
    """Whether torch's own sum over pixels has the same bits every time: on a GPU it has not.

    Gradients are the same either way; the value on a CPU is rounded otherwise.
    """
    return scores.device.type == "cpu"
