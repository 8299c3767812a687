"""The command in a process of its own, and what is left of it when it is gone."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

MARK = "SCHN_RAY_TEST_MARK"


def start(*arguments: object, mark: str = "", address: str | None = None) -> subprocess.Popen[str]:
    """Start ``schn-ray`` on a Ray of its own, or on the cluster of ``address``."""
    command = [sys.executable, "-m", "schn_ray", *map(str, arguments)]
    environment = os.environ | {MARK: mark}
    environment.pop("RAY_ADDRESS", None)
    if address is not None:
        environment["RAY_ADDRESS"] = address
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@contextmanager
def started(*arguments: object, address: str | None = None) -> Iterator[subprocess.Popen[str]]:
    """As ``start``; whatever happens, the process ends with the block."""
    process = start(*arguments, address=address)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def as_options(settings: tuple[str, ...]) -> list[str]:
    """Return settings as arguments of a command."""
    return [word for setting in settings for word in ("--set", setting)]


def marked_processes(mark: str) -> list[str]:
    """List the processes that descend from a marked one, dead parents or not."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


def descendants(pid: int, named: str) -> list[psutil.Process]:
    """List the processes below one that have a word in their name."""
    return [p for p in psutil.Process(pid).children(recursive=True) if named in _name(p)]


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def has_cpus(address: str, cpus: int) -> bool:
    """Tell whether a cluster has so many CPUs; this process may be at home in another one."""
    status = [str(Path(sys.executable).parent / "ray"), "status", "--address", address]
    return f"/{cpus}.0 CPU" in subprocess.run(status, capture_output=True, text=True).stdout


def wait_for(condition: Callable[[], bool], seconds: float = 180) -> None:
    """Wait until something is so; fail after some time, as it may never be."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def _name(process: psutil.Process) -> str:
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.Error:  # it has ended
        return ""
