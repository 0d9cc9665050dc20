"""The released judge: DRN-C-26 (Yu et al., 2017), a dilated residual network, at any width.

At width 1 it is the released network, key for key. Its BatchNorm reads the running statistics in
evaluation, and in training those of the batch, which therefore has to lie in one process.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from madan.engine import distributed
from madan.errors import Refusal
from madan.models.backbones import Segmenter
from madan.models.fcn8s import FCN8s

# Of the eight levels; stride 8 in all. The last two have no shortcuts: they smooth what dilation
# leaves as a grid.
_CHANNELS = (16, 32, 64, 128, 256, 512, 512, 512)
_BLOCKS = (1, 1, 2, 2, 2, 2, 1, 1)
_STRIDES = (1, 2, 2, 2, 1, 1, 1, 1)
_DILATIONS = (1, 1, 1, 1, 2, 4, 2, 1)
_SHORTCUTS = (True,) * 6 + (False,) * 2


class Block(nn.Module):
    """Two dilated 3x3 convolutions of x [B,C,h,w], plus x itself where there is a shortcut."""

    def __init__(
        self, *, channels: int, width: int, stride: int, dilation: int, shortcut: bool
    ) -> None:
        """Build from that many channels to `width`, the first convolution with this stride."""
        super().__init__()
        self.conv1 = _convolution(channels, width, 3, stride, dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _convolution(width, width, 3, 1, dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = shortcut
        self.downsample = None
        if stride > 1 or channels != width:
            self.downsample = nn.Sequential(
                _convolution(channels, width, 1, stride, 1), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B,width,h/stride,w/stride]."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.shortcut:
            out = out + (x if self.downsample is None else self.downsample(x))
        return F.relu(out)


class DRN26(nn.Module):
    """DRN-C-26: x [B,3,H,W], ImageNet-normalised, to scores [B,classes,H,W], for any H and W."""

    def __init__(self, *, classes: int, width: float) -> None:
        """Build with `width` times the released channels; ValueError where that leaves none."""
        super().__init__()
        widths = [int(width * channels) for channels in _CHANNELS]
        if not all(widths):
            raise ValueError(f"width {width:g} leaves none of {_CHANNELS[0]} channels.")
        self.conv1 = nn.Conv2d(3, widths[0], 7, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        before = [widths[0], *widths]
        for k, blocks in enumerate(_BLOCKS):
            first = _STRIDES[k], _DILATIONS[k]
            level = [
                Block(channels=channels, width=widths[k], stride=stride, dilation=dilation,
                      shortcut=_SHORTCUTS[k])
                for channels, stride, dilation in
                [(before[k], *first), (widths[k], 1, _DILATIONS[k])][:blocks]
            ]  # fmt: skip
            self.add_module(f"layer{k + 1}", nn.Sequential(*level))
        self.head = widths[-1]
        self.fc = nn.Conv2d(self.head, classes, 1)
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """Score x [B,3,H,W] as [B,classes,H,W]."""
        return self.forward_features(x)[0]

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Score x [B,3,H,W] as [B,classes,H,W], with the last hidden layer [B,head,h,w]."""
        features = F.relu(self.bn1(self.conv1(x)))
        for k in range(len(_BLOCKS)):
            features = self.get_submodule(f"layer{k + 1}")(features)
        # Corners on corners, as the released weights learned it.
        size = tuple(x.shape[2:])
        return F.interpolate(self.fc(features), size, mode="bilinear", align_corners=True), features

    def train(self, mode: bool = True) -> "DRN26":
        """Switch between training and evaluation; Refusal to train in several processes."""
        if mode and distributed.size() > 1:
            raise Refusal(
                "a drn26 normalises over its batch, which several processes would each take "
                "a part of: train it with --processes 1, or network: fcn8s."
            )
        return super().train(mode)


Net = FCN8s | DRN26 | Segmenter  # The segmenter F may be any of these.


def _convolution(channels: int, width: int, kernel: int, stride: int, dilation: int) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(channels, width, kernel, stride, padding, dilation, bias=False)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
