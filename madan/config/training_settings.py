"""The section `training` of params.yaml: one section for each kind of training."""

from typing import Literal

from pydantic import Field

from madan.config.keys import Count, Fraction, Model, Positive, Size, Weight
from madan.config.method_settings import Cag, Cla, SegmenterChanges, SelfTraining
from madan.config.network_settings import NetworkName

Level = Literal["scores", "features"]
# auto: bf16 where the device has instructions for it; what it came to stands beside the result.
Precision = Literal["fp32", "bf16", "auto"]


class ClassWeights(Model):
    """Weight of a class in the cross-entropy: min(cap, frequency ** -power)."""

    power: Weight
    cap: Positive


class SegmenterTraining(Model):
    """Supervised training of F."""

    lr: Positive
    steps: Count
    batch: Count = Field(description="images a step, shared evenly between the sets of train_on")
    crop: Size
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Fraction = Field(0.9, description="of sgd")
    schedule: Literal["constant", "one-cycle", "poly"]
    power: Positive = Field(0.9, description="of poly: lr falls as (1 - step / steps) ** power")
    head_lr: Positive = Field(1, description="the classifier's learning rate, in units of lr")
    weight_decay: Weight
    flip: bool
    jitter: Fraction = Field(description="brightness, contrast and saturation factors 1 +- jitter")
    class_weights: ClassWeights | None
    precision: Precision
    accumulate: Count = Field(1, description="parts in which a batch goes through F, for memory")


class TranslatorWeights(Model):
    """Weights of the terms that the generators minimise."""

    gan_target: Weight
    gan_source: Weight
    cycle: Weight
    identity: Weight
    semantic: Weight
    sad: Weight
    ccd: Weight


class Gates(Model):
    """When SAD and CCD join, as a fraction of the run's steps."""

    sad: Fraction
    ccd: Fraction


class TranslatorTraining(Model):
    """Training of the generators against their discriminators."""

    lr: Positive
    lr_discriminator: Positive
    colour_lr: Positive = Field(description="the colour matrix's learning rate, in units of lr")
    task_lr: Positive = Field(description="learning rate of F_A inside the loop")
    beta1: Fraction
    decay_from: Fraction = Field(description="fraction of the steps after which lr falls to 0")
    steps: Count
    batch: Count = Field(description="images a step of each source, and of the target")
    crop: Size
    flip: bool
    pool: int = Field(ge=0, description="history of fakes a discriminator sees; 0 = none")
    weights: TranslatorWeights
    gates: Gates
    pairs: Literal["all"] | Count = Field(
        description="ordered pairs of sources that SAD and CCD take a step: all, or so many drawn"
    )
    cag: Cag
    stylise_precision: Precision
    accumulate: Count = Field(1, description="parts in which a batch is gone through, for memory")


class AdaptationTraining(Model):
    """Feature-level alignment; of these, feat has its D_F, `on`, `classwise` and weight."""

    lr: Positive
    lr_discriminator: Positive
    momentum: Fraction
    steps: Count
    batch: Count
    crop: Size
    flip: bool
    on: Level
    classwise: bool = Field(
        description="D_F has two logits for each class, weighed by F's probabilities; not CLA"
    )
    weight: Weight = Field(description="lambda_G of the adversarial term; 0 is the control")
    gate: Fraction = Field(description="F learns only while the discriminator is righter than this")
    window: Count = Field(description="iterations over which that accuracy is averaged")


class MdanTraining(Model):
    """MDAN: a source's loss is its L_task plus weight times the loss of its discriminator."""

    weight: Weight = Field(description="mu; 0 is the control")
    gamma: Positive | None = Field(description="of the soft maximum over sources; null: maximum")
    clip: Positive = Field(description="largest norm of a step's gradients, of F and of the head")


class Training(Model):
    """Schedules; `threads` belongs to the settings because sums depend on it."""

    segmenter: SegmenterTraining
    by_network: dict[NetworkName, SegmenterChanges] = Field(
        {}, description="what the training of a kind of network has otherwise"
    )
    translator: TranslatorTraining
    adaptation: AdaptationTraining
    cla: Cla
    mdan: MdanTraining
    self_training: SelfTraining
    threads: Count
    compile: bool = Field(description="torch.compile of F and, when stylising, of G; other bits")
    save_every: Count = Field(description="steps between two saved states")
    log_every: Count = Field(description="steps averaged into one line of log.csv")
