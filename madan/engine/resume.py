"""Saved states of runs that are not done: whole or not there, and the one before kept.

A state is a torch file without pickled code, followed by its SHA-256, named after its run's
settings and code, its step and its process. The two newest are kept, so that one that the disk
damaged costs only the steps since the one before.
"""

import contextlib
import hashlib
import os
import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import torch

from madan.engine import distributed
from madan.errors import Refusal
from madan.shortages import naming

KEPT = 2
SUFFIX = ".pt"
_SEAL = b"\nsha256 "
_LENGTH = len(_SEAL) + 64
_BLOCK = 1 << 20


class Saved(NamedTuple):
    """A state's file and what its name says: its step, and of which process of how many it is."""

    path: Path
    step: int
    rank: int
    processes: int


class _Sealed:
    """A file that torch writes to, which counts its digest and keeps the error of a full disk."""

    def __init__(self, path: Path):
        self.file = path.open("wb")
        self.digest = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Take bytes in order, as a file does."""
        if self.error is None:
            try:
                self.file.write(data)
                self.digest.update(data)
            except OSError as error:
                self.error = error  # torch would end the process if it were raised through it.
        return len(data)

    def flush(self) -> None:
        """Do nothing: `close` writes all."""

    def close(self) -> None:
        """Seal the file and see it on the disk; OSError when it did not fit."""
        try:
            if self.error:
                raise self.error
            self.file.write(_SEAL + self.digest.hexdigest().encode())
            self.file.flush()
            os.fsync(self.file.fileno())
        finally:
            with contextlib.suppress(OSError):
                self.file.close()


def write(folder: Path, key: str, step: int, content: Mapping[str, Any]) -> None:
    """Save this process's state of a step: written, flushed to the disk, then renamed.

    The one before is kept, older ones go. OSError, with nothing left behind, on a full disk.
    """
    rank, processes = distributed.rank(), distributed.size()
    path = folder / f"{key}-step{step}-{rank}of{processes}{SUFFIX}"
    fresh = folder / f"{rank}of{processes}.new"
    try:
        sealed = _Sealed(fresh)
        try:
            torch.save(dict(content), cast(IO[bytes], sealed))
        finally:
            with naming(path):
                sealed.close()
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
    flush(folder)
    mine = [saved for saved in found(folder, key) if saved.rank == rank]
    for saved in mine[:-KEPT]:
        saved.path.unlink(missing_ok=True)


def read(folder: Path, key: str, place: torch.device) -> dict[str, Any] | None:
    """The newest whole state that every process has, or None where the run never saved one.

    Says so when a newer one is damaged. Refusal when all are, or when another number of
    processes saved them.
    """
    with distributed.together():
        there = found(folder, key)
        for saved in there:
            if saved.processes != distributed.size():
                raise Refusal(
                    f"{saved.path} was saved by {saved.processes} processes and this is a run of "
                    f"{distributed.size()}: go on with --processes {saved.processes}, or delete "
                    f"{folder}/{key}-* to train from the start."
                )
    mine = {saved.step: saved.path for saved in there if saved.rank == distributed.rank()}
    whole = [step for step, path in mine.items() if is_whole(path)]
    step = distributed.newest_common(whole)
    with distributed.together():
        if step is None and mine:
            raise Refusal(
                f"{' and '.join(str(path) for path in mine.values())} "
                f"{'is' if len(mine) == 1 else 'are'} damaged: delete {folder}/{key}-* to train "
                "from the start."
            )
    if step is None:
        return None
    for other, path in mine.items():
        if other > step:
            why = "lacks its counterparts" if other in whole else "is damaged"
            print(
                f"{path} {why}: the state of step {step} is used instead",
                file=sys.stderr,
                flush=True,
            )
            path.unlink()
    return _load(mine[step], place)


def found(folder: Path, key: str) -> list[Saved]:
    """The states of a key in a folder, by step; what their names say, not what is in them."""
    name = re.compile(re.escape(key) + r"-step(\d+)-(\d+)of(\d+)" + re.escape(SUFFIX))
    matched = [(path, name.fullmatch(path.name)) for path in folder.glob(f"*{SUFFIX}")]
    saved = [Saved(path, *map(int, match.groups())) for path, match in matched if match]
    return sorted(saved, key=lambda each: (each.step, each.rank))


def forget(folder: Path, key: str) -> None:
    """Remove the states of a key, the weights that were kept beside them, and half-written files.

    States of other keys stay: their runs may be taken up again.
    """
    weights = [path for path in folder.glob("*.safetensors") if path.name.startswith(f"{key}-step")]
    for path in [*(saved.path for saved in found(folder, key)), *weights, *folder.glob("*.new")]:
        path.unlink(missing_ok=True)


def is_whole(path: Path) -> bool:
    """Whether a state ends with the digest of all that stands before it."""
    length = path.stat().st_size - _LENGTH
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while length > 0 and (block := file.read(min(_BLOCK, length))):
            digest.update(block)
            length -= len(block)
        return length == 0 and file.read() == _SEAL + digest.hexdigest().encode()


def flush(path: Path) -> None:
    """See a file, or the names in a folder, on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _load(path: Path, place: torch.device) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location=place, weights_only=True)
    except (RuntimeError, EOFError, OSError, ValueError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Refusal(f"{path} is damaged ({reason}): delete it to train from the start.") from None
    if not isinstance(state, dict):
        raise Refusal(f"{path} is no saved state: delete it to train from the start.")
    return state
