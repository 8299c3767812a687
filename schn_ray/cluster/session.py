"""Start Ray for the length of a verb, quietly, and refuse what the cluster can't give."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray

from schn_ray.cluster import VERBOSE
from schn_ray.errors import SchnRayError


@contextmanager
def ray_session() -> Iterator[None]:
    """Join the cluster of ``RAY_ADDRESS``, or start one on this machine and end it after the block.

    A session that the caller started already is used as it is, and left running.
    """
    if ray.is_initialized():
        yield
        return
    verbose = VERBOSE in os.environ
    with nullcontext() if verbose else _standard_error_closed():
        ray.init(
            address=os.environ.get("RAY_ADDRESS", "local"),
            include_dashboard=False,
            log_to_driver=verbose,
            logging_level=logging.INFO if verbose else logging.ERROR,
        )
    try:
        _set_volume(verbose)
        yield
    finally:
        ray.shutdown()


def end() -> None:
    """End this process's Ray, if there is one, and the processes that it started."""
    ray.shutdown()


def parse_workers(text: str) -> tuple[int, int]:
    """Read how many workers are wanted: a number, or the fewest and the most.

    Raises:
        SchnRayError: neither.

    >>> parse_workers("4"), parse_workers("2:16")
    ((4, 4), (2, 16))
    """
    least, colon, most = text.partition(":")
    if least.isdecimal() and (most.isdecimal() or not colon):
        fewest, at_most = int(least), int(most or least)
        if 1 <= fewest <= at_most:
            return fewest, at_most
    raise SchnRayError(f"--workers {text}: wanted a number such as 4, or a range such as 2:16")


def require_cpus(wanted: int) -> None:
    """Refuse at once what Ray would wait for in silence, for ever.

    Raises:
        SchnRayError: with what was asked for, what there is and what is in use.
    """
    total = int(ray.cluster_resources().get("CPU", 0))
    free = int(ray.available_resources().get("CPU", 0))
    if wanted > total:
        raise SchnRayError(
            f"{wanted} workers want a CPU each, the cluster has {total} ({total - free} in use): "
            f"use --workers {total} or fewer, or add nodes"
        )


def cluster_cpus() -> int:
    """Return how many CPUs the cluster has."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))


def cluster_gpus() -> float:
    """Return how many GPUs the cluster has."""
    return float(ray.cluster_resources().get("GPU", 0))


@contextmanager
def _standard_error_closed() -> Iterator[None]:
    # Ray's core greets on the file descriptor, past Python; what goes wrong comes as an exception
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _set_volume(verbose: bool) -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    if not verbose:
        for name in ("ray", "ray.data", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)
