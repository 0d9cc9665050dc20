"""Segmenters on a backbone, built by torchvision: DeepLab v2, and its collection by name.

DeepLab v2 (Chen et al. 2017) on ResNet-101 is the segmenter on which methods of domain adaptation
are compared: the last two stages are dilated, so that features have a stride of 8, and the scores
are the sum of four dilated convolutions of them (ASPP).
"""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from madan.engine import distributed
from madan.errors import Refusal

RATES = (6, 12, 18, 24)
GROUPS = 8
# Where the features of torchvision's models lie in what their backbones return.
_FEATURES = ("out", "high")


class Segmenter(nn.Module):
    """A backbone and a classifier: x [B,3,H,W], ImageNet-normalised, to scores [B,classes,H,W].

    Keys of both are those of torchvision's models.
    """

    def __init__(self, backbone: nn.Module, classifier: nn.Module) -> None:
        super().__init__()
        self.backbone, self.classifier = backbone, classifier
        convolutions = [m for m in classifier.modules() if isinstance(m, nn.Conv2d)]
        self.head = convolutions[0].in_channels
        # The classifier of LR-ASPP sees features of two levels.
        self._levels = hasattr(classifier, "low_classifier")
        self._normalises = any(
            isinstance(part, nn.modules.batchnorm._BatchNorm) for part in self.modules()
        )

    def forward(self, x: Tensor) -> Tensor:
        """Score x [B,3,H,W] as [B,classes,H,W]."""
        return self.forward_features(x)[0]

    def forward_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Score x [B,3,H,W] as [B,classes,H,W], with the backbone's last layer [B,head,h,w]."""
        levels = self.backbone(x)
        features = next(levels[name] for name in _FEATURES if name in levels)
        scores = self.classifier(levels if self._levels else features)
        size = tuple(x.shape[2:])
        return F.interpolate(scores, size=size, mode="bilinear", align_corners=False), features

    def train(self, mode: bool = True) -> "Segmenter":
        """Switch between training and evaluation; Refusal of BatchNorm in several processes."""
        if mode and distributed.size() > 1 and self._normalises:
            raise Refusal(
                "this segmenter normalises over its batch, of which several processes would each "
                "take a part: train it with --processes 1, or set norm: frozen or group of "
                "networks.deeplabv2."
            )
        return super().train(mode)


class Aspp(nn.Module):
    """Sum of dilated 3x3 convolutions of features [B,channels,h,w]: scores [B,classes,h,w]."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            nn.Conv2d(channels, classes, 3, padding=rate, dilation=rate) for rate in RATES
        )
        for convolution in self.convs:
            nn.init.normal_(convolution.get_parameter("weight"), std=0.01)
            nn.init.zeros_(convolution.get_parameter("bias"))

    def forward(self, features: Tensor) -> Tensor:
        """Score features [B,channels,h,w] as [B,classes,h,w]."""
        scores = self.convs[0](features)
        for convolution in self.convs[1:]:
            scores = scores + convolution(features)
        return scores


def deeplab_v2(
    *, classes: int, layers: Sequence[int], width_per_group: int, norm: str
) -> Segmenter:
    """DeepLab v2 on torchvision's ResNet of bottlenecks; layers [3, 4, 23, 3], 64 is ResNet-101.

    norm is "batch", "frozen" (BatchNorm as it was pretrained) or "group".
    """
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.resnet import Bottleneck, ResNet
    from torchvision.ops import FrozenBatchNorm2d

    kinds: dict[str, Callable[[int], nn.Module]] = {
        "batch": nn.BatchNorm2d,
        "frozen": FrozenBatchNorm2d,
        "group": lambda channels: nn.GroupNorm(GROUPS, channels),
    }
    resnet = ResNet(
        Bottleneck,
        list(layers),
        width_per_group=width_per_group,
        replace_stride_with_dilation=[False, True, True],
        norm_layer=kinds[norm],
    )
    backbone = IntermediateLayerGetter(resnet, {"layer4": "out"})
    return Segmenter(backbone, Aspp(resnet.fc.in_features, classes))


def of_torchvision(*, classes: int, name: str) -> Segmenter:
    """A model of torchvision.models.segmentation, without an auxiliary classifier."""
    from torchvision.models import get_model

    made = get_model(name, weights=None, weights_backbone=None, num_classes=classes)
    return Segmenter(made.backbone, made.classifier)
