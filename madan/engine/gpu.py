"""Which GPU a job gets: a lease on one that no other job of this project uses.

A lease is the kernel's lock on a file below state/leases, so that of a process that died is free by
itself. It is taken before CUDA starts, by setting CUDA_VISIBLE_DEVICES. Without GPUs nothing
happens. Where there is a GPU and torch cannot use it, the job is refused.
"""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import MutableMapping
from pathlib import Path
from typing import NamedTuple

from madan.errors import Refusal
from madan.files import take_lock

LEASES = Path("state/leases")
VISIBLE, SHARE, PRETEND = "CUDA_VISIBLE_DEVICES", "MADAN_GPU_SHARE", "MADAN_GPUS"
ALLOW_CPU = "MADAN_ALLOW_CPU"
CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
DETERMINISTIC = (":4096:8", ":16:8")  # cuBLAS documentation, Results Reproducibility
# Oldest driver of each CUDA version: CUDA Toolkit release notes, minor version compatibility.
OLDEST_DRIVER = {"11": 450, "12": 525, "13": 580}


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
    while (found := _take(folder, visible, count, jobs_per_gpu(environment))) is None:
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


def require_cuda(asked: int = 0, environment: MutableMapping[str, str] = os.environ) -> None:
    """Refuse to compute on the CPU where a GPU is visible or asked for and torch cannot use one.

    `asked` is the number of GPUs that params.yaml asks for. MADAN_ALLOW_CPU=1 allows it.
    """
    import torch

    visible = available(environment)
    if not (visible or asked) or environment.get(ALLOW_CPU, "") not in ("", "0"):
        return
    if torch.cuda.is_available():
        return
    if visible:
        seen = f"this machine has a GPU ({', '.join(visible)})"
    else:
        seen = f"resources in params.yaml ask for {asked} GPU{'s' * (asked > 1)}"
    raise Refusal(
        f"{seen}, but torch cannot use one: {_why_not()}. Mend that, "
        f"or set {ALLOW_CPU}=1 to compute on the CPU, which takes many times longer."
    )


def describe() -> dict[str, str]:
    """Return name, driver, CUDA and cuDNN of the GPU that this process uses; empty without one."""
    import torch

    if not torch.cuda.is_available():
        return {}
    return {
        "name": torch.cuda.get_device_name(),
        "driver": driver() or "unknown",
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
    }


def driver() -> str | None:
    """Return the version of the NVIDIA driver as nvidia-smi prints it; None if it cannot."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True)
    first = done.stdout.strip().splitlines()[:1]
    return first[0].strip() if first and done.returncode == 0 else None


def fix_cublas(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make cuBLAS deterministic, which it reads from the environment when CUDA starts.

    Refusal when the variable has a value with which it is not.
    """
    if environment.setdefault(CUBLAS, DETERMINISTIC[0]) not in DETERMINISTIC:
        raise Refusal(
            f"{CUBLAS} is {environment[CUBLAS]}, with which results of a GPU differ from run to "
            f"run; unset it, or set it to {' or '.join(DETERMINISTIC)}."
        )


def _why_not() -> str:
    """Say why torch has no CUDA: how it was built, the driver, or what CUDA itself reports."""
    import torch

    built = torch.version.cuda
    if built is None:
        return f"torch {torch.__version__} is built without CUDA"
    needed, found = OLDEST_DRIVER.get(built.split(".")[0]), driver()
    if found and needed and found.split(".")[0].isdigit() and int(found.split(".")[0]) < needed:
        return (
            f"the NVIDIA driver is {found}, and torch {torch.__version__} with CUDA {built} needs "
            f"driver {needed} or newer"
        )
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        reason = " ".join(str(error).split("\n")[0].split()).split(". ")[0].rstrip(".")
        shown = f"driver {found}" if found else "nvidia-smi names no driver"
        return f"{reason} ({shown}, torch with CUDA {built})"
    return "CUDA has no device"


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


def jobs_per_gpu(environment: MutableMapping[str, str] = os.environ) -> int:
    """Return how many jobs may use a GPU together: MADAN_GPU_SHARE, else one."""
    return max(1, _number(environment, SHARE, 1))


def _job(environment: MutableMapping[str, str]) -> list[str]:
    """In an allocation with several GPUs these are numbered anew: its leases are its own."""
    return [environment["SLURM_JOB_ID"]] if "SLURM_JOB_ID" in environment else []


def _number(environment: MutableMapping[str, str], name: str, otherwise: int) -> int:
    try:
        return int(environment.get(name, otherwise))
    except ValueError:
        raise Refusal(f"{name} is {environment[name]}; it must be a whole number.") from None
