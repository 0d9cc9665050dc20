"""Raw datasets as inputs: a digest of the names and bytes of all files that a split is made from.

A file is read once on a machine and again only if its size or its times changed.
"""

import contextlib
import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from pathlib import Path

from madan.config.data_settings import Dataset
from madan.config.loading import digest
from madan.data import layouts
from madan.files import fingerprint, write_whole

MEMORY = Path("state/raw")
MANY = 1000  # files; reading so many takes long enough to say so


def content(dataset: Dataset, where: str, known: Mapping[Path, str] | None = None) -> str:
    """Digest the raw files of a split, called DOMAIN/SPLIT in `where`.

    `known` gives the digests of files that were just read.
    """
    memory = MEMORY / platform.node() / f"{where}.json"
    known, stored = known or {}, _stored(memory)
    paths = layouts.raw_files(dataset, where.rpartition("/")[2])
    states: dict[Path, list] = {}
    for path in paths:
        with contextlib.suppress(OSError):  # A dead link has a name and no bytes.
            states[path] = fingerprint(path)[1:]
    new = {path for path in states if path in known or _state(stored, path) != states[path]}
    if len(new - known.keys()) >= MANY:
        print(f"{where}: {len(new)} new or changed raw files are read", file=sys.stderr)
    sums = {
        path: (known.get(path) or _sha256(path)) if path in new else stored[str(path)][1]
        for path in states
    }
    if new or len(states) != len(stored):
        text = json.dumps({str(path): [state, sums[path]] for path, state in states.items()})
        with contextlib.suppress(OSError):
            write_whole(memory, text)
    return digest([[str(path.relative_to(dataset.root)), sums.get(path, "")] for path in paths])


def keep(where: str) -> None:
    """Keep the digests of the raw files of a split as they are verified now."""
    memory = MEMORY / platform.node() / f"{where}.json"
    with contextlib.suppress(OSError):
        write_whole(memory.with_suffix(".verified.json"), memory.read_text())


def changed(where: str) -> list[str]:
    """Return the raw files that are other ones than when they were verified, as far as known."""
    memory = MEMORY / platform.node() / f"{where}.json"
    before, now = _stored(memory.with_suffix(".verified.json")), _stored(memory)
    names = sorted(before.keys() | now.keys()) if before else []
    return [name for name in names if before.get(name, [0])[-1] != now.get(name, [0])[-1]]


def _state(stored: Mapping[str, list], path: Path) -> object:
    return stored.get(str(path), [None])[0]


def _stored(memory: Path) -> dict[str, list]:
    try:
        return dict(json.loads(memory.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:16]
