"""Verbs as jobs of a Ray cluster: sent, followed, left alone, picked up again, stopped."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import ray.exceptions
from ray.job_submission import JobSubmissionClient

import schn_ray
from schn_ray.cluster import VERBOSE
from schn_ray.core.errors import SchnRayError

DASHBOARD = "http://127.0.0.1:8265"
_WINS = "RAY_API_SERVER_ADDRESS"
_LOGGERS = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
_POLL_S = 0.5
_READY_WITHIN_S = 60.0
_SIGNALLED = 128  # what a shell adds to the signal that ended a command
_TOKEN_HELP = (
    "set RAY_AUTH_MODE=token and the cluster's token as RAY_AUTH_TOKEN, or its file as "
    "RAY_AUTH_TOKEN_PATH"
)


class SubmittedJob(NamedTuple):
    """A job's id, and whether the command ran already."""

    job: str
    already: bool


class JobEnd(NamedTuple):
    """A job's exit code, and what the cluster says of a job that did not end well."""

    code: int
    said: str


@dataclass(frozen=True)
class Jobs:
    """The jobs of one cluster.

    Attributes:
        address: of the cluster's dashboard, ``http://host:8265``.
        directory: where relative paths of a command begin on the cluster.
    """

    address: str
    directory: str | None = None

    def send(self, command: Sequence[str]) -> SubmittedJob:
        """Send a verb with its arguments, or find the job in which it runs already.

        Raises:
            SchnRayError: the cluster doesn't answer, wants a token, or doesn't take the job.
        """
        client, deadline = self._client(), time.monotonic() + _READY_WITHIN_S
        while True:
            with self._asked():
                running, number = self._known(client, command)
            if running is not None:
                return SubmittedJob(running, True)
            try:
                with self._asked():
                    job = client.submit_job(
                        entrypoint=self._entrypoint(command),
                        submission_id=f"{self.name(command)}-{number}",
                        runtime_env=_runtime_env(),
                    )
                return SubmittedJob(str(job), False)
            except _ComeLater as error:
                if time.monotonic() > deadline:
                    raise SchnRayError(str(error)) from error
                time.sleep(_POLL_S)

    def follow(self, job: str, show: Callable[[str], None]) -> JobEnd:
        """Show a job's output from its beginning until it ends.

        Raises:
            SchnRayError: the cluster doesn't answer any more; the job goes on.
        """
        client = self._client()
        with self._asked():
            asyncio.run(_tail(client, job, show))
            info = _ended(client, job)
        return _as_ended(str(info.status.value), info.driver_exit_code, info.message or "")

    def stop(self, command: Sequence[str]) -> str:
        """End a command's job as a kill would, and return its id; sent again, it goes on.

        Raises:
            SchnRayError: the cluster doesn't answer, or the command doesn't run there.
        """
        client = self._client()
        with self._asked():
            running, _ = self._known(client, command)
        if running is None:
            raise SchnRayError(f"'{shlex.join(command)}' does not run at {self.address}")
        with self._asked():
            client.stop_job(running)
            _ended(client, running)
        return running

    def name(self, command: Sequence[str]) -> str:
        """Return how the ids of a command's jobs begin: its verb and a hash of it all.

        >>> Jobs(DASHBOARD).name(["train", "/store", "--out", "/run"])
        'schn-ray-train-788a5d57c4'
        """
        words = [*command] if self.directory is None else [*command, self.directory]
        return f"schn-ray-{command[0]}-{hashlib.sha256(repr(words).encode()).hexdigest()[:10]}"

    def _known(self, client: JobSubmissionClient, command: Sequence[str]) -> tuple[str | None, int]:
        """Return the job in which a command runs, if any, and the number that the next one has."""
        ours, running = re.compile(f"{self.name(command)}-([0-9]+)"), None
        number = 0
        for job in client.list_jobs():
            if found := ours.fullmatch(job.submission_id or ""):
                number = max(number, int(found[1]))
                running = running if job.status.is_terminal() else job.submission_id
        return running, number + 1

    def _client(self) -> JobSubmissionClient:
        if VERBOSE not in os.environ:
            for name in _LOGGERS:
                logging.getLogger(name).setLevel(logging.ERROR)
        with self._asked(), _stronger_than_ray_s_variables(self.address):
            return JobSubmissionClient(self.address)

    @contextmanager
    def _asked(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each way to fail on a network has a class of its own
            raise _in_our_words(self.address, error) from error

    def _entrypoint(self, command: Sequence[str]) -> str:
        verb = f"python -P -m schn_ray {shlex.join(command)}"  # -P: not a copy that lies there
        return verb if self.directory is None else f"cd {shlex.quote(self.directory)} && {verb}"


@contextmanager
def _stronger_than_ray_s_variables(address: str) -> Iterator[None]:
    """Let Ray go where it is told: its variables win over the address that it is given."""
    before = os.environ.get(_WINS)
    os.environ[_WINS] = address
    try:
        yield
    finally:
        del os.environ[_WINS]
        if before is not None:
            os.environ[_WINS] = before


class _ComeLater(SchnRayError):
    """The cluster may take the job in a moment."""


def _in_our_words(address: str, error: Exception) -> SchnRayError:
    said = str(error)
    if isinstance(error, ray.exceptions.AuthenticationError):
        wrong = "does not take this token" if "invalid" in said.lower() else "wants a token"
        return SchnRayError(f"the cluster at {address} {wrong}: {_TOKEN_HELP}")
    if "No available agent" in said:
        return _ComeLater(
            f"the cluster at {address} has no agent that starts jobs; dashboard_agent.log on its "
            "head says why. Often another Ray of that machine has the agent's port 52365: start "
            "the head with another --dashboard-agent-listen-port"
        )
    if "already exists" in said:
        return _ComeLater(f"the cluster at {address} has a job of this name: send it again")
    if isinstance(error, ConnectionError) and "Failed to connect" in said:
        return SchnRayError(
            f"no cluster answers at {address}. Give --address http://HEAD:8265; from outside, "
            "reach it through ray dashboard or kubectl port-forward"
        )
    first = said.splitlines()[0] if said else type(error).__name__
    return SchnRayError(
        f"the cluster at {address} did not answer as expected: {first}. A job that it took goes "
        "on; the same command follows it again"
    )


def _runtime_env() -> dict[str, Any]:
    # our own code is what the user has here; what it needs must be installed on the cluster
    settings = {VERBOSE: "1"} if VERBOSE in os.environ else {}
    return {"py_modules": [str(Path(schn_ray.__file__).parent)], "env_vars": settings}


async def _tail(client: JobSubmissionClient, job: str, show: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job):
        show(lines)


def _ended(client: JobSubmissionClient, job: str) -> Any:
    while not (info := client.get_job_info(job)).status.is_terminal():
        time.sleep(_POLL_S)  # the log ends a moment before the job does
    return info


def _as_ended(status: str, code: int | None, message: str) -> JobEnd:
    """Return a job's end as a shell would.

    >>> _as_ended("SUCCEEDED", 0, "Job finished successfully."), _as_ended("FAILED", -9, "Killed")
    (JobEnd(code=0, said=''), Ended(code=137, said='failed: Killed'))
    """
    if status == "SUCCEEDED":
        return JobEnd(0, "")
    # of a verb that ran, the message repeats the output; else it is all there is
    said = message if code is None else message.partition(", last available logs")[0]
    shown = code if code and code > 0 else _SIGNALLED - code if code else 1
    return JobEnd(shown, f"{status.lower()}: {said}")
