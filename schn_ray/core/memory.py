"""What becomes of memory that was freed: kept for the next batch, or given back."""

from __future__ import annotations

import ctypes

import pyarrow as pa

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


def give_back_freed_memory() -> None:
    """Return what this process freed to the system; Arrow and glibc would keep tens of MiB."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
