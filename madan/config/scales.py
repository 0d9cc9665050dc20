"""The scales of params.yaml: what a scale, and the one that it stands on, say otherwise."""

from collections.abc import Mapping
from typing import Any

from madan.config.overrides import merge
from madan.errors import Refusal, allowed

# Sections of named entries, from which `null` at a scale takes an entry away.
NAMED = (
    "domains", "segmenters", "translators", "adaptations", "released", "layouts", "tables",
    "figures",
)  # fmt: skip


def at_scale(raw: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return params.yaml with the values of its scale, and that scale with those it stands on.

    Raises Refusal if there is no such scale, if scales stand on each other in a circle, and if the
    file has the form of earlier versions.
    """
    if "paper" in raw:
        raise Refusal(
            "paper is a key of earlier versions; add `scales: {miniature: {}, paper: {}}`, move "
            "the key miniature with its contents into scales.miniature, and move what is under "
            "paper into scales.paper."
        )
    scales, scale = raw.get("scales"), raw.get("scale")
    if not isinstance(scales, Mapping) or not scales:
        raise Refusal(
            f"scales is {scales!r}; it must be a mapping from the name of each scale to what that "
            "scale says otherwise, such as scales: {miniature: {}, paper: {}}."
        )
    names = list(scales)
    if odd := [name for name in names if not isinstance(name, str)]:
        raise Refusal(f"scales has the name {odd[0]!r}, which is no text; write it in quotes.")
    if scale not in names:
        raise Refusal(f"scale is {scale!r}, which scales does not have; {_near(scale, names)}.")
    lineage = _lineage(scales, str(scale))
    found: Any = {key: value for key, value in raw.items() if key != "scales"}
    for name in reversed(lineage):
        own = {key: value for key, value in (scales[name] or {}).items() if key != "base"}
        if wrong := [key for key in ("scale", "scales") if key in own]:
            raise Refusal(f"scales.{name}.{wrong[0]} has no place there; remove the key.")
        found = merge(found, own)
    present = {key: _present(found[key]) for key in NAMED if key in found}
    return {**found, **present, "scales": dict.fromkeys(names, {})}, lineage


def _lineage(scales: Mapping[Any, Any], scale: str) -> list[str]:
    """The scale, the one that it stands on, and so on."""
    lineage = [scale]
    while True:
        section = scales[lineage[-1]]
        if section is not None and not isinstance(section, Mapping):
            raise Refusal(f"scales.{lineage[-1]} is {section!r}; it must be a mapping.")
        base = (section or {}).get("base")
        if base is None:
            return lineage
        key, names = f"scales.{lineage[-1]}.base", list(scales)
        if base not in names:
            raise Refusal(f"{key} is {base!r}, which scales does not have; {_near(base, names)}.")
        if base in lineage:
            circle = " -> ".join([*lineage, base])
            raise Refusal(f"{key}: scales stand on each other: {circle}; remove one `base`.")
        lineage.append(base)


def _near(word: Any, names: list[str]) -> str:
    return allowed(str(word), names)


def _present(entries: Any) -> Any:
    """A section of named entries without those that are null."""
    if not isinstance(entries, Mapping):
        return entries
    return {name: entry for name, entry in entries.items() if entry is not None}
