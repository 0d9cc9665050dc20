"""Files and folders that appear whole or not at all, their digests, and locks between processes."""

import contextlib
import fcntl
import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from madan.schema import Refusal


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.write_text(text, encoding="utf-8")
    os.replace(fresh, path)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder` and remove what was there before."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def not_in_the_future(path: Path) -> None:
    """Set the time of a file to now if a wrong clock gave it one that is still to come."""
    with contextlib.suppress(OSError):
        if path.stat().st_mtime > time.time():
            os.utime(path)


def not_older(path: Path, moment: int) -> None:
    """Set the time of a file to a moment, in ns, if it is older."""
    with contextlib.suppress(OSError):
        if path.stat().st_mtime_ns < moment:
            os.utime(path, ns=(moment, moment))


def flush(folder: Path) -> None:
    """Write a folder, its files and its name to the disk before returning."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextlib.contextmanager
def locked(lock: Path, folder: Path) -> Iterator[None]:
    """Hold the kernel's lock on a file while a folder is made; Refusal if another holds it."""
    busy = f"{folder} is being made by another process, which holds {lock}; wait for it or stop it."
    with hold(lock, busy):
        yield


def hold(lock: Path, otherwise: str) -> Any:
    """Lock a file until this process ends and return the open file; Refusal if another holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = lock.open("w")
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Refusal(otherwise) from None
    return held


def digest_files(files: Iterable[Path], folder: Path) -> str:
    """Digest the names (relative to a folder) and the bytes of files, in the order given."""
    total = hashlib.sha256()
    for path in files:
        with path.open("rb") as stream:
            content = hashlib.file_digest(stream, "sha256").hexdigest()
        total.update(f"{path.relative_to(folder)} {content}".encode())
    return total.hexdigest()[:16]


def sha256(path: Path, memory: Path) -> str | None:
    """Digest a file, None if it does not exist; it is read again only if it looks changed."""

    def read() -> str:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    return remembered(memory, [path.absolute()], read) if path.is_file() else None


def remembered(memory: Path, files: Iterable[Path], compute: Callable[[], str]) -> str:
    """Return what `compute` gives for files, computed again only if a file or Python changed."""
    state = [platform.python_version(), *map(fingerprint, files)]
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        stored = json.loads(memory.read_text())
        if stored["files"] == state:
            return str(stored["result"])
    result = compute()
    with contextlib.suppress(OSError):  # A read-only folder only costs the time to compute again.
        write_whole(memory, json.dumps({"files": state, "result": result}))
    return result


def fingerprint(path: Path) -> list[Any]:
    """Return what changes if somebody writes to a file or replaces it: size, times, inode."""
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
