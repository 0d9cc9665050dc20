"""Refusal: what a person has to mend, as one sentence, and sentences about unknown names."""

import difflib
from typing import Any


class Refusal(Exception):
    """What a person has to mend, as one sentence; commands end with it and exit code 1."""


def allowed(word: str, names: Any) -> str:
    """Return what a key may name, and which of these names comes closest to the word."""
    close = difflib.get_close_matches(word, list(names), n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"{hint}allowed: {', '.join(names) or 'none'}"


def known(key: str, word: str, names: Any) -> None:
    """Raise Refusal if a key names something that is not among these names."""
    if word not in names:
        raise Refusal(f"{key} names {word}, which is unknown; {allowed(word, names)}.")
