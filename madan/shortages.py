"""Errors of the machine, such as a full disk, as sentences that say how to mend them."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path

REMEDIES = {
    errno.ENOSPC: "free some space on that disk",
    errno.EDQUOT: "free some space, or have the quota raised",
    errno.EFBIG: "raise the limit of `ulimit -f`, or use a file system that allows larger files",
    errno.EROFS: "use a folder on a file system that can be written",
    errno.EACCES: "change the permissions, or use another folder",
    errno.EPERM: "change the permissions, or use another folder",
    errno.EMFILE: "raise the limit of `ulimit -n`",
    errno.ENFILE: "end other programs of this machine",
    errno.ENOMEM: "free some memory",
}
MEMORY = re.compile(r"allocate memory|Insufficient memory|bad_alloc|not enough memory")


def sentence(error: BaseException) -> str | None:
    """Describe what the machine lacks and how to mend it; None for any other error.

    Every OSError is described, with the name of its file where it has one.
    """
    if isinstance(error, OSError) and error.errno != errno.ENOMEM:
        where = f"{error.filename}: " if error.filename else ""
        text = f"{where}{error.strerror or error}"
        remedy = REMEDIES.get(error.errno or 0)
        return f"{text}: {remedy}, then run the command again." if remedy else f"{text}."
    if isinstance(error, MemoryError | OSError) or lacks_memory(error):
        return (
            "this command needs more memory than there is: end other programs, run fewer jobs at "
            "a time (snakemake --cores 1), or make the batch or the images smaller in params.yaml, "
            "then run the command again."
        )
    return None


def lacks_memory(error: BaseException) -> bool:
    """Whether an error of a library, such as torch or OpenCV, says that memory ran out."""
    return isinstance(error, Exception) and bool(MEMORY.search(str(error)[:2000]))


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an OSError that names no file, such as of a write to a full disk, the name of one."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def of_libraries(path: Path) -> Iterator[None]:
    """Turn an error of a library written in another language into the OSError behind it.

    Such libraries give the number of the system's error in their text.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        found = re.search(r"os error (\d+)|unable to (?:open|mmap).* \((\d+)\)", str(error), re.S)
        if not found:
            raise
        number = int(found[1] or found[2])
        raise OSError(number, os.strerror(number), str(path)) from None
