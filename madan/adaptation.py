"""Feature-level adaptation: F learns features of the target that D_F takes for the sources'.

ADDA (Tzeng et al. 2017) as CyCADA applies it to segmentation: F starts from the segmenter trained
on adapted images, a frozen copy of which gives the source side.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from madan import batches, labels, losses, parallel, training
from madan.datasets import Pictures
from madan.discriminators import FeatureDiscriminator
from madan.drn26 import Net
from madan.schema import AdaptationTraining, FeatureDiscriminatorNetwork, Refusal
from madan.segmentation import shares


class Accuracy(nn.Module):
    """D_F's mean accuracy over the last iterations, as part of the saved state."""

    recent: Tensor
    opened: Tensor

    def __init__(self, window: int):
        super().__init__()
        self.register_buffer("recent", torch.zeros(window))
        self.register_buffer("opened", torch.zeros((), dtype=torch.int64))

    def add(self, step: int, value: float) -> float:
        """Take in the accuracy of step `step`, from 0; return the mean, unseen ones counting 0."""
        self.recent[step % len(self.recent)] = value
        return float(self.recent.mean())


class Adda:
    """L_feat: D_F tells F_S(x'_i) from F(x_T); F is to make it take target for source."""

    def __init__(
        self,
        net: Net,
        sets: Sequence[Pictures],
        target: Pictures,
        settings: AdaptationTraining,
        network: FeatureDiscriminatorNetwork,
        seed: int,
    ):
        self.sets, self.target, self.settings, self.seed = sets, target, settings, seed
        self.net = net
        self.fixed = copy.deepcopy(net).eval().requires_grad_(False)
        channels = len(labels.CLASSES) if settings.on == "scores" else net.head
        discriminator = FeatureDiscriminator(channels=channels, **network.model_dump())
        self.discriminator = discriminator.to(training.device())
        self.accuracy = Accuracy(settings.window)
        self.modules = {"F": net, "DF": self.discriminator, "accuracy": self.accuracy}
        # Foreach, not fused: F has parameters that see no gradient when features are aligned.
        self.optimizers = {
            "F": torch.optim.SGD(net.parameters(), settings.lr, settings.momentum, foreach=True),
            "DF": torch.optim.SGD(
                discriminator.parameters(),
                settings.lr_discriminator,
                settings.momentum,
                foreach=True,
            ),
        }

    def update(self, step: int) -> dict[str, float]:
        """One step of D_F and, while D_F is righter than the gate, one of F."""
        settings = self.settings
        x, x_target = self._draw(step)
        self.net.eval()
        with torch.no_grad():
            source = self._aligned(self.fixed, x)
        target = self._aligned(self.net, x_target)
        on_source, on_target = self.discriminator(source), self.discriminator(target.detach())
        d_loss = (losses.domain(on_source, True) + losses.domain(on_target, False)) / 2
        training.descend(self.optimizers["DF"], d_loss)
        right = (on_source.argmax(1) == 1).float().mean() + (
            on_target.argmax(1) == 0
        ).float().mean()
        # Of the whole batch, so that the gate opens for all processes or for none.
        accuracy = self.accuracy.add(step, parallel.mean(right).item() / 2)
        figures = {"d_feat": d_loss.item(), "accuracy": accuracy, "gate": settings.gate}
        if accuracy > settings.gate:
            loss = losses.domain(self.discriminator(target), True)
            training.descend(self.optimizers["F"], settings.weight * loss)
            self.accuracy.opened += 1
            figures["feat"] = loss.item()
        return figures

    def check(self) -> None:
        """Refusal, with advice, when the gate never opened and F is what it was."""
        if not int(self.accuracy.opened):
            raise Refusal(
                f"feature alignment never began: D_F's mean accuracy over {self.settings.window} "
                f"iterations never exceeded training.adaptation.gate = {self.settings.gate}; "
                "lower the gate, or raise steps or lr_discriminator."
            )

    def _aligned(self, net: Net, x: Tensor) -> Tensor:
        scores, features = net.forward_features(batches.imagenet(x))
        return scores if self.settings.on == "scores" else features

    def _draw(self, step: int) -> tuple[Tensor, Tensor]:
        settings = self.settings
        shared = zip(self.sets, shares(settings.batch, len(self.sets)), strict=True)
        how: Any = {"crop": settings.crop, "flip": settings.flip, "device": training.device()}
        x = [batches.draw(pictures, self.seed, step, n, **how).images for pictures, n in shared]
        x_target = batches.draw(self.target, self.seed, step, settings.batch, **how).images
        return torch.cat(x), x_target
