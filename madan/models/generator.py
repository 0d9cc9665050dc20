"""The generators G of the paper's figure: the ResNet of CycleGAN (Zhu et al., 2017).

At full size it is the released network, key for key; the slim one of the miniature world enlarges
by repeating pixels and sees the picture's colours directly.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Two halvings: below this the innermost map is one pixel, which cannot be padded by reflection.
_SMALLEST = 5
_STRIDE = 4


class ResidualBlock(nn.Module):
    """x [B,C,h,w] + two 3x3 convolutions of it, with dropout (if any) between them."""

    def __init__(self, *, channels: int, dropout: bool) -> None:
        """Build with that many channels, and dropout of one half or none."""
        super().__init__()
        self.conv_block = nn.Sequential(
            *_convolution(channels, channels, 3),
            nn.ReLU(inplace=True),
            *([nn.Dropout(0.5)] if dropout else []),
            *_convolution(channels, channels, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return x [B,C,h,w] plus its residual."""
        return x + self.conv_block(x)


class NearestConvolution(nn.Module):
    """x [B,C,h,w], each pixel repeated 2x2, padded by reflection, convolved 3x3: [B,width,2h,2w].

    Among nine repeated pixels only four differ, so it adds the weights of equal ones first and then
    is a transposed convolution of stride 2: less than half the work for the same values.
    """

    def __init__(self, channels: int, width: int) -> None:
        """Build from that many channels to `width`, with the weights of a 3x3 convolution."""
        super().__init__()
        self.conv = nn.Conv2d(channels, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Double x [B,C,h,w] to [B,width,2h,2w]."""
        weight = self.conv.weight
        sums = weight.new_tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]])
        # (in, out, 4, 4), as transposed convolutions have it.
        kernel = (sums @ weight @ sums.T).transpose(0, 1)
        # Repeating the border of x is reflecting the border of x repeated.
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        return F.conv_transpose2d(x, kernel, self.conv.bias, stride=2, padding=3)


class Generator(nn.Module):
    """A picture in the other domain's style: x [B,3,H,W] in [-1,1] to the same size and range."""

    def __init__(
        self,
        *,
        ngf: int,
        blocks: int,
        end_kernel: int,
        upsample: str,
        dropout: bool,
        colour: bool,
    ) -> None:
        """Build with `ngf` channels at full resolution and that many residual blocks between.

        end_kernel is the odd kernel of the first and the last convolution, upsample "transposed"
        (the paper's) or "nearest"; colour adds a learnable 1x1 colour matrix M, `colour`, and the
        picture becomes tanh(f(x) + Mx). ValueError for an even kernel or another upsample.
        """
        super().__init__()
        if upsample not in ("transposed", "nearest"):
            raise ValueError(f"upsample must be 'transposed' or 'nearest', not {upsample!r}.")
        if end_kernel % 2 == 0:
            raise ValueError(f"end_kernel must be odd, not {end_kernel}.")
        self.model = nn.Sequential(
            *_convolution(3, ngf, end_kernel),
            nn.ReLU(inplace=True),
            *_halving(ngf, 2 * ngf),
            *_halving(2 * ngf, 4 * ngf),
            *(ResidualBlock(channels=4 * ngf, dropout=dropout) for _ in range(blocks)),
            *_doubling(4 * ngf, 2 * ngf, upsample),
            *_doubling(2 * ngf, ngf, upsample),
            nn.ReflectionPad2d(end_kernel // 2),
            nn.Conv2d(ngf, 3, end_kernel),
        )
        self.apply(_initialise)
        self.colour = nn.Conv2d(3, 3, 1, bias=False) if colour else None
        if self.colour is not None:
            # A little more than the identity: the tanh that follows takes saturation away.
            with torch.no_grad():
                self.colour.weight.copy_(1.2 * torch.eye(3)[:, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Translate x [B,3,H,W] in [-1,1] to [B,3,H,W] in [-1,1]; ValueError below 5x5."""
        height, width = x.shape[2:]
        if min(height, width) < _SMALLEST:
            raise ValueError(f"A picture of {height}x{width} is too small: 5x5 is the least.")
        if height % _STRIDE or width % _STRIDE:
            x = F.pad(x, (0, -width % _STRIDE, 0, -height % _STRIDE), mode="reflect")
        out = self.model(x)
        if self.colour is not None:
            out = out + self.colour(x)
        return torch.tanh(out[:, :, :height, :width])


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _instance_norm(width: int) -> nn.Module:
    # torch's own has a wrong gradient on CPU at batch 1 if that arrives in channels_last; groups of
    # one channel give the same values, the right gradient in any layout, and are faster.
    return nn.GroupNorm(width, width, affine=False)


def _convolution(channels: int, width: int, kernel: int) -> list[nn.Module]:
    return [
        nn.ReflectionPad2d(kernel // 2),
        nn.Conv2d(channels, width, kernel),
        _instance_norm(width),
    ]


def _halving(channels: int, width: int) -> list[nn.Module]:
    return [
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        _instance_norm(width),
        nn.ReLU(inplace=True),
    ]


def _doubling(channels: int, width: int, upsample: str) -> list[nn.Module]:
    doubling = (
        NearestConvolution(channels, width)
        if upsample == "nearest"
        else nn.ConvTranspose2d(channels, width, 3, stride=2, padding=1, output_padding=1)
    )
    return [doubling, _instance_norm(width), nn.ReLU(inplace=True)]
