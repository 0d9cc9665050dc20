"""Which GPU a job gets: a lease on one that no other job of this project uses.

A lease is the kernel's lock on a file below state/leases, so that of a process that died is free by
itself. It is taken before CUDA starts, by setting CUDA_VISIBLE_DEVICES. Without GPUs nothing
happens.
"""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import NamedTuple

from madan.files import take_lock
from madan.schema import Refusal

LEASES = Path("state/leases")
VISIBLE, SHARE, PRETEND = "CUDA_VISIBLE_DEVICES", "MADAN_GPU_SHARE", "MADAN_GPUS"


class Lease(NamedTuple):
    """GPUs as CUDA_VISIBLE_DEVICES names them, and the open locks (file numbers) on them."""

    gpus: tuple[str, ...]
    locks: tuple[int, ...]

    def give_back(self) -> None:
        """Free the GPUs; the end of the process does so too."""
        for lock in self.locks:
            os.close(lock)


def lease(
    count: int = 1,
    folder: Path = LEASES,
    environment: MutableMapping[str, str] = os.environ,
    pause: float = 0.5,
) -> Lease:
    """Wait for `count` GPUs that are free, show only them to this process, and hold them.

    Only those of an existing CUDA_VISIBLE_DEVICES count. MADAN_GPU_SHARE=n lets n jobs use a GPU
    together. A Slurm job that sees no more GPUs than it needs has them for itself already.
    Refusal when there are GPUs, but fewer than asked for.
    """
    visible = available(environment)
    if not visible or ("SLURM_JOB_ID" in environment and len(visible) <= count):
        return Lease((), ())
    if len(visible) < count:
        raise Refusal(
            f"{count} GPUs are asked for and {len(visible)} can be seen ({', '.join(visible)}); "
            "ask for fewer."
        )
    folder = folder / "-".join([platform.node(), *_job(environment)])
    folder.mkdir(parents=True, exist_ok=True)
    told = False
    while (found := _take(folder, visible, count, _share(environment))) is None:
        if not told:
            print(f"waiting for {count} free of the GPUs {', '.join(visible)}", flush=True)
            told = True
        time.sleep(pause)
    environment[VISIBLE] = ",".join(found.gpus)
    return found


def available(environment: MutableMapping[str, str] = os.environ) -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    if VISIBLE in environment:
        names = [name.strip() for name in environment[VISIBLE].split(",")]
        # CUDA itself stops reading at the first name that is no device.
        first = next((k for k, name in enumerate(names) if name in ("", "-1")), len(names))
        return names[:first]
    if PRETEND in environment:
        return [str(k) for k in range(_number(environment, PRETEND, 0))]
    if shutil.which("nvidia-smi") is None:
        return []
    # Not torch: asking it would start CUDA, which then no longer reads the variable.
    said = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout
    return [str(k) for k, _ in enumerate(line for line in said.splitlines() if line[:4] == "GPU ")]


def _take(folder: Path, visible: list[str], count: int, share: int) -> Lease | None:
    """Locks on `count` different GPUs, the least shared first, or none at all."""
    held: dict[str, int] = {}
    for place in range(share):
        for gpu in visible:
            if len(held) < count and gpu not in held:
                lock = _lock(folder / f"gpu{gpu.replace('/', '_')}-{place}")
                if lock is not None:
                    held[gpu] = lock
    if len(held) == count:
        return Lease(tuple(held), tuple(held.values()))
    # Holding some while waiting for more could make two jobs wait for each other.
    Lease((), tuple(held.values())).give_back()
    return None


def _lock(path: Path) -> int | None:
    """An open file with the kernel's lock on it, or None when another process has that."""
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if take_lock(number, path):
        return number
    os.close(number)
    return None


def _share(environment: MutableMapping[str, str]) -> int:
    return max(1, _number(environment, SHARE, 1))


def _job(environment: MutableMapping[str, str]) -> list[str]:
    """In an allocation with several GPUs these are numbered anew: its leases are its own."""
    return [environment["SLURM_JOB_ID"]] if "SLURM_JOB_ID" in environment else []


def _number(environment: MutableMapping[str, str], name: str, otherwise: int) -> int:
    try:
        return int(environment.get(name, otherwise))
    except ValueError:
        raise Refusal(f"{name} is {environment[name]}; it must be a whole number.") from None
