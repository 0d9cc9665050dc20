"""Category-level alignment (CLA) of MADAN+: one discriminator for each class on F's features.

A cell of the feature map weighs, in the judgement of a class, by its share of that class's pixels,
divided by the sum of these shares over the cells: a rare class pulls as strongly as a frequent one.
Labels are the truth on the sources, and F's own pseudo-labels on the target.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from madan import labels
from madan.config.method_settings import Cla
from madan.config.network_settings import FeatureDiscriminatorNetwork
from madan.config.training_settings import AdaptationTraining
from madan.engine import training
from madan.methods import losses
from madan.models.discriminators import CategoryDiscriminators


class CategoryAlignment:
    """The discriminators D_l of all classes, their optimiser, and both players' losses."""

    def __init__(
        self,
        channels: int,
        settings: Cla,
        training_settings: AdaptationTraining,
        network: FeatureDiscriminatorNetwork,
    ):
        self.settings = settings
        made = CategoryDiscriminators(
            channels=channels, classes=len(labels.CLASSES), **network.model_dump()
        )
        self.discriminators = made.to(training.device())
        rate, momentum = training_settings.lr_discriminator, training_settings.momentum
        self.optimizer = torch.optim.SGD(made.parameters(), rate, momentum, foreach=True)

    def align(self, features: Tensor, scores: Tensor) -> Tensor:
        """L_CLA of F: its features [B, C, h, w] of the target are to look like the sources'.

        The discriminators stay as they are and collect no gradient.
        """
        self.discriminators.requires_grad_(False)
        logits = self.discriminators(cells(features, self.settings.cell))
        self.discriminators.requires_grad_(True)
        return losses.category(logits, True, self._target_weights(features, scores))

    def discriminate(
        self, source: Tensor, truth: Tensor, target: Tensor, scores: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The discriminators' loss, half of it on each side, and their accuracy, mean over images.

        `source` and `target` are features [B, C, h, w], `truth` the sources' train ids [B, H, W],
        `scores` F's of the target [B, 19, H, W]. No gradient reaches F.
        """
        sides, right = [], []
        for features, is_source, weights in (
            (source, True, self._weights(source, one_hot(truth))),
            (target, False, self._target_weights(target, scores)),
        ):
            logits = self.discriminators(cells(features.detach(), self.settings.cell))
            sides.append(losses.category(logits, is_source, weights))
            correct = (logits.argmax(1) == int(is_source)) * weights
            present = weights.sum((1, 2, 3)).clamp_min(1)
            right.append((correct.sum((1, 2, 3)) / present).mean())
        return (sides[0] + sides[1]) / 2, (right[0] + right[1]) / 2

    def _target_weights(self, features: Tensor, scores: Tensor) -> Tensor:
        scores = scores.detach()
        hard = self.settings.pseudo_labels == "hard"
        classes = one_hot(scores.max(1).indices) if hard else scores.softmax(1)
        return self._weights(features, classes)

    def _weights(self, features: Tensor, classes: Tensor) -> Tensor:
        positions = features.shape[2], features.shape[3]
        shares = cell_shares(classes.to(features), positions, self.settings.cell)
        return losses.category_weights(shares)


def cells(features: Tensor, size: int) -> Tensor:
    """Means of features [B, C, h, w] over cells of `size` x `size` positions; the last may lack."""
    return features if size == 1 else F.avg_pool2d(features, size, ceil_mode=True)


def cell_shares(classes: Tensor, positions: tuple[int, int], size: int) -> Tensor:
    """Share of the pixels of every cell that is of each class, [B, K, rows, columns].

    `classes` [B, K, H, W] are one-hot labels or probabilities. The feature map of `positions`
    (h, w) is taken to lie evenly over the picture, so that every pixel belongs to one cell.
    """
    rows, columns = (
        _membership(pixels, count, size, classes)
        for pixels, count in zip(classes.shape[2:], positions, strict=True)
    )
    return rows @ classes @ columns.T


def one_hot(truth: Tensor) -> Tensor:
    """Train ids [B, H, W] as booleans [B, 19, H, W]; an ignored pixel is of no class."""
    classes = torch.arange(len(labels.CLASSES), device=truth.device)
    return truth[:, None] == classes[:, None, None]


def _membership(pixels: int, positions: int, size: int, like: Tensor) -> Tensor:
    """Matrix [cells, pixels] that averages over the pixels of each cell."""
    place = torch.arange(pixels, device=like.device) * positions // pixels // size
    cell = torch.arange(-(-positions // size), device=like.device)
    belongs = (place == cell[:, None]).to(like)
    return belongs / belongs.sum(1, keepdim=True).clamp_min(1)
