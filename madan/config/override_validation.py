"""Checks of `training` and `networks` of a run: they obey what the sections themselves obey."""

from collections.abc import Mapping
from typing import Any

from madan.config.method_validation import check_methods
from madan.config.overrides import changed
from madan.config.runs import backbone
from madan.config.schema import (
    GENERATING,
    SEGMENTING,
    WITH_TASK,
    Adaptation,
    Params,
    Segmenter,
    Translator,
    started,
)
from madan.config.size_validation import check_pretrained, check_sizes
from madan.errors import Refusal, known

Run = Segmenter | Translator | Adaptation
# Keys of a run that are also keys of a section.
TWICE = ("steps", "accumulate", "weight", "on", "classwise")


def check_overrides(params: Params) -> None:
    """Refuse keys of a run's `training` and `networks` that do not exist or have no effect."""
    for kind in ("translators", "segmenters", "adaptations"):
        for name, run in getattr(params, kind).items():
            if run.training or run.networks:
                _check_keys(params, f"{kind}.{name}", run)
                _check_section_rules(params, kind, name, run)


def check_starts(params: Params) -> None:
    """Refuse a translator that goes on from translators with networks of different sizes."""
    for name, run in params.translators.items():
        sizes = {other: params.networks_of(f"translators/{other}") for other in run.start}
        for section in GENERATING:
            for other, networks in sizes.items():
                first = run.start[0]
                if getattr(networks, section) != getattr(sizes[first], section):
                    raise Refusal(
                        f"translators.{name}.start: networks.{section} of {other} is not that of "
                        f"{first}; give both the same sizes."
                    )


def _check_keys(params: Params, key: str, run: Run) -> None:
    sections = _training_read(run)
    for section, keys in run.training.items():
        known(f"{key}.training", section, sections)
        changed(getattr(params.training, section), keys, f"{key}.training.{section}")
        read = sections[section]
        for name in keys:
            if read and name not in read:
                raise Refusal(
                    f"{key}.training.{section}.{name} has no effect: of training.{section} this "
                    f"run reads {', '.join(read)}; remove the key."
                )
            if name in TWICE and getattr(run, name, None) is not None:
                raise Refusal(
                    f"{key} has both {name} and training.{section}.{name}; keep one of the two."
                )
        if isinstance(run, Translator) and "task_lr" in keys and run.task and run.task.lr:
            raise Refusal(
                f"{key} has both task.lr and training.translator.task_lr; keep one of the two."
            )
    _check_networks(params, key, run)


def _training_read(run: Run) -> Mapping[str, tuple[str, ...]]:
    """The sections of `training` that a run reads, and of them the keys; no keys: all."""
    if isinstance(run, Translator):
        return {"translator": ()}
    if isinstance(run, Segmenter):
        return {"segmenter": ()}
    if run.method == "adda":
        return {"adaptation": ()}
    more: dict[str, tuple[str, ...]] = {"mdan": ()} if run.method == "mdan" else {}
    if run.method == "self-training":
        more = {"self_training": ()}
    if run.method == "feat":
        more = {"adaptation": WITH_TASK} | ({"cla": ()} if run.cla else {})
    return {"segmenter": (), **more}


def _check_networks(params: Params, key: str, run: Run) -> None:
    """Sizes belong to the run whose weights are fresh; who goes on from it has the same."""
    fresh, goes_on = _fresh(run)
    for section, sizes in run.networks.items():
        if section in goes_on:
            raise Refusal(
                f"{key}.networks.{section} has no effect: {key} goes on from other weights and "
                "has the sizes of that run; change them there."
            )
        known(f"{key}.networks", section, fresh)
        if section != "backbones":
            path = f"{key}.networks.{section}"
            changed(getattr(params.networks, section), sizes, path)
    changed(params.networks, run.networks, f"{key}.networks")


def _fresh(run: Run) -> tuple[list[str], list[str]]:
    """Sections of `networks` of a run's fresh networks, and of those that go on."""
    if isinstance(run, Translator):
        generating = list(GENERATING)
        task = [SEGMENTING["fcn8s"]] if run.task else []
        fresh = ([] if run.start else generating) + ([] if run.task and run.task.start else task)
        return fresh, [each for each in (*generating, *task) if each not in fresh]
    network = run.network if isinstance(run, Segmenter) else "fcn8s"
    of_f = [SEGMENTING[network]] if network in SEGMENTING else []
    if backbone(network):
        of_f.append("backbones")
    heads = []
    if isinstance(run, Adaptation) and run.method in ("adda", "feat"):
        heads = ["feature_discriminator"]
    if isinstance(run, Adaptation) and run.method == "mdan":
        heads = ["source_discriminators"]
    return (heads, of_f) if started(run) else (heads + of_f, [])


def _check_section_rules(params: Params, kind: str, name: str, run: Run) -> None:
    """Hold the sections as this run has them against the rules for the sections themselves."""
    sections: dict[str, Any] = {
        section: changed(getattr(params.training, section), keys)
        for section, keys in run.training.items()
    }
    if isinstance(run, Segmenter) and backbone(run.network) and "segmenter" in sections:
        # The rate of a classifier belongs to a run with a backbone; the rule is for the section.
        sections["segmenter"] = sections["segmenter"].model_copy(update={"head_lr": 1})
    only: dict[str, Any] = {"segmenters": {}, "translators": {}, "adaptations": {}}
    if not (isinstance(run, Segmenter) and started(run)):  # The sizes are those of its start.
        only[kind] = {name: run.model_copy(update={"training": {}, "networks": {}})}
    view = params.model_copy(
        update=only
        | {
            "training": params.training.model_copy(update=sections),
            "networks": changed(params.networks, run.networks),
        }
    )
    try:
        for check in (check_sizes, check_methods, check_pretrained):
            check(view)
    except Refusal as refusal:
        said = str(refusal)
        path = said.startswith(("training.", "networks."))
        raise Refusal(f"{kind}.{name}{'.' if path else ': '}{said}") from None
