"""Self-training: F, the student, learns what its moving average, the teacher, says of the target.

The step is that of DACS (Tranheden et al. 2021) as DAFormer (Hoyer et al. 2022) has it: L_task on
the sources, and cross-entropy on images of the target into which half of the classes of a source
image are pasted (ClassMix, Olsson et al. 2021). Pseudo-labels weigh as much as the share of the
target's pixels of which the teacher is confident. Masked image consistency (MIC, Hoyer et al. 2023)
is a switch.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from madan import labels
from madan.config import method_settings as schema
from madan.data import batches
from madan.data.datasets import TrainingSet
from madan.engine import distributed, training
from madan.methods import losses
from madan.methods.segmentation import Supervised


class SelfTraining:
    """`task` trains the student on the labelled sets; the teacher labels images of the target."""

    def __init__(
        self, task: Supervised, target: TrainingSet, settings: schema.SelfTraining, masked: bool
    ):
        self.task, self.target, self.settings, self.masked = task, target, settings, masked
        self.net = task.net

        @torch.no_grad()
        def average(
            teacher: Sequence[Tensor], student: Sequence[Tensor], updates: Tensor | int
        ) -> None:
            share = 1 - decay(int(updates), settings.alpha)
            for mean, weight in zip(teacher, student, strict=True):
                mean.lerp_(weight, share)

        # Statistics of BatchNorm, which are no weights, are the student's.
        self.teacher = AveragedModel(task.net, multi_avg_fn=average).requires_grad_(False)
        self.modules = {"F": task.net, "teacher": self.teacher}
        self.optimizers = task.optimizers

    def update(self, step: int) -> dict[str, float]:
        """One step of the teacher towards the student, and one of the student on all its images."""
        task, settings = self.task, self.settings
        self.teacher.update_parameters(self.net)
        images, truth = task.begin(step)
        x_target = self._target(step)
        pseudo, share = self._pseudo_labels(x_target)
        pasted = class_masks(truth, task.seed, step, task.rows())
        mixed = self._augment(torch.where(pasted[:, None], images, x_target), step, "mixed")
        mixed_truth = torch.where(pasted, truth, pseudo)
        confidence = torch.where(pasted, torch.ones_like(share), share)

        task.optimizers["F"].zero_grad()
        figures = {"task": self._learn(images, truth, 1.0)}
        figures["mixed"] = self._learn(mixed, mixed_truth, settings.weight, confidence)
        if self.masked:
            hidden = self._hide(self._augment(x_target, step, "masked"), step)
            confidence = share.expand(pseudo.shape)
            figures["masked"] = self._learn(hidden, pseudo, settings.masking.weight, confidence)
        training.take_step(task.optimizers["F"])
        return figures | {"confident": share.item()}

    def _learn(
        self, images: Tensor, truth: Tensor, weight: float, confidence: Tensor | None = None
    ) -> float:
        """Add up the student's gradient of a weighted cross-entropy; return it without weight."""
        total, count = self.task.total(truth), self.task.settings.accumulate
        trust = torch.ones_like(truth) if confidence is None else confidence
        summed = 0.0
        for x, y, c in zip(*(t.chunk(count) for t in (images, truth, trust)), strict=True):
            scores, _ = self.task.view(x)
            given = None if confidence is None else c
            loss = losses.task(scores, y, self.task.weights, total, given)
            (weight * loss).backward()
            summed += loss.item()
        return summed

    @torch.no_grad()
    def _pseudo_labels(self, x_target: Tensor) -> tuple[Tensor, Tensor]:
        """The teacher's classes [B, H, W] of the target, and the share of confident pixels [].

        The share is that of the whole batch, of all processes.
        """
        settings = self.task.settings
        self.teacher.eval()
        labelled, confident = [], []
        for x in x_target.chunk(settings.accumulate):
            with training.autocast(settings.precision):
                scores = self.teacher(batches.imagenet(x))
            probability, classes = scores.float().softmax(1).max(1)
            labelled.append(classes)
            confident.append(probability >= self.settings.threshold)
        return torch.cat(labelled), distributed.mean(torch.cat(confident).float().mean())

    def _target(self, step: int) -> Tensor:
        """Images of the target as they are, in the rows of the sources' images of this process."""
        task, settings = self.task, self.task.settings
        return batches.draw(
            self.target, task.seed, step, settings.batch, settings.crop, settings.flip,
            device=training.device(), rows=task.rows(),
        ).images  # fmt: skip

    def _augment(self, images: Tensor, step: int, name: str) -> Tensor:
        """The images with other colours, some of them blurred."""
        task, settings, rows = self.task, self.settings, self.task.rows()
        batch = task.settings.batch
        changed = batches.jitter(
            images, settings.jitter, task.seed, step, rows, batch, f"jitter {name}"
        )
        randoms = batches.stream(task.seed, f"blur {name}", step).random((batch, 2))[rows]
        return blurred(changed, randoms, settings.blur, settings.sigma)

    def _hide(self, images: Tensor, step: int) -> Tensor:
        """The images with some patches in ImageNet's mean colour, which F sees as zeros."""
        masking, size = self.settings.masking, (images.shape[2], images.shape[3])
        hidden = [
            patches(size, masking.ratio, masking.block, self.task.seed, step, row)
            for row in self.task.rows()
        ]
        where = batches.on(images.device, np.stack(hidden))[:, None]
        mean = images.new_tensor(batches.IMAGENET_MEAN).view(1, 3, 1, 1)
        return torch.where(where, 2 * mean - 1, images)


def decay(updates: int, alpha: float) -> float:
    """EMA decay of an update after so many: alpha, and less at first, when the mean is of few."""
    return min(1 - 1 / (updates + 1), alpha)


def class_masks(truth: Tensor, seed: int, step: int, rows: Sequence[int]) -> Tensor:
    """Where a source image is pasted [B, H, W]: half of its classes, rounded up; none ignored.

    Which classes is a function of (seed, step, row of the image in the batch).
    """
    masks = []
    for labelled, row in zip(truth, rows, strict=True):
        present = labelled.unique()
        classes = present[present != labels.IGNORE]
        rng = batches.stream(seed, f"classmix {row}", step)
        chosen = rng.permutation(len(classes))[: (len(classes) + 1) // 2]
        masks.append(torch.isin(labelled, classes[torch.from_numpy(chosen).to(classes.device)]))
    return torch.stack(masks)


def blurred(
    images: Tensor, randoms: np.ndarray, share: float, sigma: tuple[float, float]
) -> Tensor:
    """Images [B, 3, H, W], blurred where randoms[:, 0] < share, by randoms[:, 1] of sigma's range.

    The kernel reaches three sigma to each side, or as far as the image allows.
    """
    from torchvision.transforms.functional import gaussian_blur  # Other methods need not wait.

    made = []
    for image, (whether, how) in zip(images, randoms, strict=True):
        if whether >= share:
            made.append(image)
            continue
        wide = sigma[0] + float(how) * (sigma[1] - sigma[0])
        reach = min(math.ceil(3 * wide), min(image.shape[1:]) - 1)
        made.append(gaussian_blur(image, [2 * reach + 1] * 2, [wide, wide]))
    return torch.stack(made)


def patches(
    size: tuple[int, int], ratio: float, block: int, seed: int, step: int, row: int
) -> np.ndarray:
    """Which pixels [H, W] are hidden: square patches, each with probability `ratio`.

    A function of (seed, step, row of the image in the batch).
    """
    rng = batches.stream(seed, f"patches {row}", step)
    hidden = rng.random([-(-side // block) for side in size]) < ratio
    return hidden.repeat(block, 0).repeat(block, 1)[: size[0], : size[1]]
