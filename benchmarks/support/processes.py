"""Start a command under a mark, find its processes by it, and leave none of them behind."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MARK = "SCHN_RAY_BENCHMARK"


@contextmanager
def started(command: list[str]) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    mark = uuid.uuid4().hex
    environment = os.environ | {MARK: mark}
    environment.pop("RAY_ADDRESS", None)
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process, mark
    finally:
        for pid in marked(mark):  # our own processes, by their ids: Ray outlives a killed driver
            end(pid)
        process.wait(60)


def marked(mark: str, wanted: Callable[[str], bool] = lambda line: True) -> list[int]:
    """Return the ids of the processes that carry a mark in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() not in (process / "environ").read_bytes():
                continue
            if wanted((process / "cmdline").read_text()):
                found.append(int(process.name))
        except OSError:
            continue
    return found


def started_at(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19])


def end(pid: int) -> None:
    if pid:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
