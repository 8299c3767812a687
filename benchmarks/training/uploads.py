"""What a run at a URI loses to its uploads: beside waiting for each, and beside a local run.

    python -m benchmarks.training.uploads FOLDER --megabytes-per-second 1

A small network is trained on digits into a local directory, and into a store in memory (fsspec's)
that takes so many megabytes a second: once as ``train`` does, once waiting for each upload. In
turns, three times; the medians of seconds, and of bytes that were sent. One JSON line a way.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

import schn_ray
from schn_ray.core.storage import mirror
from schn_ray.core.storage.mirror import Mirror
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally

SETTINGS = (
    "schedule.iterations=5",
    "schedule.epochs=1",
    "schedule.samples=256",
)
URI = "memory://bucket"


@contextmanager
def slow_store(bytes_per_s: float) -> Iterator[list[int]]:
    """Delay each upload by its size; yield the sizes."""
    sizes: list[int] = []
    send = mirror.send_file

    def delayed(path: Path, uri: str) -> None:
        sizes.append(path.stat().st_size)
        time.sleep(sizes[-1] / bytes_per_s)
        send(path, uri)

    with mock.patch.object(mirror, "send_file", delayed):
        yield sizes


@contextmanager
def waiting(self: Mirror) -> Iterator[Callable[[], None]]:
    """What ``Mirror.sending`` replaced."""
    yield self.send


def ways() -> dict[str, tuple[str, AbstractContextManager[object]]]:
    return {
        "a local directory": ("", mock.patch.object(Mirror, "send", Mirror.send)),
        "as train does": (URI, mock.patch.object(Mirror, "sending", Mirror.sending)),
        "waiting for each": (URI, mock.patch.object(Mirror, "sending", waiting)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megabytes-per-second", type=float, default=1.0)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    store = arguments.folder / "store"
    schn_ray.prepare("digits", store)
    seconds: dict[str, list[float]] = {}
    sent: dict[str, int] = {}
    for turn in range(arguments.repeats):
        for way, (root, patched) in ways().items():
            out = f"{root or arguments.folder}/run-{turn}-{way.replace(' ', '-')}"
            with patched, slow_store(arguments.megabytes_per_second * 1e6) as sizes:
                started = time.perf_counter()
                train_locally(train_config("digits", None, SETTINGS), store, out)
                seconds.setdefault(way, []).append(time.perf_counter() - started)
            sent[way] = sum(sizes)
    alone = statistics.median(seconds["a local directory"])
    for way, times in seconds.items():
        took = statistics.median(times)
        figures = {"seconds": round(took, 1), "of local": round(took / alone, 2)}
        print(json.dumps({"way": way, **figures, "megabytes sent": round(sent[way] / 1e6, 1)}))


if __name__ == "__main__":
    main()
