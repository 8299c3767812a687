"""Start Ray for the length of a verb, quietly, and refuse what the cluster can't give."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import ray

from schn_ray.cluster import VERBOSE
from schn_ray.cluster.capacity import GROWS_TO, capacity, present
from schn_ray.core.errors import SchnRayError

_STARTS = 3  # of a Ray on this machine
_ANSWER_S = 10.0
_HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>[^/]+):(?P<port>[0-9]{1,5})")
_TOO_SLOW = "timed out during startup"


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
        _start(verbose)
    try:
        _set_volume(verbose)
        yield
    finally:
        ray.shutdown()


def _start(verbose: bool) -> None:
    address = os.environ.get("RAY_ADDRESS", "local")
    _require_answer(address)
    for _ in range(_STARTS):
        try:
            ray.init(
                address=address,
                include_dashboard=False,
                log_to_driver=verbose,
                logging_level=logging.INFO if verbose else logging.ERROR,
            )
            return
        except ConnectionError as error:
            raise _no_answer(address) from error
        except Exception as error:  # Ray has no class for it
            if _TOO_SLOW not in str(error):
                raise
            ray.shutdown()
    raise SchnRayError(
        f"Ray did not start here within the 30 s that it allows itself, {_STARTS} times: this "
        "machine has too much else to do. Run the same command again when it has less"
    )


def _require_answer(address: str) -> None:
    """Find out in seconds what Ray would be silent about for seven minutes."""
    found = _HOST_AND_PORT.fullmatch(address)
    if found is None:
        return
    place = found["host"].strip("[]"), int(found["port"])
    try:
        socket.create_connection(place, _ANSWER_S).close()
    except (OSError, OverflowError) as error:
        raise _no_answer(address) from error


def _no_answer(address: str) -> SchnRayError:
    return SchnRayError(
        f"no Ray cluster answers at RAY_ADDRESS={address}; unset it to work on this machine alone"
    )


def end() -> None:
    """End this process's Ray, if there is one, and the processes that it started."""
    ray.shutdown()


@dataclass(frozen=True)
class WorkerRequest:
    """What a job asks of the cluster.

    Attributes:
        least: workers without which it does not begin.
        most: workers that it takes if the cluster has them.
        cpus: of each worker.
        gpus: of each worker; None: one, if the cluster has as many as ``least``.
    """

    least: int = 1
    most: int = 1
    cpus: int = 1
    gpus: int | None = None

    def resources(self) -> dict[str, int]:
        """Return what Ray is to give each worker."""
        gpus = self.gpus
        if gpus is None:
            gpus = int(capacity("GPU") >= self.least)
        return {"CPU": self.cpus} | ({"GPU": gpus} if gpus else {})

    def require(self) -> None:
        """Refuse at once what Ray would wait for in silence, for ever; say so if it must wait.

        Raises:
            SchnRayError: with what was asked for, what there is and what is in use.
        """
        for resource, each in self.resources().items():
            total, most = int(present(resource)), int(capacity(resource))
            used = total - int(ray.available_resources().get(resource, 0))
            asked = f"{self.least} workers want {each} {resource} each"
            there = f"{asked}, the cluster has {total}, {used} in use"
            if most > total:
                there += f", and grows to {most}"
            if self.least * each > most:
                raise SchnRayError(
                    f"{there}: use fewer workers, or add nodes (to a cluster that grows by itself, "
                    f"{GROWS_TO} says how far; see docs/cluster.md)"
                )
            if self.least * each > total - used:
                print(f"schn-ray: {there}; waiting for them", file=sys.stderr)


def cluster_cpus() -> int:
    """Return how many CPUs the cluster has, or grows to."""
    return max(1, int(capacity("CPU")))


def cluster_gpus() -> float:
    """Return how many GPUs the cluster has, or grows to."""
    return capacity("GPU")


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
