"""What a process of the command line keeps."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
FAULTS = """
import gc, resource, numpy
from madan.engine import process
{begin}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    return len([numpy.ones(2**18) for _ in range(8)])
step()
before = faults()
for _ in range(10):
    step()
print(faults() - before, gc.get_threshold()[0])
"""


def _faults(begin: str) -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS.format(begin=begin)],
        capture_output=True,
        text=True,
        check=True,
    )
    return [int(word) for word in done.stdout.split()]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these settings")
@pytest.mark.skipif(
    PAGES.exists() and "[always]" in PAGES.read_text(),
    reason="this machine gives pages of 2 MiB unasked, so faults do not count memory",
)
def test_freed_memory_is_kept_for_the_next_array():
    plain, _ = _faults("")
    kept, threshold = _faults("process.begin()")
    assert plain > 30_000  # 80 arrays of 2 MiB: 40 960 pages of 4 KiB, nearly all of them fresh
    assert kept < 100
    assert threshold == 100_000
