"""Checks of params.yaml for targets and labels: what may be a target, who needs labels."""

from madan.config.data_settings import Layout
from madan.config.schema import Params
from madan.errors import Refusal, known


def check_no_meaning(key: str, layout: Layout) -> None:
    """A layout without labels says nothing about the values of labels."""
    for word in ("ids", "colours", "ignore", "otherwise", "regions"):
        if getattr(layout, word):
            raise Refusal(f"{key} has `labels: null` and also {word}, which labels have; drop one.")


def check_labelled(params: Params, key: str, domain: str) -> None:
    """Refuse a domain without labels where a run learns from labels."""
    if bare := params.has_no_labels(domain):
        raise Refusal(
            f"{key} names {domain}, but {', '.join(bare)} has no labels (`labels: null` in its "
            "layout); a domain without labels can only be a target."
        )


def check_target(params: Params, key: str, target: str) -> None:
    """Refuse a target that params.yaml does not have, or a union of datasets of several sizes."""
    known(key, target, params.domains)
    sizes = {name: params.domains[name].size for name in params.members(target)}
    if len(set(sizes.values())) > 1:
        found = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise Refusal(
            f"{key} is {target}, a union whose datasets have different sizes ({found}); give them "
            "one `size` in domains, since a target is trained on and scored as one."
        )
