"""MDAN (Zhao et al. 2018): F learns from several sources against one discriminator for each.

The loss of a source is its L_task plus that of the discriminator that tells it from the target;
F minimises a soft maximum over sources, with the discriminators behind a gradient reversal.
"""

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from madan.config.network_settings import SourceDiscriminatorsNetwork
from madan.config.training_settings import MdanTraining
from madan.data.datasets import TrainingSet
from madan.engine import distributed, training
from madan.methods import losses
from madan.methods.segmentation import Supervised
from madan.models.discriminators import SourceDiscriminators, reverse


class Mdan:
    """Every set of `task` is a source with a discriminator; all learn in one step, at F's rate."""

    def __init__(
        self,
        task: Supervised,
        target: TrainingSet,
        settings: MdanTraining,
        network: SourceDiscriminatorsNetwork,
    ):
        self.task, self.target, self.settings, self.net = task, target, settings, task.net
        head = SourceDiscriminators(
            channels=task.net.head, sources=len(task.sets), **network.model_dump()
        )
        self.head = head.to(training.device())
        self.modules = {"F": self.net, "head": self.head}
        self.optimizers = task.optimizers
        task.optimizers["F"].add_param_group({"params": list(self.head.parameters())})

    def update(self, step: int) -> dict[str, float]:
        """One step of F and of the discriminators on a batch of every source and the target."""
        settings, optimizer = self.settings, self.optimizers["F"]
        images, truth = self.task.begin(step)
        scores, on_sources = self._view(images)
        _, on_target = self._view(self.task.unlabelled(self.target, step))
        told, told_target = self.head(reverse(on_sources)), self.head(reverse(on_target))

        counts = self.task.counts()
        by_source = zip(*(tensor.split(counts) for tensor in (scores, truth, told)), strict=True)
        tasks, domains = [], []
        for i, (said, labels, judged) in enumerate(by_source):
            tasks.append(losses.task(said, labels, self.task.weights, self.task.total(labels)))
            of_source = losses.domain(judged[:, :, i], True)
            domains.append(of_source + losses.domain(told_target[:, :, i], False))
        of_sources = torch.stack(tasks) + settings.weight * torch.stack(domains)
        loss = losses.soft_maximum(_of_all(of_sources), settings.gamma)

        optimizer.zero_grad()
        loss.backward()
        distributed.average_gradients(optimizer)
        for module in self.modules.values():
            torch.nn.utils.clip_grad_norm_(module.parameters(), settings.clip)
        optimizer.step()
        names = [pictures.name for pictures in self.task.sets]
        figures = {f"task.{i}": value.item() for i, value in zip(names, tasks, strict=True)}
        figures |= {f"domain.{i}": value.item() for i, value in zip(names, domains, strict=True)}
        return figures | {"loss": loss.item()}

    def _view(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """F's view of a batch, of which only the scores of the whole are ever held at once.

        The weights of the sources depend on all of it, so parts are gone through again backwards.
        """
        parts = self.task.settings.accumulate
        if parts == 1:
            return self.task.view(images)
        seen = [checkpoint(self.task.view, x, use_reentrant=False) for x in images.chunk(parts)]
        scores, features = zip(*seen, strict=True)
        return torch.cat(scores), torch.cat(features)


def _of_all(values: Tensor) -> Tensor:
    """The means over the processes, with the gradient of this process's part in them."""
    return values + (distributed.mean(values.detach()) - values.detach())
