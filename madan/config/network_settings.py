"""The section `networks` of params.yaml: sizes of the networks, and which a segmenter may be."""

from typing import Annotated, Literal, get_args

from pydantic import Field

from madan.config.keys import Count, Model, Name

# Networks that a segmenter may be; those of torchvision's collection by their names there.
NetworkName = Literal[
    "fcn8s",
    "drn26",
    "deeplabv2-resnet101",
    "torchvision/deeplabv3_mobilenet_v3_large",
    "torchvision/deeplabv3_resnet50",
    "torchvision/deeplabv3_resnet101",
    "torchvision/fcn_resnet50",
    "torchvision/fcn_resnet101",
    "torchvision/lraspp_mobilenet_v3_large",
]
Backbone = Literal["resnet50", "resnet101", "mobilenet_v3_large"]
BACKBONES: tuple[str, ...] = get_args(Backbone)


class GeneratorNetwork(Model):
    """ResNet generator of CycleGAN; the paper's is 64, 9, 7, transposed, without the rest."""

    ngf: Count
    blocks: Count
    end_kernel: Literal[3, 5, 7]
    upsample: Literal["transposed", "nearest"]
    dropout: bool
    colour: bool = Field(description="add a learnable 3x3 colour matrix before the tanh")


class DiscriminatorNetwork(Model):
    """PatchGAN; the paper's is 64, 3, instance."""

    ndf: Count
    layers: Count
    norm: Literal["instance", "none"]


class SegmenterNetwork(Model):
    """FCN-8s; the paper's is VGG-16 with a head of 4096, 7x7 and padding 100."""

    widths: tuple[Count, Count, Count, Count, Count]
    convs: tuple[Count, Count, Count, Count, Count]
    pools: tuple[Literal[0, 1], Literal[0, 1], Literal[0, 1], Literal[0, 1], Literal[0, 1]]
    head: Count
    head_kernel: Literal[1, 3, 5, 7]
    norm: Literal["none", "group"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    padding: Literal[1, 100]
    pretrained: Name | None = Field(
        None, description="VGG-16 trained on ImageNet, of `released`, that runs begin with"
    )


class Drn26Network(Model):
    """DRN-C-26; the released judge has width 1."""

    width: float = Field(ge=1 / 16, description="times the released channels, 16 to 512")


class DeeplabV2Network(Model):
    """DeepLab v2 on torchvision's ResNet; the field's is ResNet-101, [3, 4, 23, 3] and 64."""

    layers: tuple[Count, Count, Count, Count] = Field(description="blocks of the four stages")
    width_per_group: Count = Field(description="torchvision's; 64 is the full width of a block")
    norm: Literal["batch", "frozen", "group"] = Field(
        description="frozen: BatchNorm with the statistics and factors it was pretrained with"
    )


class TorchvisionNetwork(Model):
    """A model of torchvision.models.segmentation, which has no sizes to set."""

    name: str


AnySegmenterNetwork = SegmenterNetwork | Drn26Network | DeeplabV2Network | TorchvisionNetwork


class FeatureDiscriminatorNetwork(Model):
    """ADDA's discriminator of 1x1 convolutions on scores or features."""

    hidden: tuple[Count, Count]
    dropout: Annotated[float, Field(ge=0, lt=1)]


class SourceDiscriminatorsNetwork(Model):
    """MDAN's head: channels that features are reduced to, and its hidden layers."""

    reduced: Count
    hidden: Annotated[list[Count], Field(min_length=1)]


class Networks(Model):
    """Sizes of the networks."""

    segmenter: SegmenterNetwork
    drn26: Drn26Network
    deeplabv2: DeeplabV2Network
    backbones: dict[Backbone, Name] = Field(
        {}, description="weights trained on ImageNet, of `released`, that segmenters begin with"
    )
    generator: GeneratorNetwork
    discriminator: DiscriminatorNetwork
    feature_discriminator: FeatureDiscriminatorNetwork
    source_discriminators: SourceDiscriminatorsNetwork
