"""Feature-level adaptation: F learns features of the target that D_F takes for the sources'.

After L_task: ADDA (Tzeng et al. 2017) as CyCADA applies it to segmentation, where F starts from
the segmenter trained on adapted images, a frozen copy of which gives the source side. Along with
L_task: stage 3 of the paper, where D_F sees one F on both sides, and that of MADAN+, where a
discriminator for each class sees it, too (category.py). MDAN is in mdan.py,
self-training in self_training.py.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from madan import labels
from madan.config.method_settings import Cla
from madan.config.network_settings import FeatureDiscriminatorNetwork
from madan.config.overrides import changed
from madan.config.schema import Adaptation, Params, started
from madan.config.training_settings import AdaptationTraining
from madan.data import batches
from madan.data.datasets import TrainingSet
from madan.engine import distributed, training
from madan.errors import Refusal
from madan.methods import losses
from madan.methods.category import CategoryAlignment
from madan.methods.mdan import Mdan
from madan.methods.segmentation import Supervised, shares
from madan.methods.self_training import SelfTraining
from madan.models.discriminators import FeatureDiscriminator
from madan.models.drn26 import Net


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


class View(NamedTuple):
    """What D_F is shown of F and, where it judges by class, F's probabilities there."""

    seen: Tensor
    classes: Tensor | None

    def detach(self) -> "View":
        """The same without a way back to F."""
        return View(self.seen.detach(), self.classes)


class Adda:
    """L_feat: D_F tells F_S(x'_i) from F(x_T); F is to make it take target for source."""

    def __init__(
        self,
        net: Net,
        sets: Sequence[TrainingSet],
        target: TrainingSet,
        settings: AdaptationTraining,
        network: FeatureDiscriminatorNetwork,
        seed: int,
    ):
        self.sets, self.target, self.settings, self.seed = sets, target, settings, seed
        self.net = net
        self.fixed = copy.deepcopy(net).eval().requires_grad_(False)
        self.discriminator = discriminator(net, settings, network)
        self.accuracy = Accuracy(settings.window)
        self.modules = {"F": net, "DF": self.discriminator, "accuracy": self.accuracy}
        # Foreach, not fused: F has parameters that see no gradient when features are aligned.
        self.optimizers = {
            "F": torch.optim.SGD(net.parameters(), settings.lr, settings.momentum, foreach=True),
            "DF": descent(self.discriminator, settings),
        }

    def update(self, step: int) -> dict[str, float]:
        """One step of D_F and, while D_F is righter than the gate, one of F."""
        settings = self.settings
        x, x_target = self._draw(step)
        self.net.eval()
        with torch.no_grad():
            source = self._view(self.fixed, x)
        target = self._view(self.net, x_target)
        d_loss, right = tell(self.discriminator, source, target.detach())
        training.descend(self.optimizers["DF"], d_loss)
        # Of the whole batch, so that the gate opens for all processes or for none.
        accuracy = self.accuracy.add(step, distributed.mean(right).item())
        figures = {"d_feat": d_loss.item(), "accuracy": accuracy, "gate": settings.gate}
        if accuracy > settings.gate:
            loss = losses.domain(self.discriminator(target.seen), True, target.classes)
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

    def _view(self, net: Net, x: Tensor) -> View:
        return view(*net.forward_features(batches.imagenet(x)), self.settings)

    def _draw(self, step: int) -> tuple[Tensor, Tensor]:
        settings = self.settings
        shared = zip(self.sets, shares(settings.batch, len(self.sets)), strict=True)
        how: Any = {"crop": settings.crop, "flip": settings.flip, "device": training.device()}
        x = [batches.draw(pictures, self.seed, step, n, **how).images for pictures, n in shared]
        x_target = batches.draw(self.target, self.seed, step, settings.batch, **how).images
        return torch.cat(x), x_target


class Feat:
    """L_task and L_feat together: F learns from labels while D_F tells F(x'_i) from F(x_T).

    With settings for CLA, F also plays against one discriminator for each class (MADAN+).
    """

    def __init__(
        self,
        task: Supervised,
        target: TrainingSet,
        settings: AdaptationTraining,
        network: FeatureDiscriminatorNetwork,
        cla: Cla | None = None,
    ):
        self.task, self.target, self.settings, self.net = task, target, settings, task.net
        self.discriminator = discriminator(task.net, settings, network)
        self.modules: dict[str, nn.Module] = {"F": task.net, "DF": self.discriminator}
        self.optimizers = {**task.optimizers, "DF": descent(self.discriminator, settings)}
        self.category = None
        if cla is not None:
            self.category = CategoryAlignment(task.net.head, cla, settings, network)
            self.modules["DC"] = self.category.discriminators
            self.optimizers["DC"] = self.category.optimizer

    def update(self, step: int) -> dict[str, float]:
        """One step of F against D_F as it stands, and one of D_F on what F then showed."""
        images, truth = self.task.begin(step)
        x_target = self.task.unlabelled(self.target, step)
        total, count = self.task.total(truth), self.task.settings.accumulate
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        parts = zip(images.chunk(count), truth.chunk(count), x_target.chunk(count), strict=True)
        figures = [self._gradients(x, y, t, total, len(x) / len(images)) for x, y, t in parts]
        for optimizer in self.optimizers.values():
            training.take_step(optimizer)
        return {name: sum(part[name] for part in figures) for name in figures[0]}

    def _gradients(
        self, images: Tensor, truth: Tensor, x_target: Tensor, total: Tensor, share: float
    ) -> dict[str, float]:
        """Add up what a part, this share of a batch, says to F and to D_F; return its figures."""
        weights = self.task.weights
        scores, features = self.task.view(images)
        source = view(scores, features, self.settings)
        scores_target, features_target = self.task.view(x_target)
        target = view(scores_target, features_target, self.settings)
        task = losses.task(scores, truth, weights, total)
        self.discriminator.requires_grad_(False)
        feat = share * losses.domain(self.discriminator(target.seen), True, target.classes)
        loss, figures = task + self.settings.weight * feat, {"task": task, "feat": feat}
        if self.category:
            figures["cla"] = share * self.category.align(features_target, scores_target)
            loss = loss + self.category.settings.weight * figures["cla"]
        loss.backward()
        self.discriminator.requires_grad_(True)
        d_loss, right = tell(self.discriminator, source.detach(), target.detach())
        (share * d_loss).backward()
        figures |= {"d_feat": share * d_loss, "accuracy": share * right}
        if self.category:
            sides = features, truth, features_target, scores_target
            d_loss, right = self.category.discriminate(*sides)
            (share * d_loss).backward()
            figures |= {"d_cla": share * d_loss, "cla_accuracy": share * right}
        return {name: value.item() for name, value in figures.items()}


def build(
    params: Params, run: Adaptation, net: Net, sets: Sequence[TrainingSet], target: TrainingSet,
    steps: int, seed: int,
) -> Adda | Feat | Mdan | SelfTraining:  # fmt: skip
    """The method of a run; the sets carry labels except for adda, which needs none."""
    networks, settings = changed(params.networks, run.networks), params.alignment(run)
    if run.method == "adda":
        return Adda(net, sets, target, settings, networks.feature_discriminator, seed)
    kind = next(map(params.architecture, started(run)), "fcn8s")
    task = Supervised(net, sets, params.learning(kind, run), steps, seed)
    if run.method == "feat":
        cla = params.cla(run) if run.cla else None
        return Feat(task, target, settings, networks.feature_discriminator, cla)
    if run.method == "self-training":
        return SelfTraining(task, target, params.self_training(run), run.masked)
    return Mdan(task, target, params.mdan(run), networks.source_discriminators)


def discriminator(
    net: Net, settings: AdaptationTraining, network: FeatureDiscriminatorNetwork
) -> FeatureDiscriminator:
    """D_F with fresh weights for what it is shown of F, on the device of this process."""
    count = len(labels.CLASSES)
    made = FeatureDiscriminator(
        channels=count if settings.on == "scores" else net.head,
        classes=count if settings.classwise else 1,
        **network.model_dump(),
    )
    return made.to(training.device())


def descent(discriminator: FeatureDiscriminator, settings: AdaptationTraining) -> torch.optim.SGD:
    """The optimiser of D_F."""
    rate, momentum = settings.lr_discriminator, settings.momentum
    return torch.optim.SGD(discriminator.parameters(), rate, momentum, foreach=True)


def view(scores: Tensor, features: Tensor, settings: AdaptationTraining) -> View:
    """What D_F is shown of F's scores [B, 19, H, W] and features [B, C, h, w]."""
    seen = scores if settings.on == "scores" else features
    if not settings.classwise:
        return View(seen, None)
    # A position of the features stands for the pixels that an even grid of as many gives it.
    height, width = seen.shape[2:]
    classes = F.adaptive_avg_pool2d(scores.detach().softmax(1), (height, width))
    return View(seen, classes)


def tell(discriminator: FeatureDiscriminator, source: View, target: View) -> tuple[Tensor, Tensor]:
    """D_F's loss, half of it on each side, and the share of its judgements that are right."""
    sides = [
        (discriminator(source.seen), source, True),
        (discriminator(target.seen), target, False),
    ]
    found = [losses.domain(logits, side, shown.classes) for logits, shown, side in sides]
    right = [_right(logits, side, shown.classes) for logits, shown, side in sides]
    return (found[0] + found[1]) / 2, (right[0] + right[1]) / 2


def _right(logits: Tensor, is_source: bool, classes: Tensor | None) -> Tensor:
    right = (logits.argmax(1) == int(is_source)).float()
    return right.mean() if classes is None else (right * classes).sum(1).mean()
