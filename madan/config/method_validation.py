"""Checks of params.yaml for MADAN+, self-training and networks with a backbone."""

from madan.config.runs import backbone, batch_normalised, own_key
from madan.config.schema import Adaptation, Params, Segmenter, Translator, started
from madan.errors import Refusal, known

SMALLEST = 16  # pixels that networks need
GROUPS = 8


def check_methods(params: Params) -> None:
    """Refusal when a switch stands where its method has no use for it, or a size does not fit."""
    for name, run in params.adaptations.items():
        _check_switches(f"adaptations.{name}", run)
    low, high = params.training.self_training.sigma
    if low > high:
        raise Refusal(
            f"training.self_training.sigma is [{low:g}, {high:g}]; write the smaller number first."
        )
    _check_crops(params)
    _check_rates(params)
    _check_backbones(params)
    for name, segmenter in params.segmenters.items():
        if segmenter.network == "deeplabv2-resnet101":
            _check_deeplabv2(params, f"segmenters.{name}", not started(segmenter))
        if segmenter.network.startswith("torchvision/deeplabv3"):
            _check_batch(params, f"segmenters.{name}", segmenter)


def _check_rates(params: Params) -> None:
    """A classifier has a rate of its own where there is a backbone beside it."""
    if params.training.segmenter.head_lr != 1:
        raise Refusal(
            f"training.segmenter.head_lr is {params.training.segmenter.head_lr:g}, but fcn8s and "
            "drn26 have no classifier beside a backbone; write head_lr below "
            "training.by_network.NETWORK."
        )
    for name, changes in params.training.by_network.items():
        if changes.head_lr is not None and not backbone(name):
            raise Refusal(
                f"training.by_network.{name}.head_lr is {changes.head_lr:g}, but {name} has no "
                "classifier beside a backbone; drop the key."
            )


def _check_backbones(params: Params) -> None:
    for kind, name in params.networks.backbones.items():
        key = f"networks.backbones.{kind}"
        known(key, name, params.released)
        if params.released[name].network != kind:
            raise Refusal(
                f"{key} is {name}, but released.{name}.network is "
                f"{params.released[name].network}; it must be {kind}."
            )


def _check_deeplabv2(params: Params, key: str, fresh: bool) -> None:
    networks = params.networks_of(key.replace(".", "/"))
    net, pretrained = networks.deeplabv2, networks.backbones.get("resnet101")
    if net.norm == "group" and net.width_per_group % GROUPS:
        raise Refusal(
            f"networks.deeplabv2.width_per_group is {net.width_per_group}; norm group needs a "
            f"multiple of {GROUPS}."
        )
    full = net.layers == (3, 4, 23, 3) and net.width_per_group == 64 and net.norm != "group"
    if pretrained and fresh and not full:
        raise Refusal(
            f"{key} is to begin with networks.backbones.resnet101, but networks.deeplabv2 is not "
            "ResNet-101: set layers [3, 4, 23, 3], width_per_group 64 and norm batch or frozen, "
            "or take resnet101 out of networks.backbones."
        )
    if net.norm == "frozen" and fresh and not pretrained:
        raise Refusal(
            f"{key} is to begin from random weights, but networks.deeplabv2.norm is frozen, which "
            "needs statistics: name weights in networks.backbones.resnet101, or set norm batch or "
            "group."
        )


def _check_batch(params: Params, key: str, run: Segmenter) -> None:
    if params.learning(run.network, run).batch < 2:
        raise Refusal(
            f"{key} is {run.network}, which normalises one value an image over the batch, but "
            f"{own_key(key, run, 'segmenter', 'batch')} is 1; set it to 2 or more."
        )


def _check_switches(key: str, run: Adaptation) -> None:
    if run.cla and run.method != "feat":
        raise Refusal(
            f"{key}.cla is true, but only method feat has category-level alignment, which needs "
            f"labels and discriminators of features; {run.method} stands there."
        )
    if run.masked and run.method != "self-training":
        raise Refusal(
            f"{key}.masked is true, but masked image consistency belongs to method self-training; "
            f"{run.method} stands there."
        )
    if run.method == "self-training" and (run.on or run.classwise is not None):
        raise Refusal(
            f"{key}: on and classwise are of adda and feat; self-training has no discriminator."
        )


def _check_crops(params: Params) -> None:
    """Crops of CAG fit the images of every domain that a run with CAG reads."""
    for name, run in params.translators.items():
        members = [m for domain in (*run.sources, run.target) for m in params.members(domain)]
        for height, width in params.translating(run).cag.crops if run.cag else ():
            for domain in members:
                size = params.domains[domain].size or (height, width)
                if min(height, width) < SMALLEST or height > size[0] or width > size[1]:
                    raise Refusal(
                        f"training.translator.cag has a crop of {height}x{width}, which "
                        f"translators.{name} needs: it must be at least {SMALLEST} pixels and at "
                        f"most domains.{domain}.size, {size[0]}x{size[1]}."
                    )


def check_parts(params: Params, key: str, run: Segmenter | Translator | Adaptation) -> None:
    """Refuse parts of a batch (`accumulate`) that a run cannot have: its own, or its section's."""
    section = "translator" if isinstance(run, Translator) else "segmenter"
    own = params.translating(run) if isinstance(run, Translator) else params.learning("", run)
    where = own_key(key, run, section, "accumulate")
    parts = own.accumulate
    if isinstance(run, Adaptation) and run.method == "adda":
        if not run.accumulate:
            return
        raise Refusal(
            f"{where} is {parts}, but adda does not take its batch in parts; remove the key, and "
            "make training.adaptation.batch or crop smaller for memory."
        )
    if parts > own.batch:
        raise Refusal(
            f"{where} is {parts}, more parts than the batch has images; it must be at most "
            f"{own_key(key, run, section, 'batch')}, {own.batch}."
        )
    address = key.replace(".", "/")
    if parts > 1 and batch_normalised(params, address):
        raise Refusal(
            f"{key} is to train a {params.architecture(address)}, which normalises over a whole "
            f"batch, but {where} is {parts}; set it to 1."
        )
