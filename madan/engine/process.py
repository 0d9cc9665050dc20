"""How a process of the command line keeps memory: quicker, with the same results.

Both settings are the whole process's, so they are for one that is ours, before torch is imported.
"""

import atexit
import ctypes
import gc

# Names of <malloc.h>, whose values are part of the C library's interface.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_MIB = 2**20


def begin() -> None:
    """Keep what is freed for the next tensor, and look for garbage less often."""
    _heap()
    # Importing torch makes a million objects, of which none is garbage, at import or at the end.
    gc.set_threshold(100_000)
    atexit.register(gc.freeze)


def _heap() -> None:
    """Have glibc give back memory late: else most tensors of a step are fresh pages, zeroed anew.

    Larger ones than 32 MiB are given back at once, as ever.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # glibc's alone
        mallopt(_M_MMAP_THRESHOLD, 32 * _MIB)
        mallopt(_M_TRIM_THRESHOLD, 512 * _MIB)
        mallopt(_M_TOP_PAD, 64 * _MIB)
