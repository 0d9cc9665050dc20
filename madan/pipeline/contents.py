"""Whether the files of an artefact are those that its certificate was written for.

What was found right is remembered with the size, times and inode of each file, so that files that
look unchanged are not read again.
"""

import contextlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path

from madan.config.schema import Params
from madan.files import digest_files, fingerprint, take_lock, write_whole
from madan.pipeline.artefacts import Artefact
from madan.pipeline.certificates import Certificate

MEMORY = Path("state/contents")


def remember(artefact: Artefact, params: Params, certificate: Certificate) -> None:
    """Remember that the files of an artefact were just certified."""
    with contextlib.suppress(OSError):  # Who may only read reads them again each time.
        write_whole(_memory(artefact, params), _state(artefact, params, certificate))


def damaged(
    artefact: Artefact, params: Params, certificate: Certificate, unseen: bool
) -> list[Path]:
    """Return the files of an artefact that changed since it was certified; none if none did.

    Files that were never looked at on this machine are only read if `unseen`; if their bytes are
    not the certified ones, which of them changed is not known, and all are returned.
    """
    memory, files = _memory(artefact, params), artefact.files(params)
    state = _state(artefact, params, certificate)
    stored = memory.read_text() if memory.exists() else None
    if stored == state or (stored is None and not unseen):
        return []
    if digest_files(files, artefact.folder(params)) == certificate.content:
        remember(artefact, params, certificate)
        return []
    with contextlib.suppress(ValueError, TypeError):
        before = json.loads(stored or "")[1]
        changed = [path for path in files if fingerprint(path) not in before]
        return changed or files
    return files


@contextlib.contextmanager
def one_reader(artefact: Artefact, params: Params) -> Iterator[None]:
    """Let one job read the files of an artefact; others wait for what it remembers."""
    lock = _memory(artefact, params).with_suffix(".lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as held:
        take_lock(held.fileno(), lock, wait=True)
        yield


def _memory(artefact: Artefact, params: Params) -> Path:
    return MEMORY / platform.node() / artefact.certificate(params)


def _state(artefact: Artefact, params: Params, certificate: Certificate) -> str:
    """What changes if a file or the certificate changes."""
    files = [fingerprint(path) for path in artefact.files(params)]
    return json.dumps([certificate.content, files])
