"""Start Ray for the length of a verb, and refuse requests that the cluster cannot meet."""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import ray

from schn_ray.cluster import VERBOSE
from schn_ray.cluster.capacity import GROWS_TO, capacity, fits_a_node, present
from schn_ray.core.errors import SchnRayError

_STARTS = 3  # attempts to start Ray on this machine
_CONNECT_TIMEOUT_S = 10.0
_HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>[^/]+):(?P<port>[0-9]{1,5})")
_TOO_SLOW = "timed out during startup"


@contextmanager
def ray_session() -> Iterator[None]:
    """Join the cluster of ``RAY_ADDRESS``, or start one on this machine and end it after the block.

    A session that the caller has started is used as it is, and left running.

    Raises:
        SchnRayError: no cluster answers at ``RAY_ADDRESS``, or Ray did not start on this machine.
    """
    if ray.is_initialized():
        yield
        return
    verbose = VERBOSE in os.environ
    address = os.environ.get("RAY_ADDRESS")
    begun = "starting Ray on this machine" if address is None else f"joining Ray at {address}"
    print(f"schn-ray: {begun}", file=sys.stderr, flush=True)
    with _own_sigterm_handler(), nullcontext() if verbose else _standard_error_muted():
        _start(verbose)
    try:
        _set_verbosity(verbose)
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
        except Exception as error:  # Ray raises a bare Exception for a slow start
            if _TOO_SLOW not in str(error):
                raise
            ray.shutdown()
    raise SchnRayError(
        f"Ray did not start on this machine within its limit of 30 s, {_STARTS} times: the "
        "machine has too much else to do. Run the same command again when it is less busy"
    )


def _require_answer(address: str) -> None:
    """Fail in seconds if nothing listens at an address; Ray would try for seven minutes."""
    match = _HOST_AND_PORT.fullmatch(address)
    if match is None:
        return
    host_and_port = match["host"].strip("[]"), int(match["port"])
    try:
        socket.create_connection(host_and_port, _CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise _no_answer(address) from error


def _no_answer(address: str) -> SchnRayError:
    return SchnRayError(
        f"no Ray cluster answers at RAY_ADDRESS={address}: correct it, or unset it to work on this "
        "machine alone"
    )


def end() -> None:
    """End this process's Ray, if there is one, and the processes that it started."""
    ray.shutdown()


@dataclass(frozen=True)
class WorkerRequest:
    """The workers that a job requests of the cluster.

    Attributes:
        least: the job does not begin with fewer workers.
        most: the job takes up to so many workers if the cluster has them.
        cpus: CPUs of each worker.
        gpus: GPUs of each worker, or the share of one; None: one if the cluster has at least
            ``least``, else none.
    """

    least: int = 1
    most: int = 1
    cpus: int = 1
    gpus: float | None = None

    def resources(self) -> dict[str, float]:
        """Return the resources of each worker, by Ray's names."""
        gpus = self.gpus
        if gpus is None:
            gpus = int(capacity("GPU") >= self.least)
        return {"CPU": self.cpus} | ({"GPU": gpus} if gpus else {})

    def require(self) -> None:
        """Refuse at once more than the cluster has: Ray would wait for it for ever, in silence.

        Workers that must wait until others have ended, or nodes have come, are announced on
        standard error.

        Raises:
            SchnRayError: the cluster is too small, or each of its nodes for one worker; the message
                has its size and what is in use.
        """
        waiting = []
        for resource, each in self.resources().items():
            total, most = present(resource), capacity(resource)
            used = total - ray.available_resources().get(resource, 0)
            request = f"{self.least} workers want {each:g} {resource} each"
            state = f"{request}, the cluster has {total:g}, {used:g} in use"
            if most > total:
                state += f", and grows to {most:g}"
            if self.least * each > most:
                raise SchnRayError(
                    f"{state}: use fewer workers, or add nodes (if the cluster grows by itself, "
                    f"set {GROWS_TO} to its largest size; see docs/cluster.md)"
                )
            if self.least * each > total - used:
                waiting.append(f"schn-ray: {state}; waiting for them")
        self.require_node()
        for line in waiting:
            print(line, file=sys.stderr)

    def require_node(self) -> None:
        """Refuse a worker for which no node is large enough, though all together are.

        Raises:
            SchnRayError: with what the worker wants.
        """
        resources = self.resources()
        if self.least * resources["CPU"] <= capacity("CPU") and not fits_a_node(resources):
            wants = " and ".join(f"{each:g} {name}" for name, each in resources.items())
            raise SchnRayError(
                f"a worker wants {wants}, and no node has that: use fewer CPUs and GPUs a worker"
            )


def cluster_cpus() -> int:
    """Return how many CPUs the cluster has, or can grow to; at least 1."""
    return max(1, int(capacity("CPU")))


def cluster_gpus() -> float:
    """Return how many GPUs the cluster has, or can grow to."""
    return capacity("GPU")


@contextmanager
def _own_sigterm_handler() -> Iterator[None]:
    """Keep this process's own handler of SIGTERM, if it has one, while the block starts Ray.

    Ray sets one that exits with the signal's number, and its core one that prints a trace and
    aborts.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    try:
        yield
    except SystemExit as ended:
        if ended.code == signal.SIGTERM:
            handler(signal.SIGTERM, None)
        raise
    finally:
        signal.signal(signal.SIGTERM, handler)


@contextmanager
def _standard_error_muted() -> Iterator[None]:
    # Ray's core writes greetings to the file descriptor, not to sys.stderr; errors are exceptions
    original = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(original, 2)
        os.close(original)
        os.close(null)


def _set_verbosity(verbose: bool) -> None:
    from ray.data import DataContext

    context = DataContext.get_current()
    context.enable_progress_bars = verbose
    context.print_on_execution_start = verbose
    if not verbose:
        for name in ("ray", "ray.data", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)
