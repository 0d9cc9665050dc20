"""What a process of the command line keeps."""

import subprocess
import sys

FAULTS = """
import gc, resource, numpy
from madan import startup
{begin}
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
numpy.ones(2**20)
before = faults()
for _ in range(20):
    numpy.ones(2**20)
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


def test_freed_memory_is_kept_for_the_next_array():
    plain, _ = _faults("")
    kept, threshold = _faults("startup.begin()")
    assert plain > 20 * 1000  # 20 arrays of 8 MiB, a fault for every page of 4 KiB
    assert kept < 100
    assert threshold == 100_000
