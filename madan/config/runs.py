"""What a run stands on: the runs that it needs, what may be stylised and by what."""

from collections.abc import Sequence
from typing import cast

from madan.config.network_settings import BACKBONES, Backbone
from madan.config.overrides import changed
from madan.config.schema import Adaptation, Params, Segmenter, Translator, started
from madan.errors import Refusal, allowed, known


def needs(params: Params, address: str) -> list[str]:
    """Addresses `kind/run` of the runs that a run starts from, learns from or is judged by."""
    kind, name = address.split("/")
    if kind == "released":
        return []
    run = params.run(kind, name)
    if isinstance(run, Translator):
        fresh = pretrained(params, address) if run.task and not run.task.start else None
        task = run.task.start if run.task else None
        segmenters = [params.judge(s) for s in (*run.judges.values(), task, fresh) if s]
        return [f"translators/{s}" for s in run.start] + segmenters
    names = [item.split("/")[0].partition("@")[0] for item in run.train_on if "/" in item]
    begin = [*started(run), pretrained(params, address)][0]
    return [params.translator(name) for name in names] + ([begin] if begin else [])


def learnt_from(params: Params) -> dict[str, str]:
    """Return the datasets whose labels a run learns from, each with the key of the first such run.

    An oracle does not count: it learns from the labels of a target, which a target need not have.
    """
    found: dict[str, str] = {}
    sets = {f"translators.{name}.sources": run.sources for name, run in params.translators.items()}
    supervised = {n: run for n, run in params.segmenters.items() if not run.oracle}
    sets |= {f"segmenters.{name}.train_on": run.train_on for name, run in supervised.items()}
    sets |= {
        f"adaptations.{name}.train_on": run.train_on for name, run in params.adaptations.items()
    }
    for key, items in sets.items():
        for item in items:
            for member in params.members(item.rpartition("/")[2]):
                found.setdefault(member, key)
    return found


def pretrained(params: Params, address: str) -> str | None:
    """Address of the weights trained on ImageNet that a segmenter begins with, if any."""
    kind = params.architecture(address)
    own = {} if address.startswith("released/") else params.run(*address.split("/")).networks
    networks = changed(params.networks, own)
    begin = networks.segmenter.pretrained if kind == "fcn8s" else None
    if name := backbone(kind):
        begin = networks.backbones.get(name)
    return f"released/{begin}" if begin else None


def backbone(architecture: str) -> Backbone | None:
    """The backbone of a segmenter of this architecture; None where it has none of torchvision's."""
    after = "-" if architecture.startswith("deeplabv2") else "_"
    name = architecture.partition(after)[2]
    return cast(Backbone, name) if name in BACKBONES else None


def batch_normalised(params: Params, address: str) -> bool:
    """Whether the segmenter of a run normalises over its batch, which then is not to be parted."""
    kind = params.architecture(address)
    if kind == "deeplabv2-resnet101":
        return params.networks_of(address).deeplabv2.norm == "batch"
    return kind == "drn26" or kind.startswith("torchvision/")


def stylable(params: Params, key: str, word: str) -> list[str]:
    """Domains that a translator has generators for, or a released generator, which takes any."""
    if word not in params.released:
        return translator(params, key, word).sources
    check_kind(params, key, word, ("generator",))
    return list(params.domains)


def translator(params: Params, key: str, word: str) -> Translator:
    """The translator that a key names as `run`, or `run@step` for its generators of that step.

    Refusal when there is none, or when it does not keep that step.
    """
    name, at, step = word.partition("@")
    known(key, name, params.translators)
    run = params.translators[name]
    if at and step not in map(str, run.keep):
        raise Refusal(
            f"{key} names {word}, and translators.{name}.keep has no step {step}; "
            f"{allowed(step, [str(each) for each in run.keep])}."
        )
    return run


def check_kind(
    params: Params, key: str, name: str, wanted: Sequence[str] = ("fcn8s", "drn26")
) -> None:
    """Refusal when released weights are of another network than may stand there."""
    network = params.released[name].network
    if network not in wanted:
        raise Refusal(f"{key}: released.{name} is {network}; {' or '.join(wanted)} belongs there.")


def own_key(key: str, run: Segmenter | Translator | Adaptation, section: str, name: str) -> str:
    """Return the path of the key that gives a run a value of a section of `training`."""
    if getattr(run, name, None):
        return f"{key}.{name}"
    own = name in run.training.get(section, {})
    return f"{key}.training.{section}.{name}" if own else f"training.{section}.{name}"
