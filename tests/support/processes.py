"""The command in a process of its own, the processes that it leaves, and their CPU time."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

MARK = "SCHN_RAY_TEST_MARK"
_SAMPLE_EVERY_S = 3.0


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
    """As ``start``; the process is killed at the end of the block, if it still runs."""
    process = start(*arguments, address=address)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def terminate(process: subprocess.Popen[str], mark: str) -> int:
    """Send SIGTERM, and return the exit code; one that is not 0 is 143 and comes in time.

    It says how to go on then, without a trace, and leaves no process of its mark behind.
    """
    sent = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=600)
    assert process.returncode in (0, 143), text
    if process.returncode:
        assert time.monotonic() - sent < 10
        assert "terminated; to go on, run the same command again" in text
        assert "Traceback" not in text
        assert "SIGTERM" not in text  # Ray's trace begins with it
        wait_for(lambda: not marked_processes(mark))
    return process.returncode


def as_options(settings: tuple[str, ...]) -> list[str]:
    """Return settings as arguments of a command."""
    return [word for setting in settings for word in ("--set", setting)]


def marked_processes(mark: str) -> list[str]:
    """List the command lines of the processes that inherited a mark, orphans included."""
    command_lines = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (process / "environ").read_bytes():
                command_lines.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return command_lines


def descendants(pid: int, named: str) -> list[psutil.Process]:
    """List the processes below one that have a word in their name."""
    return [p for p in psutil.Process(pid).children(recursive=True) if named in _name(p)]


@contextmanager
def counted_cpu_seconds() -> Iterator[dict[int, float]]:
    """Sample the CPU seconds of the processes below this one's children.

    Ray's daemons do not wait for their workers, so the time of these is in no ``getrusage``. What a
    process does after its last sample is missing.

    Yields:
        process id -> CPU seconds; complete after the block.
    """
    seconds: dict[int, float] = {}
    stop = threading.Event()

    def sample() -> None:
        this = psutil.Process()
        for process in this.children(recursive=True):
            with suppress(psutil.Error):  # it has ended
                if process.ppid() != this.pid:
                    times = process.cpu_times()
                    seconds[process.pid] = times.user + times.system

    def follow() -> None:
        while not stop.wait(_SAMPLE_EVERY_S):
            sample()

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield seconds
    finally:
        stop.set()
        thread.join()
        sample()


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def has_cpus(address: str, cpus: int) -> bool:
    """Tell whether the cluster at an address has so many CPUs; this process may use another."""
    status = [str(Path(sys.executable).parent / "ray"), "status", "--address", address]
    return f"/{cpus}.0 CPU" in subprocess.run(status, capture_output=True, text=True).stdout


def wait_for(condition: Callable[[], bool], seconds: float = 600) -> None:
    """Wait for a condition. The time limit only guards against waiting for ever."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"the condition did not come true in {seconds:.0f} s"
        time.sleep(0.05)


def _name(process: psutil.Process) -> str:
    try:
        return " ".join([process.name(), *process.cmdline()])
    except psutil.Error:  # it has ended
        return ""
