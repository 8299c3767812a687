"""Control of freed memory: keep it for the next batch, or return it to the system."""

from __future__ import annotations

import ctypes

import pyarrow as pa

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # parameters of mallopt, see malloc.h
_TRIM_BYTES = 1 << 30
_MMAP_BYTES = 1 << 25  # glibc's maximum


def keep_freed_memory() -> None:
    """Let this process keep up to 1 GiB of freed memory, if its C library is glibc.

    By default, glibc returns the memory of a batch's activations to the system, and the next batch
    gets it back page by page. On a CPU, that takes a fifth of a small network's time
    (benchmarks/README.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_MMAP_THRESHOLD, _MMAP_BYTES)


def give_back_freed_memory() -> None:
    """Return freed memory to the system; Arrow and glibc would keep tens of MiB of it."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
