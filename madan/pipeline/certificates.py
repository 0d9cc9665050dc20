"""Certificates: the file by which a finished artefact says what it is and how it was made.

A certificate holds the address, a digest of the files (`content`) and their number, the settings,
the digests of the code by module, the content of each input by role and name, and a digest of the
prepared data behind the artefact.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from madan.files import write_whole

# The content of each input, by role, by the name in params.yaml, by address.
Inputs = dict[str, dict[str, dict[str, str]]]


@dataclass(frozen=True)
class Certificate:
    """What a finished artefact says of itself."""

    artefact: str
    content: str
    files: int
    settings: dict[str, Any]
    code: dict[str, str]
    inputs: Inputs
    data: str
    accepted: dict[str, str] = field(default_factory=dict)
    """The code that really made it, by module, where a person accepted a change of code."""


def read(path: Path) -> Certificate | None:
    """Return a certificate; None if there is none or it cannot be read as one."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        certificate = Certificate(**stored)
    except (OSError, ValueError, TypeError):
        return None
    texts = certificate.artefact, certificate.content, certificate.data
    whole = all(isinstance(text, str) for text in texts) and isinstance(certificate.files, int)
    parts = certificate.settings, certificate.code, certificate.inputs, certificate.accepted
    return certificate if whole and all(isinstance(part, dict) for part in parts) else None


def write(path: Path, certificate: Certificate) -> None:
    """Write a certificate so that it appears whole or not at all."""
    stored = {
        key: value for key, value in asdict(certificate).items() if value or key != "accepted"
    }
    write_whole(path, json.dumps(stored, indent=1) + "\n")


def plain(value: Any) -> Any:
    """Return settings as JSON stores them, so that they can be compared with stored ones."""
    return json.loads(json.dumps(value))
