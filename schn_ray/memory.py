"""How the C library keeps the memory that networks free after each batch."""

from __future__ import annotations

import ctypes

# of malloc.h; the second is the most that glibc takes
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30
_LARGEST = 1 << 25


def keep_freed_memory() -> None:
    """Have this process keep up to 1 GiB of what it freed, if its C library is glibc.

    Otherwise a batch's activations go back to the system, and the next batch gets them page by
    page: a fifth of the time that a small network takes on a CPU (benchmarks/README.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _KEPT)
        mallopt(_MMAP_THRESHOLD, _LARGEST)
