"""Supervised training of the segmenter F: on sources, on adapted sources, or as the oracle."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from madan import labels
from madan.config.network_settings import (
    AnySegmenterNetwork,
    DeeplabV2Network,
    Drn26Network,
    TorchvisionNetwork,
)
from madan.config.training_settings import SegmenterTraining
from madan.data import batches
from madan.data.datasets import TrainingSet
from madan.engine import distributed, training
from madan.methods import losses
from madan.models import backbones, checkpoints
from madan.models.drn26 import DRN26, Net
from madan.models.fcn8s import FCN8s


class Supervised:
    """Minimises L_task of F over the sets, each giving an equal share of every batch."""

    def __init__(
        self,
        net: Net,
        sets: Sequence[TrainingSet],
        settings: SegmenterTraining,
        steps: int,
        seed: int,
    ):
        self.net, self.sets, self.settings, self.steps, self.seed = net, sets, settings, steps, seed
        self.modules = {"F": net}
        self.weights = class_weights(sets, settings)
        self.optimizers = {"F": optimizer(net, settings)}

    def update(self, step: int) -> dict[str, float]:
        """One step of F on a fresh batch, whose parts add up to the gradient of the whole."""
        optimizer, parts = self.optimizers["F"], self.settings.accumulate
        images, truth = self.begin(step)
        total = self.total(truth)
        figure = 0.0
        optimizer.zero_grad()
        for x, y in zip(images.chunk(parts), truth.chunk(parts), strict=True):
            with training.autocast(self.settings.precision):
                scores = self.net(batches.imagenet(x))
            loss = losses.task(scores.float(), y, self.weights, total)
            loss.backward()
            figure += loss.item()
        training.take_step(optimizer)
        return {"task": figure}

    def begin(self, step: int) -> tuple[Tensor, Tensor]:
        """Set F's rate and mode for a step; return its images [B, 3, h, w] and labels."""
        settings, factor = self.settings, None
        if settings.schedule == "one-cycle":
            factor = training.one_cycle(step, self.steps)
        elif settings.schedule == "poly":
            factor = training.poly(step, self.steps, settings.power)
        if factor is not None:
            training.set_rate(self.optimizers["F"], settings.lr * factor)
        self.net.train()
        return self._draw(step)

    def total(self, truth: Tensor) -> Tensor:
        """What L_task of a whole batch is divided by, of all processes that share it."""
        return distributed.mean(losses.task_total(truth, self.weights))

    def counts(self) -> list[int]:
        """Images of each set in a batch of this process."""
        return [len(distributed.share(n)) for n in shares(self.settings.batch, len(self.sets))]

    def rows(self) -> list[int]:
        """Rows of this process in the batch that all of them share, in the order of its images."""
        parts = shares(self.settings.batch, len(self.sets))
        return [
            sum(parts[:k]) + row for k, part in enumerate(parts) for row in distributed.share(part)
        ]

    def view(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """F's scores and features of images in [-1, 1], computed in its precision, as fp32."""
        with training.autocast(self.settings.precision):
            scores, features = self.net.forward_features(batches.imagenet(images))
        return scores.float(), features.float()

    def unlabelled(self, pictures: TrainingSet, step: int) -> Tensor:
        """A set's images [B, 3, h, w] for a step: as many as F learns from, and treated alike."""
        settings = self.settings
        drawn = batches.draw(
            pictures, self.seed, step, settings.batch, settings.crop, settings.flip,
            device=training.device(),
        )  # fmt: skip
        rows = distributed.share(settings.batch)
        return batches.jitter(drawn.images, settings.jitter, self.seed, step, rows, settings.batch)

    def _draw(self, step: int) -> tuple[Tensor, Tensor]:
        settings = self.settings
        parts = shares(settings.batch, len(self.sets))
        drawn = [
            batches.draw(
                pictures, self.seed, step, part, settings.crop, settings.flip,
                labelled=True, device=training.device(),
            )
            for pictures, part in zip(self.sets, parts, strict=True)
        ]  # fmt: skip
        images = torch.cat([batch.images for batch in drawn])
        truth = torch.cat([batch.truth() for batch in drawn])
        rows = self.rows()
        return batches.jitter(images, settings.jitter, self.seed, step, rows, sum(parts)), truth


def build(network: AnySegmenterNetwork) -> Net:
    """F with fresh weights, on the device of this process."""
    net = _fresh(network).to(training.device())
    # Tensor cores want channels last; on a CPU the backward pass is slower so.
    on_gpu = training.device().type == "cuda"
    return net.to(memory_format=torch.channels_last) if on_gpu else net


def _fresh(network: AnySegmenterNetwork) -> Net:
    classes, sizes = len(labels.CLASSES), network.model_dump(exclude={"pretrained"})
    if isinstance(network, DeeplabV2Network):
        return backbones.deeplab_v2(classes=classes, **sizes)
    if isinstance(network, TorchvisionNetwork):
        return backbones.of_torchvision(classes=classes, **sizes)
    return (DRN26 if isinstance(network, Drn26Network) else FCN8s)(classes=classes, **sizes)


def pretrain(net: Net, weights: Path) -> None:
    """Fill F with weights trained on ImageNet, from a file that `madan import` wrote.

    Score layers are F's own, and so is a head that the file has not. Refusal where they do not fit.
    """
    if isinstance(net, backbones.Segmenter):
        checkpoints.load(weights, "backbone", net.backbone)
    else:
        checkpoints.load(weights, "VGG", net, but=("vgg_head", "score"))


def optimizer(net: Net, settings: SegmenterTraining) -> torch.optim.Optimizer:
    """The optimiser of F, with a rate of its own for the classifier where settings say so."""
    groups: Any = net.parameters()
    if settings.head_lr != 1:
        named = list(net.named_parameters())
        head = [p for name, p in named if name.startswith("classifier.")]
        others = [p for name, p in named if not name.startswith("classifier.")]
        factor = settings.head_lr
        groups = [
            {"params": others, "factor": 1.0},
            {"params": head, "factor": factor, "lr": factor * settings.lr},
        ]
    decay = settings.weight_decay
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, settings.lr, settings.momentum, 0, decay, foreach=True)
    return torch.optim.AdamW(groups, settings.lr, weight_decay=decay, fused=True)


def shares(batch: int, sets: int) -> list[int]:
    """Images a batch takes from each set: as equal as can be, the first ones rather one more."""
    return [batch // sets + (k < batch % sets) for k in range(sets)]


def class_weights(sets: Sequence[TrainingSet], settings: SegmenterTraining) -> Tensor | None:
    """Weights [19] of the classes in L_task, from the sets' labels; None where all weigh 1."""
    if settings.class_weights is None:
        return None
    power, cap = settings.class_weights.power, settings.class_weights.cap
    pixels = [pictures.pixels() for pictures in sets]
    return batches.class_weights(pixels, power, cap).to(training.device())
