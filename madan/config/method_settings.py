"""Sections of params.yaml for MADAN+ (CLA, CAG), self-training and training by network."""

from typing import Annotated, Literal

from pydantic import Field

from madan.config.keys import Count, Fraction, Model, Positive, Size, Weight


class SegmenterChanges(Model):
    """What supervised training of one kind of network has otherwise than training.segmenter."""

    optimizer: Literal["adamw", "sgd"] | None = None
    lr: Positive | None = None
    momentum: Fraction | None = None
    weight_decay: Weight | None = None
    schedule: Literal["constant", "one-cycle", "poly"] | None = None
    power: Positive | None = None
    head_lr: Positive | None = Field(
        None, description="the classifier's learning rate, in units of lr"
    )


class Cla(Model):
    """Category-level alignment of MADAN+; rates and sizes are those of D_F."""

    weight: Weight = Field(description="of the sum over classes in what F minimises; 0: control")
    cell: Count = Field(description="side of a cell, in positions of the feature map")
    pseudo_labels: Literal["hard", "soft"] = Field(
        description="of the target: F's most probable class, or F's probabilities"
    )


class Cag(Model):
    """Context-aware generation of MADAN+."""

    crops: Annotated[list[Size], Field(min_length=1)] = Field(
        description="further crop sizes around the centre of `crop`, each resized to `crop`"
    )


class Masking(Model):
    """Masked image consistency (MIC): patches of a target image are hidden from the student."""

    ratio: Fraction = Field(description="share of the patches that are hidden")
    block: Count = Field(description="side of a patch in pixels")
    weight: Weight = Field(description="of the masked images' loss")


class SelfTraining(Model):
    """Self-training with an EMA teacher; batch, crop and rates are training.segmenter's."""

    alpha: Annotated[float, Field(ge=0, lt=1)] = Field(description="EMA decay of the teacher")
    threshold: Fraction = Field(description="a pseudo-label above this probability is confident")
    weight: Weight = Field(description="of the mixed images' loss; 0 is the control")
    jitter: Fraction = Field(description="of mixed and masked images, as training.segmenter.jitter")
    blur: Fraction = Field(description="share of the mixed and masked images that are blurred")
    sigma: tuple[Positive, Positive] = Field(description="range of the blur's sigma in pixels")
    masking: Masking
