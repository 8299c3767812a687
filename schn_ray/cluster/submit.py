"""Run verbs as jobs of a Ray cluster: submit, follow and stop them."""

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
_RAYS_ADDRESS = "RAY_API_SERVER_ADDRESS"
_LOGGERS = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
_POLL_S = 0.5
_AGENT_TIMEOUT_S = 60.0
# from SIGTERM to SIGKILL; by default 3 s, in which a verb may not have saved what it has
_TIME_TO_END = {"RAY_JOB_STOP_WAIT_TIME_S": "10"}
_SIGNALLED = 128  # a shell's exit code is this plus the signal that ended the command
_TOKEN_HELP = (
    "set RAY_AUTH_MODE=token and the cluster's token as RAY_AUTH_TOKEN, or its file as "
    "RAY_AUTH_TOKEN_PATH"
)


class SubmittedJob(NamedTuple):
    """A job's id, and whether the command was running already."""

    job: str
    already: bool


class JobEnd(NamedTuple):
    """A job's exit code, and the cluster's message about a job that failed, else ""."""

    code: int
    message: str


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
        """Submit a verb with its arguments, or return the job in which it is running already.

        Args:
            command: the verb and its arguments, as after ``schn-ray``.

        Raises:
            SchnRayError: the cluster does not answer, requires a token, or refuses the job.
        """
        client, deadline = self._client(), time.monotonic() + _AGENT_TIMEOUT_S
        while True:
            with self._errors_explained():
                running, number = self._known(client, command)
            if running is not None:
                return SubmittedJob(running, True)
            try:
                with self._errors_explained():
                    job = client.submit_job(
                        entrypoint=self._entrypoint(command),
                        submission_id=f"{self.name(command)}-{number}",
                        runtime_env=_runtime_env(),
                    )
                return SubmittedJob(str(job), False)
            except _NotReady as error:
                if time.monotonic() > deadline:
                    raise SchnRayError(str(error)) from error
                time.sleep(_POLL_S)

    def follow(self, job: str, show: Callable[[str], None]) -> JobEnd:
        """Show a job's output from its beginning until it ends.

        Args:
            job: its id.
            show: called with each piece of the output.

        Raises:
            SchnRayError: the cluster no longer answers; the job goes on.
        """
        client = self._client()
        with self._errors_explained():
            asyncio.run(_tail(client, job, show))
            info = _ended(client, job)
        return _as_ended(str(info.status.value), info.driver_exit_code, info.message or "")

    def stop(self, command: Sequence[str]) -> str:
        """Kill a command's job and return its id; submitted again, the command continues its work.

        Args:
            command: as it was sent.

        Raises:
            SchnRayError: the cluster does not answer, or the command is not running on it.
        """
        client = self._client()
        with self._errors_explained():
            running, _ = self._known(client, command)
        if running is None:
            raise SchnRayError(f"'{shlex.join(command)}' does not run at {self.address}")
        with self._errors_explained():
            client.stop_job(running)
            _ended(client, running)
        return running

    def name(self, command: Sequence[str]) -> str:
        """Return the prefix of the ids of a command's jobs: its verb and a hash of the whole.

        Args:
            command: the verb and its arguments.

        >>> Jobs(DASHBOARD).name(["train", "/store", "--out", "/run"])
        'schn-ray-train-788a5d57c4'
        """
        words = [*command] if self.directory is None else [*command, self.directory]
        return f"schn-ray-{command[0]}-{hashlib.sha256(repr(words).encode()).hexdigest()[:10]}"

    def _known(self, client: JobSubmissionClient, command: Sequence[str]) -> tuple[str | None, int]:
        """Return the job in which a command is running, if any, and the next job's number."""
        ours, running = re.compile(f"{self.name(command)}-([0-9]+)"), None
        number = 0
        for job in client.list_jobs():
            if match := ours.fullmatch(job.submission_id or ""):
                number = max(number, int(match[1]))
                running = running if job.status.is_terminal() else job.submission_id
        return running, number + 1

    def _client(self) -> JobSubmissionClient:
        if VERBOSE not in os.environ:
            for name in _LOGGERS:
                logging.getLogger(name).setLevel(logging.ERROR)
        with self._errors_explained(), _ray_s_variable_overridden(self.address):
            return JobSubmissionClient(self.address)

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # network errors have many classes
            raise _explained(self.address, error) from error

    def _entrypoint(self, command: Sequence[str]) -> str:
        verb = f"python -P -m schn_ray {shlex.join(command)}"  # -P: ignores a copy in the directory
        return verb if self.directory is None else f"cd {shlex.quote(self.directory)} && {verb}"


@contextmanager
def _ray_s_variable_overridden(address: str) -> Iterator[None]:
    """Set Ray's own variable to an address; Ray prefers it to the address that is passed."""
    before = os.environ.get(_RAYS_ADDRESS)
    os.environ[_RAYS_ADDRESS] = address
    try:
        yield
    finally:
        del os.environ[_RAYS_ADDRESS]
        if before is not None:
            os.environ[_RAYS_ADDRESS] = before


class _NotReady(SchnRayError):
    """The cluster may accept the job in a moment."""


def _explained(address: str, error: Exception) -> SchnRayError:
    text = str(error)
    if isinstance(error, ray.exceptions.AuthenticationError):
        wrong = "does not take this token" if "invalid" in text.lower() else "wants a token"
        return SchnRayError(f"the cluster at {address} {wrong}: {_TOKEN_HELP}")
    if "No available agent" in text:
        return _NotReady(
            f"the cluster at {address} has no agent that starts jobs; dashboard_agent.log on its "
            "head has the reason. Often another Ray on that machine uses the agent's port 52365: "
            "start the head with another --dashboard-agent-listen-port"
        )
    if "already exists" in text:
        return _NotReady(f"the cluster at {address} has a job of this name: submit it again")
    if isinstance(error, ConnectionError) and "Failed to connect" in text:
        return SchnRayError(
            f"no cluster answers at {address}. Give --address http://HEAD:8265; from outside, "
            "reach it through ray dashboard or kubectl port-forward"
        )
    first = text.splitlines()[0] if text else type(error).__name__
    return SchnRayError(
        f"the cluster at {address} did not answer as expected: {first}. A job that it has "
        "accepted goes on; the same command follows it again"
    )


def _runtime_env() -> dict[str, Any]:
    # sends the user's copy of this package; its dependencies must be installed on the cluster
    settings = _TIME_TO_END | ({VERBOSE: "1"} if VERBOSE in os.environ else {})
    return {"py_modules": [str(Path(schn_ray.__file__).parent)], "env_vars": settings}


async def _tail(client: JobSubmissionClient, job: str, show: Callable[[str], None]) -> None:
    async for lines in client.tail_job_logs(job):
        show(lines)


def _ended(client: JobSubmissionClient, job: str) -> Any:
    while not (info := client.get_job_info(job)).status.is_terminal():
        time.sleep(_POLL_S)  # the log ends a moment before the job does
    return info


def _as_ended(status: str, code: int | None, message: str) -> JobEnd:
    """Return a job's end with the exit code that a shell would give.

    >>> _as_ended("SUCCEEDED", 0, "Job finished successfully."), _as_ended("FAILED", -9, "Killed")
    (JobEnd(code=0, message=''), JobEnd(code=137, message='failed: Killed'))
    """
    if status == "SUCCEEDED":
        return JobEnd(0, "")
    # of a verb that ran, Ray's message repeats the output, which was shown
    reason = message if code is None else message.partition(", last available logs")[0]
    shown = code if code and code > 0 else _SIGNALLED - code if code else 1
    return JobEnd(shown, f"{status.lower()}: {reason}")
