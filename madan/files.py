"""Files and folders that appear whole or not at all, their digests, and locks between processes."""

import contextlib
import errno
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

from madan.errors import Refusal
from madan.shortages import naming

NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS}


def write_whole(path: Path, text: str) -> None:
    """Write a text file so that it appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    try:
        with naming(path):
            fresh.write_text(text, encoding="utf-8")
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise


def real_place(folder: Path) -> Path:
    """Return the path of a folder; of a link, such as one to another disk, where it leads."""
    return folder.resolve() if folder.is_symlink() else folder


def replace_folder(fresh: Path, folder: Path) -> None:
    """Rename `fresh` to `folder`, which is no link, and remove what was there before.

    What was there before is put back if the file system refuses the new name.
    """
    old = folder.with_name(f".{folder.name}.old")
    remove(old)
    before = folder.exists()
    if before:
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if before:
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def remove(folder: Path) -> None:
    """Remove a folder of madan's if it is there; OSError if it cannot be removed."""
    if os.path.lexists(folder):
        shutil.rmtree(folder)


def not_in_the_future(path: Path) -> None:
    """Set the time of a file to now if a wrong clock gave it one that is still to come."""
    with contextlib.suppress(OSError):
        if path.stat().st_mtime > time.time():
            os.utime(path)


def flush(folder: Path) -> None:
    """Write a folder, its files and its name to the disk before returning."""
    for path in [*folder.rglob("*"), folder, folder.parent]:
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def lock_of(path: Path) -> Path:
    """Return the file whose lock a process holds while it makes a folder or file.

    It is a hidden file beside the folder, so that all clones that share the folder see it.
    """
    place = real_place(path)
    return place.with_name(f".{place.name}.lock")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of a folder or file while it is made; Refusal if another process holds it."""
    lock = lock_of(path)
    busy = f"{path} is being made by another process, which holds {lock}; wait for it or stop it."
    while True:
        held = hold(lock, busy)
        if _is_at(held, lock):
            break
        held.close()  # The process before removed the file after it was opened here.
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        held.close()


def hold(lock: Path, otherwise: str) -> Any:
    """Lock a file until this process ends and return the open file; Refusal if another holds it."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    held = lock.open("w")
    if not take_lock(held.fileno(), lock):
        held.close()
        raise Refusal(otherwise)
    return held


def take_lock(number: int, path: Path, wait: bool = False) -> bool:
    """Take the kernel's lock on an open file; return False if another process holds it.

    With `wait`, wait for it. Refusal on a file system that has no locks.
    """
    try:
        fcntl.flock(number, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        raise Refusal(
            f"{path.parent} is on a file system without file locks ({error.strerror}), so jobs "
            "could not see each other: put that folder on another file system, or have this one "
            "mounted with locks."
        ) from None
    return True


def _is_at(opened: Any, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(opened.fileno()), path.stat())
    except FileNotFoundError:
        return False


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
