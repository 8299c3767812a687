"""A Ray head of its own with token authentication, and commands of a user who has the token."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from processes import wait_for
from users import Answer

SCRIPTS = Path(sys.executable).parent


class Head(NamedTuple):
    """Where its dashboard is, and its token."""

    address: str
    token: str

    def user(self, token: str | None = None) -> dict[str, str]:
        """Return the environment of a user with this head's token, or with another one."""
        ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token if token is None else token}
        return {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"} | ours


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextmanager
def head(cpus: int) -> Iterator[Head]:
    found = Head(f"http://127.0.0.1:{free_port()}", secrets.token_hex(32))
    folder = Path("/tmp") / f"schn_{secrets.token_hex(3)}"  # sockets' paths must be short
    ports = {
        "port": free_port(),
        "dashboard-port": found.address.rpartition(":")[2],
        # its default is one number: with the agent of another Ray on it, no job would start
        "dashboard-agent-listen-port": free_port(),
    }
    environment = found.user() | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)  # code comes with the job
    command = [SCRIPTS / "ray", "start", "--head", "--block", f"--num-cpus={cpus}"]
    options = [f"--{name}={port}" for name, port in ports.items()]
    with subprocess.Popen(
        [*command, *options, f"--temp-dir={folder}"],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            wait_for(lambda: _answers(found))
            yield found
        finally:
            process.terminate()
            process.wait(60)
            shutil.rmtree(folder, ignore_errors=True)


def run(environment: dict[str, str], *command: object) -> Answer:
    """Run a command to its end."""
    words = list(map(str, command))
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
    return Answer(done.returncode, done.stdout, done.stderr)


def submit(head: Head, *arguments: object) -> Answer:
    """Run ``schn-ray submit`` as a user with the token."""
    return run(head.user(), *submitted(head, *arguments))


def submitted(head: Head, *arguments: object) -> list[str]:
    """Return the command ``schn-ray submit``."""
    words = [sys.executable, "-m", "schn_ray", "submit", "--address", head.address, *arguments]
    return list(map(str, words))


def _answers(head: Head) -> bool:
    authorised = {"Authorization": f"Bearer {head.token}"}
    request = urllib.request.Request(f"{head.address}/api/jobs/", headers=authorised)
    try:
        with urllib.request.urlopen(request, timeout=5):
            return True
    except OSError:
        return False
