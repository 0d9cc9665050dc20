"""What a job takes of this machine, as shares: so that one profile fits machines of any size.

Snakemake's profiles hold fixed numbers. They therefore limit the sum of the shares of jobs that run
side by side to `WHOLE`, and the share of a job is computed from the machine that it starts on.
"""

import math
import os
from pathlib import Path

from madan.engine import gpu

WHOLE = 10_000  # so fine that shares of up to 99 GPUs are exact enough
KEPT = 0.1  # share of the memory that is left to the system
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def memory_mb(limit: Path = LIMIT) -> int:
    """Return the memory of this machine in MB (10^6 bytes), or that of the container if less."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    allowed = limit.read_text().strip() if limit.is_file() else "max"
    return min(there, int(allowed) if allowed.isdigit() else there) // 10**6


def memory_share(mem_mb: int, machine_mb: int) -> int:
    """Return the ten-thousandths of the machine's memory that a job takes, at most all of them."""
    return min(WHOLE, math.ceil(WHOLE * mem_mb / (machine_mb * (1 - KEPT))))


def gpu_places() -> int:
    """Return how many jobs of one GPU this machine takes at once; 0 without a GPU."""
    return len(gpu.available()) * gpu.jobs_per_gpu()


def gpu_share(gpus: int, places: int) -> int:
    """Return the ten-thousandths of the machine's GPUs that a job takes, at most all of them.

    A job that computes with torch takes one GPU at least, since it leases one where there is any.
    """
    return min(WHOLE, max(1, gpus) * (WHOLE // places)) if places else 0
