"""A Ray head of its own with token authentication, and commands of a user who has the token."""

import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from support.processes import free_port
from support.users import Answer

SCRIPTS = Path(sys.executable).parent


class Head(NamedTuple):
    """Where its dashboard is, and its token."""

    address: str
    token: str

    def user(self, token: str | None = None) -> dict[str, str]:
        """Return the environment of a user with this head's token, or with another one."""
        ours = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token if token is None else token}
        others = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
        return {k: v for k, v in os.environ.items() if k not in others} | ours


@contextmanager
def head(cpus: int) -> Iterator[Head]:
    started_head = Head(f"http://127.0.0.1:{free_port()}", secrets.token_hex(32))
    folder = Path("/tmp") / f"schn_{secrets.token_hex(3)}"  # sockets' paths must be short
    environment = started_head.user() | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)  # the code is sent with the job
    (folder / "schn_ray").mkdir(
        parents=True
    )  # another copy in the jobs' working directory: must not be used
    (folder / "schn_ray" / "__init__.py").write_text("raise SystemExit('not what was sent')")
    process = _started([*_command(started_head, cpus), f"--temp-dir={folder}"], environment, folder)
    try:
        yield started_head
    finally:
        _end(process)
        shutil.rmtree(folder, ignore_errors=True)


def _end(process: subprocess.Popen[str]) -> None:
    """Terminate a head; if it does not end, kill it with all that it started."""
    below = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(30)
    for one in (*below, psutil.Process(process.pid)) if process.poll() is None else below:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(30)


def _command(head: Head, cpus: int) -> list[str]:
    options = {
        "num-cpus": cpus,
        "port": free_port(),
        "dashboard-port": head.address.rpartition(":")[2],
        # with the default port and a second Ray on this machine, no job would start
        "dashboard-agent-listen-port": free_port(),
        "ray-client-server-port": free_port(),
        "include-log-monitor": "false",
    }
    command = [str(SCRIPTS / "ray"), "start", "--head", "--block"]
    return command + [f"--{name}={value}" for name, value in options.items()]


def _started(
    command: list[str], environment: dict[str, str], folder: Path
) -> subprocess.Popen[str]:
    """Start a head. On a busy machine Ray may give up after 30 s; then it is started again."""
    for _ in range(4):
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        for line in process.stdout or ():
            if "subprocesses are monitored" in line:
                return process
            lines.append(line)
        process.wait(60)
    raise AssertionError("no head: " + "".join(lines))


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
