"""The plain way, to compare with: what a straightforward script does, written for the purpose.

FCN-8s enlarges by full transposed convolutions and crops; networks see one batch after another;
judges keep the graph of the semantic loss and collect gradients of their own weights; InstanceNorm
and Adam are torch's own, unfused; images are decoded and resized for every sample; labels are
mapped by one mask for each id.
"""

import copy
from collections.abc import Mapping
from itertools import permutations

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from madan.data import batches
from madan.methods.translation import Translator
from madan.models.fcn8s import FCN8s

Images = dict[str, Tensor]


class PlainFCN8s(nn.Module):
    """FCN-8s with the layers and weights of ours, enlarged by transposed convolutions."""

    def __init__(self, net: FCN8s, classes: int = 19) -> None:
        super().__init__()
        self.net = net
        for name, factor in (("twice", 2), ("again", 2), ("eightfold", 8)):
            self.register_buffer(name, _bilinear(classes, factor))

    def forward(self, x: Tensor) -> Tensor:
        """Score x [B,3,H,W], padded by 100 in the first layer, as [B,classes,H,W]."""
        net, (end3, end4) = self.net, self.net._ends
        pool3 = net.vgg[:end3](x)
        pool4 = net.vgg[end3:end4](pool3)
        scores = F.conv_transpose2d(net.vgg_head(net.vgg[end4:](pool4)), self.twice, stride=2)
        scores = scores + _cut(net.score_pool4(0.01 * pool4), 5, scores)
        scores = F.conv_transpose2d(scores, self.again, stride=2)
        scores = scores + _cut(net.score_pool3(0.0001 * pool3), 9, scores)
        return _cut(F.conv_transpose2d(scores, self.eightfold, stride=8), 31, x)


def _bilinear(classes: int, factor: int) -> Tensor:
    """Weights [C,C,2f,2f], 0 between different classes."""
    position = torch.arange(2 * factor)
    line = 1 - ((position - factor + 0.5) / factor).abs()
    return torch.eye(classes)[:, :, None, None] * torch.outer(line, line)


def _cut(x: Tensor, first: int, like: Tensor) -> Tensor:
    return x[:, :, first : first + like.shape[2], first : first + like.shape[3]]


def normalised(network: nn.Module) -> nn.Module:
    """The network with torch's InstanceNorm for groups of one channel."""
    for name, child in network.named_children():
        if isinstance(child, nn.GroupNorm) and child.num_groups == child.num_channels:
            setattr(network, name, nn.InstanceNorm2d(child.num_channels))
        normalised(child)
    return network


def adam(parameters, rate: float, beta1: float = 0.9) -> torch.optim.Adam:
    """Adam, one operation after another."""
    return torch.optim.Adam(parameters, rate, (beta1, 0.999), foreach=False, fused=False)


class PlainSources:
    """The multi-source step with SAD, CCD and DSC, from the weights of a Translator."""

    def __init__(self, method: Translator) -> None:
        self.method, self.settings = method, method.settings
        self.networks = {n: normalised(copy.deepcopy(net)) for n, net in method.networks().items()}
        self.pools = copy.deepcopy(method.pools)
        self.task = PlainFCN8s(self.networks["FA"])
        self.judges = {i: PlainFCN8s(judge) for i, judge in method.judges.items()}
        made = [
            p for name, net in self.networks.items() if name[0] == "G" for p in net.parameters()
        ]
        told = [
            p for name, net in self.networks.items() if name[0] == "D" for p in net.parameters()
        ]
        self.optimizers = [
            adam(made, self.settings.lr, self.settings.beta1),
            adam(told, self.settings.lr_discriminator, self.settings.beta1),
            adam(self.task.parameters(), self.settings.task_lr),
        ]

    def update(self, step: int) -> dict[str, float]:
        """One step; the figures of the generators and of F_A, named as in ours."""
        drawn = self.method._draw(step)
        x = {i: drawn[i].images for i in self.method.sources}
        adapted, back, crossed, figures = self._generators(x, drawn[""].images)
        self._discriminators(x, drawn[""].images, adapted, back, crossed)
        self.task.train().requires_grad_(True)
        scores = self.task(batches.imagenet(torch.cat([adapted[i].detach() for i in x])))
        truth = torch.cat([drawn[i].truth() for i in x])
        loss = F.cross_entropy(scores, truth, self.method.class_weights, ignore_index=255)
        self._descend(2, loss)
        return {name: term.item() for name, term in (figures | {"task": loss}).items()}

    def _generators(self, x: Images, target: Tensor):
        net, terms = self.networks, dict[str, Tensor]()
        told = [p for name in net if name[0] == "D" for p in net[name].parameters()]
        judged = [p for judge in self.judges.values() for p in judge.parameters()]
        _require(told, False)
        _require(judged, True)
        adapted = {i: net[f"G_{i}"](x[i]) for i in x}
        back = {i: net[f"GT_{i}"](target) for i in x}
        crossed = {(i, j): net[f"GT_{i}"](adapted[j]) for i, j in permutations(x, 2)}
        current = self.task.eval()
        for i in x:
            terms[f"gan_target.{i}"] = _right(net["DT"](adapted[i]))
            terms[f"gan_source.{i}"] = _right(net[f"D_{i}"](back[i]))
            there = (net[f"GT_{i}"](adapted[i]) - x[i]).abs().mean()
            terms[f"cycle.{i}"] = there + (net[f"G_{i}"](back[i]) - target).abs().mean()
            now = current(batches.imagenet(adapted[i])).log_softmax(1)
            said = self.judges[i](batches.imagenet(x[i])).log_softmax(1)
            terms[f"semantic.{i}"] = (now.exp() * (now - said)).sum(1).mean()
        for i, j in crossed:
            terms[f"sad.{i}"] = _right(net[f"DA_{i}"](adapted[j]))
            terms[f"ccd.{i}"] = _right(net[f"D_{i}"](crossed[i, j]))
        weights = self.settings.weights
        self._descend(0, sum(getattr(weights, n.split(".")[0]) * term for n, term in terms.items()))
        _require(told, True)
        _require(judged, False)
        for parameter in judged:
            parameter.grad = None
        return adapted, back, crossed, terms

    def _discriminators(
        self, x: Images, target: Tensor, adapted: Images, back: Images,
        crossed: Mapping[tuple[str, str], Tensor],
    ) -> None:  # fmt: skip
        net, terms = self.networks, list[Tensor]()
        shown = {i: self.pools[f"pool_T_{i}"].query(adapted[i]) for i in x}
        for i, j in crossed:
            terms.append(_told(net["DT"], target, shown[i]))
            terms.append(_told(net[f"D_{i}"], x[i], self.pools[f"pool_{i}"].query(back[i])))
            terms.append(_told(net[f"D_{i}"], x[i], crossed[i, j].detach()))
            terms.append(_told(net[f"DA_{i}"], shown[i], shown[j]))
        self._descend(1, sum(terms))

    def _descend(self, which: int, loss) -> None:
        self.optimizers[which].zero_grad()
        loss.backward()
        self.optimizers[which].step()


def _right(output: Tensor) -> Tensor:
    return (output - 1).square().mean()


def _told(discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    return (_right(discriminator(real)) + discriminator(fake).square().mean()) / 2


def _require(parameters: list, needed: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(needed)


def remapped(native: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Train ids, one mask for each of 35 ids."""
    found = np.full(native.shape, 255, np.uint8)
    for label_id in range(-1, 34):
        found[native == label_id] = table[label_id] if label_id >= 0 else 255
    return found


def sample(
    image: str, label: str, size: tuple[int, int], table: np.ndarray, corner: tuple[int, int],
    crop: tuple[int, int],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """An image and its label from PNGs: decoded, resized, mapped, then cropped, as tensors."""
    with Image.open(image) as opened:
        pixels = np.asarray(opened.convert("RGB").resize(size[::-1], Image.Resampling.BICUBIC))
    with Image.open(label) as opened:
        native = np.asarray(opened.resize(size[::-1], Image.Resampling.NEAREST))
    truth = remapped(native, table)
    window = tuple(slice(c, c + n) for c, n in zip(corner, crop, strict=True))
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255
    x = (x - 0.5) / 0.5
    return x[:, *window], torch.from_numpy(truth.astype(np.int64))[window]


def confusion(label: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Count pairs of int64 ids with a mask of the valid ones."""
    valid = (label >= 0) & (label < classes)
    pairs = classes * label[valid].astype(int) + prediction[valid]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
