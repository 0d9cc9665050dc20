"""The discriminators of the paper's figure, pixel and feature level, and the history they look at.

PatchGAN is CycleGAN's (Isola et al., 2017), FeatureDiscriminator is ADDA's (Tzeng et al., 2017) as
CyCADA has it, SourceDiscriminators are MDAN's (Zhao et al., 2018) as the release has them.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

_WIDEST = 8


class PatchGAN(nn.Module):
    """Real or fake, patch by patch: images [B,3,H,W] in [-1,1] to logits [B,1,h,w]."""

    def __init__(self, *, ndf: int, layers: int, norm: str) -> None:
        """Build with `ndf` channels first and `layers` halvings (3 see 70x70 pixels).

        norm is "instance" or "none"; ValueError for another.
        """
        super().__init__()
        if norm not in ("instance", "none"):
            raise ValueError(f"norm must be 'instance' or 'none', not {norm!r}.")
        widths = [ndf * min(2**layer, _WIDEST) for layer in range(layers + 1)]
        self.model = nn.Sequential(
            nn.Conv2d(3, ndf, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        )
        for layer in range(1, layers + 1):
            stride = 2 if layer < layers else 1
            self.model.append(nn.Conv2d(widths[layer - 1], widths[layer], 4, stride, padding=1))
            if norm == "instance":
                # Instance normalisation, in the form that has the right gradient in any layout.
                self.model.append(nn.GroupNorm(widths[layer], widths[layer], affine=False))
            self.model.append(nn.LeakyReLU(0.2, inplace=True))
        self.model.append(nn.Conv2d(widths[layers], 1, 4, padding=1))
        self.apply(_initialise)

    def forward(self, images: Tensor) -> Tensor:
        """Judge images [B,3,H,W] in [-1,1]: logits [B,1,h,w], high for real."""
        return self.model(images)


class FeatureDiscriminator(nn.Module):
    """Target or source, position by position: features [B,channels,h,w] to logits [B,2,h,w]."""

    def __init__(
        self, *, channels: int, hidden: Sequence[int], dropout: float, classes: int = 1
    ) -> None:
        """Build with two hidden 1x1 layers of these widths, their channels dropped at that rate.

        With more classes than one it has two logits for each of them.
        """
        super().__init__()
        self.classes = classes
        first, second = hidden
        self.D = nn.Sequential(
            nn.Conv2d(channels, first, 1),
            nn.Dropout2d(dropout),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 1),
            nn.Dropout2d(dropout),
            nn.ReLU(inplace=True),
            nn.Conv2d(second, 2 * classes, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Judge features or scores [B,channels,h,w]: logits [B,2,h,w], target and source.

        With K classes, [B,2,K,h,w].
        """
        logits = self.D(features)
        return logits if self.classes == 1 else logits.unflatten(1, (2, self.classes))


class CategoryDiscriminators(nn.Module):
    """A FeatureDiscriminator of its own for each class (MADAN+), computed side by side.

    The hidden layers are convolutions in as many groups as there are classes, so no class shares a
    weight with another.
    """

    def __init__(
        self, *, channels: int, hidden: Sequence[int], dropout: float, classes: int
    ) -> None:
        """Build with two hidden 1x1 layers of these widths for each class, and their dropout."""
        super().__init__()
        self.classes = classes
        first, second = (classes * width for width in hidden)
        self.D = nn.Sequential(
            nn.Conv2d(channels, first, 1),
            nn.Dropout2d(dropout),
            nn.ReLU(inplace=True),
            nn.Conv2d(first, second, 1, groups=classes),
            nn.Dropout2d(dropout),
            nn.ReLU(inplace=True),
            nn.Conv2d(second, 2 * classes, 1, groups=classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Judge features [B,channels,h,w]: logits [B,2,classes,h,w], target and source."""
        return self.D(features).unflatten(1, (self.classes, 2)).transpose(1, 2)


class SourceDiscriminators(nn.Module):
    """MDAN's head, one judge for each source: features [B,channels,h,w] to logits [B,2,sources].

    The release's unused layer `softmax` is left out.
    """

    def __init__(self, *, channels: int, reduced: int, hidden: Sequence[int], sources: int) -> None:
        """Build with features averaged to 2x2 and reduced, and hidden layers that all share."""
        super().__init__()
        self.dim_reduction = nn.Conv2d(channels, reduced, 1)
        nn.init.xavier_normal_(self.dim_reduction.weight)
        nn.init.constant_(self.dim_reduction.get_parameter("bias"), 0.1)
        widths = pairwise([4 * reduced, *hidden])
        self.hiddens = nn.ModuleList(nn.Linear(wide, next_wide) for wide, next_wide in widths)
        self.domains = nn.ModuleList(nn.Linear(hidden[-1], 2) for _ in range(sources))

    def forward(self, features: Tensor) -> Tensor:
        """Judge features [B,channels,h,w]: logits [B,2,sources], target and source."""
        return self.judge(self.embed(features))

    def embed(self, features: Tensor) -> Tensor:
        """Features [B,channels,h,w] as the judges see them, [B,hidden]."""
        seen = self.dim_reduction(_quarters(features)).flatten(1)
        for layer in self.hiddens:
            seen = layer(seen).relu()
        return seen

    def judge(self, embedded: Tensor) -> Tensor:
        """Logits [B,2,sources] of what was embedded."""
        return torch.stack([judge(embedded) for judge in self.domains], 2)


def reverse(features: Tensor) -> Tensor:
    """Gradient reversal (Ganin & Lempitsky, 2015): the same values, the negated gradient."""
    return 2 * features.detach() - features


class ImagePool(nn.Module):
    """History of translated images (Shrivastava et al., 2017), as buffers of the saved state."""

    images: Tensor
    stored: Tensor

    def __init__(self, *, size: int, shape: Sequence[int]) -> None:
        """Make room for `size` images of shape (3,h,w); at 0 it keeps none and lets all pass."""
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, *shape))
        self.register_buffer("stored", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def query(self, images: Tensor) -> Tensor:
        """Exchange images [B,3,h,w] for as many, detached: half of them, once full, from earlier.

        While filling it stores and returns the images themselves. Afterwards each is, with
        probability 1/2, swapped for a random stored one; randomness is torch's global CPU state.
        """
        images = images.detach()
        if self.size == 0:
            return images
        returned = images.clone()
        stored = int(self.stored)
        for position, image in enumerate(images):
            if stored < self.size:
                self.images[stored] = image
                stored += 1
            elif torch.rand(()) < 0.5:
                chosen = int(torch.randint(self.size, ()))
                returned[position] = self.images[chosen]
                self.images[chosen] = image
        self.stored.fill_(stored)
        return returned


def _quarters(x: Tensor) -> Tensor:
    """Means over the quarters of x [B,C,h,w], which share the middle row and column: [B,C,2,2].

    Adaptive pooling gives the same values, but adds up its gradient in any order on a GPU.
    """
    height, width = x.shape[2:]
    halves = torch.stack([x[:, :, : -(-height // 2)].mean(2), x[:, :, height // 2 :].mean(2)], 2)
    return torch.stack(
        [halves[..., : -(-width // 2)].mean(3), halves[..., width // 2 :].mean(3)], 3
    )


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
