"""Supervised training of the segmenter F: on sources, on adapted sources, or as the oracle."""

from collections.abc import Sequence

import torch
from torch import Tensor

from madan import batches, labels, losses, training
from madan.config import SegmenterNetwork, SegmenterTraining
from madan.datasets import Pictures
from madan.fcn8s import FCN8s


class Supervised:
    """Minimises L_task of F over the sets, each giving an equal share of every batch."""

    def __init__(
        self,
        net: FCN8s,
        sets: Sequence[Pictures],
        settings: SegmenterTraining,
        steps: int,
        seed: int,
    ):
        self.net, self.sets, self.settings, self.steps, self.seed = net, sets, settings, steps, seed
        self.modules = {"F": net}
        self.weights = class_weights(sets, settings)
        rate, decay = settings.lr, settings.weight_decay
        optimizer = torch.optim.AdamW(net.parameters(), rate, weight_decay=decay, fused=True)
        self.optimizers = {"F": optimizer}

    def update(self, step: int) -> dict[str, float]:
        """One step of F on a fresh batch."""
        settings, optimizer = self.settings, self.optimizers["F"]
        if settings.schedule == "one-cycle":
            training.set_rate(optimizer, settings.lr * training.one_cycle(step, self.steps))
        images, truth = self._draw(step)
        self.net.train()
        with training.autocast(settings.precision):
            scores = self.net(batches.imagenet(images))
        loss = losses.task(scores.float(), truth, self.weights)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return {"task": loss.item()}

    def _draw(self, step: int) -> tuple[Tensor, Tensor]:
        settings = self.settings
        drawn = [
            batches.draw(
                pictures, self.seed, step, share, settings.crop, settings.flip, labelled=True
            )
            for pictures, share in zip(
                self.sets, shares(settings.batch, len(self.sets)), strict=True
            )
        ]
        images = torch.cat([batch.images for batch in drawn]).to(training.device())
        truth = torch.cat([batch.truth() for batch in drawn]).to(training.device())
        return batches.jitter(images, settings.jitter, self.seed, step), truth


def build(network: SegmenterNetwork) -> FCN8s:
    """F with fresh weights, on the device of this process."""
    net = FCN8s(classes=len(labels.CLASSES), **network.model_dump())
    return net.to(training.device())


def shares(batch: int, sets: int) -> list[int]:
    """Images a batch takes from each set: as equal as can be, the first ones rather one more."""
    return [batch // sets + (k < batch % sets) for k in range(sets)]


def class_weights(sets: Sequence[Pictures], settings: SegmenterTraining) -> Tensor | None:
    """Weights [19] of the classes in L_task, from the sets' labels; None where all weigh 1."""
    if settings.class_weights is None:
        return None
    power, cap = settings.class_weights.power, settings.class_weights.cap
    pixels = [pictures.pixels() for pictures in sets]
    return batches.class_weights(pixels, power, cap).to(training.device())
