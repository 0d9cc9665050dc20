"""The segmenter F of the paper's figure: FCN-8s (Long et al., 2015) on VGG-16, at any width.

At full size it is the released network, key for key; the slim one of the miniature world is the
same class with fewer channels, GroupNorm and a head that pads itself.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Long et al. train the three score layers at once and bring the unnormalised activations of pool4
# and pool3 down to the size of scores; normalised activations have that size already.
_UNNORMALISED_SCALES = (1e-2, 1e-4)
_GROUPS = 8


class Bilinear(nn.Module):
    """The paper's fixed bilinear upsampling, as two small matrix products.

    The same values as its transposed convolutions, faster on a CPU, and at any size there is
    nothing to crop.
    """

    def __init__(self, *, factor: int, start: int, origin: int, edge: bool) -> None:
        """Build for scores whose first position is `start`, wanted from fine position `origin` on.

        Beyond the outermost scores it goes on with them if edge is true, else with zeros.
        """
        super().__init__()
        self.factor = factor
        self.start = start
        self.origin = origin
        self.edge = edge

    def forward(self, scores: Tensor, height: int, width: int) -> Tensor:
        """Interpolate scores [B,C,h,w], `factor` times finer, at [B,C,height,width]."""
        rows, columns = (
            self._weights(fine, coarse, scores)
            for fine, coarse in zip((height, width), scores.shape[2:], strict=True)
        )
        return rows @ (scores.contiguous() @ columns.T)

    def _weights(self, fine: int, coarse: int, like: Tensor) -> Tensor:
        position = torch.arange(fine, dtype=torch.float32, device=like.device)
        position = (position + self.origin + 0.5) / self.factor - 0.5 - self.start
        if self.edge:
            position = position.clamp(0, coarse - 1)
        distance = (position[:, None] - torch.arange(coarse, device=like.device)).abs()
        return (1 - distance).clamp(min=0).to(like.dtype)


class Halving(nn.Module):
    """VGG's pooling: the largest of every 2x2 positions."""

    def forward(self, x: Tensor) -> Tensor:
        """Halve x [B,C,h,w], a last odd row or column being one of its own."""
        odd = x.shape[2] % 2 or x.shape[3] % 2
        if torch.is_grad_enabled() or x.is_cuda or odd:
            return F.max_pool2d(x, 2, ceil_mode=True)
        # Without gradients two maxima give the same values, ten times as fast on a CPU.
        rows = torch.maximum(x[:, :, ::2], x[:, :, 1::2])
        return torch.maximum(rows[..., ::2], rows[..., 1::2])


class FCN8s(nn.Module):
    """FCN-8s: x [B,3,H,W], ImageNet-normalised, to scores [B,classes,H,W], for any H and W."""

    def __init__(
        self,
        *,
        classes: int,
        widths: Sequence[int],
        convs: Sequence[int],
        pools: Sequence[int],
        head: int,
        head_kernel: int,
        norm: str,
        dropout: float,
        padding: int,
    ) -> None:
        """Build with five blocks of VGG: channels, 3x3 convolutions, and 1 if a pooling follows.

        head and head_kernel are the channels of the head's two hidden layers and the kernel of the
        first; dropout is the share of their channels dropped in training; norm is "none" or
        "group". padding is that of the first convolution: 100, as in the paper, leaves room for an
        unpadded head; at 1 the head pads itself. ValueError where these do not fit together.
        """
        super().__init__()
        _check(widths, convs, pools, head, head_kernel, norm, padding)
        self.head = head
        own = padding == 1
        # An unpadded head leaves this many positions at each border without a score.
        margin = 0 if own else head_kernel // 2
        self.vgg, self._ends = _vgg(widths, convs, pools, norm, padding)
        score = nn.Conv2d(head, classes, 1)
        self.vgg_head = nn.Sequential(
            *_hidden(widths[4], head, head_kernel, head_kernel // 2 - margin, norm),
            nn.Dropout2d(dropout),
            *_hidden(head, head, 1, 0, norm),
            nn.Dropout2d(dropout),
            score,
        )
        self.score_pool4 = nn.Conv2d(widths[3], classes, 1)
        self.score_pool3 = nn.Conv2d(widths[2], classes, 1)
        self._scale4, self._scale3 = _UNNORMALISED_SCALES if norm == "none" else (1.0, 1.0)
        # Padded by 100, zeros follow outside the picture; without that its borders would fade.
        self.upscore2 = Bilinear(factor=1 + pools[4], start=margin, origin=0, edge=own)
        self.upscore_pool4 = Bilinear(factor=1 + pools[3], start=0, origin=0, edge=own)
        factor = 2 ** sum(pools[:3])
        self.upscore8 = Bilinear(factor=factor, start=0, origin=padding - 1, edge=own)
        self.apply(_initialise)
        # As Long et al. begin: the skips have no say yet.
        nn.init.normal_(score.weight, std=0.01)
        nn.init.zeros_(self.score_pool4.weight)
        nn.init.zeros_(self.score_pool3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Score x [B,3,H,W] as [B,classes,H,W]."""
        return self.forward_features(x)[0]

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Score x [B,3,H,W] as [B,classes,H,W], with the head's last hidden layer [B,head,h,w]."""
        end3, end4 = self._ends
        pool3 = self.vgg[:end3](x)
        pool4 = self.vgg[end3:end4](pool3)
        features = self.vgg_head[:-1](self.vgg[end4:](pool4))
        scores = self.upscore2(self.vgg_head[-1](features), *pool4.shape[2:])
        scores = scores + _scaled(self.score_pool4, pool4, self._scale4)
        scores = self.upscore_pool4(scores, *pool3.shape[2:])
        scores = scores + _scaled(self.score_pool3, pool3, self._scale3)
        return self.upscore8(scores, *x.shape[2:]), features


def _vgg(
    widths: Sequence[int], convs: Sequence[int], pools: Sequence[int], norm: str, padding: int
) -> tuple[nn.Sequential, tuple[int, int]]:
    """Return the layers of all blocks, and where the third and the fourth block end."""
    layers: list[nn.Module] = []
    ends = []
    channels = 3
    for width, count, pool in zip(widths, convs, pools, strict=True):
        for _ in range(count):
            # All padding in the first convolution gives the same values as padding the picture.
            layers += _hidden(channels, width, 3, 1 if layers else padding, norm)
            channels = width
        if pool:
            layers.append(Halving())
        ends.append(len(layers))
    return nn.Sequential(*layers), (ends[2], ends[3])


def _hidden(channels: int, width: int, kernel: int, padding: int, norm: str) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, width, kernel, padding=padding, bias=norm == "none")
    normalised = [nn.GroupNorm(_GROUPS, width)] if norm == "group" else []
    return [convolution, *normalised, nn.ReLU(inplace=True)]


def _scaled(layer: nn.Conv2d, x: Tensor, scale: float) -> Tensor:
    # Scaling the few weights instead of the activations gives the same scores.
    return F.conv2d(x, scale * layer.weight, layer.bias)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check(
    widths: Sequence[int],
    convs: Sequence[int],
    pools: Sequence[int],
    head: int,
    head_kernel: int,
    norm: str,
    padding: int,
) -> None:
    if not len(widths) == len(convs) == len(pools) == 5:
        raise ValueError("widths, convs and pools must have five entries, one for each VGG block.")
    if not set(pools) <= {0, 1}:
        raise ValueError(f"pools must be 0 or 1 for each block, not {list(pools)}.")
    if head_kernel % 2 == 0:
        raise ValueError(f"head_kernel must be odd, not {head_kernel}.")
    if norm not in ("none", "group"):
        raise ValueError(f"norm must be 'none' or 'group', not {norm!r}.")
    if norm == "group" and any(width % _GROUPS for width in (*widths, head)):
        raise ValueError(f"With norm 'group', widths and head must be multiples of {_GROUPS}.")
    stride = 2 ** sum(pools)
    least = stride * (head_kernel // 2 - 1) + stride // 2 + 1
    if padding < 1 or 1 < padding < least:
        raise ValueError(
            f"padding {padding} leaves no room for a head of kernel {head_kernel} at stride "
            f"{stride}: it must be 1, where the head pads itself, or at least {least}."
        )
