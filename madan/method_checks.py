"""Checks of params.yaml for MADAN+ and self-training: switches that fit, crops that fit."""

from madan.schema import Adaptation, Params, Refusal

SMALLEST = 16  # pixels that networks need


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
        for height, width in params.training.translator.cag.crops if run.cag else ():
            for domain in members:
                size = params.domains[domain].size or (height, width)
                if min(height, width) < SMALLEST or height > size[0] or width > size[1]:
                    raise Refusal(
                        f"training.translator.cag has a crop of {height}x{width}, which "
                        f"translators.{name} needs: it must be at least {SMALLEST} pixels and at "
                        f"most domains.{domain}.size, {size[0]}x{size[1]}."
                    )
