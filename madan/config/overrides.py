"""Sections of params.yaml with the keys that a scale or a run changes."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import ValidationError

from madan.config.keys import Model
from madan.config.sentences import sentence
from madan.errors import Refusal

M = TypeVar("M", bound=Model)


def merge(base: Any, other: Any) -> Any:
    """Return `base` with the values of `other`, mapping by mapping; all else is replaced."""
    if not (isinstance(base, Mapping) and isinstance(other, Mapping)):
        return other
    merged = dict(base)
    for key, value in other.items():
        merged[key] = merge(base[key], value) if key in base else value
    return merged


def changed(section: M, changes: Mapping[str, Any], key: str = "") -> M:
    """Return a section with changes, of the same types.

    Raises Refusal if a changed section is not valid; `key` is the path of the changes.
    """
    if not changes:
        return section
    try:
        return type(section).model_validate(merge(section.model_dump(), changes))
    except ValidationError as error:
        raise Refusal(sentence(error, type(section), key)) from None
