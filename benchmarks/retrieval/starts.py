"""How long a person waits for what takes no work: a search, finished work again, a served page.

    python -m benchmarks.retrieval.starts DIR [--rounds 5]

Makes in DIR, with the digits, a store, a run, its ONNX export, codes and an index. Then each
command runs in turn, in a process of its own, after ``python -c "import torch"``. The figure is the
median of its ratios to that, in CPU seconds of the process and in seconds of the clock. A server is
ready when its page is answered.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import schn_ray

PORT = 8019
TRAIN = ("train", "store", "--out", "run", "--preset", "digits", "--set", "schedule.iterations=1")
ENCODE = ("encode", "photos", "--model", "run", "--out", "codes")
COMMANDS = {
    "search, an id": ("search", "index", "--id", "1.png"),
    "search, an image, ONNX": ("search", "index", "photos/1.png", "--model", "m.onnx"),
    "search, an image": ("search", "index", "photos/1.png", "--model", "run"),
    "train again": TRAIN,
    "encode again": ENCODE,
    "serve ready, ONNX": ("serve", "index", "--model", "m.onnx", "--port", str(PORT)),
    "serve ready": ("serve", "index", "--model", "run", "--port", str(PORT)),
}
BARS = {"search, an image": 1.4, "train again": 0.6, "encode again": 0.6, "serve ready": 4.0}
Seconds = tuple[float, float]  # of CPU, of the clock


def measured(work: Callable[[], object]) -> Seconds:
    """Measure the processes that the work starts and waits for."""
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    work()
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - started
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, wall


def command(folder: Path, *words: str) -> None:
    """Run a command to its end, or a server until it answers."""
    arguments = [sys.executable, "-m", "schn_ray", *words]
    quiet = subprocess.DEVNULL
    if words[0] != "serve":
        subprocess.run(arguments, cwd=folder, check=True, stdout=quiet, stderr=quiet)
        return
    server = subprocess.Popen(arguments, cwd=folder, stdout=quiet, stderr=quiet)
    while not answers():
        time.sleep(0.02)
    server.kill()
    server.wait()


def answers() -> bool:
    """Tell whether the server's page is answered."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/healthz") as page:
            return bool(page.status == 200)
    except (urllib.error.URLError, ConnectionError):
        return False


def prepare(folder: Path) -> None:
    """Make what the commands read, and do once what they are to find finished."""
    photos = folder / "photos"
    photos.mkdir(parents=True, exist_ok=True)
    for number in range(500):
        pixels = np.random.default_rng(number).integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.png")
    store = schn_ray.prepare("digits", folder / "store")
    settings = ["schedule.iterations=1"]
    run = schn_ray.train(store, folder / "run", preset="digits", settings=settings)
    codes = schn_ray.encode(photos, run, folder / "codes")
    schn_ray.export(run, folder / "m.onnx")
    schn_ray.build_index(codes, folder / "index")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    if not (asked.folder / "index").is_dir():
        prepare(asked.folder)
    command(asked.folder, *TRAIN)  # a note of another version of the code is of no use
    torch = [sys.executable, "-c", "import torch"]
    ratios: dict[str, list[Seconds]] = {name: [] for name in COMMANDS}
    for _ in range(asked.rounds):
        for name, words in COMMANDS.items():
            base = measured(lambda: subprocess.run(torch, check=True))
            own = measured(lambda words=words: command(asked.folder, *words))  # type: ignore[misc]
            ratios[name].append((own[0] / base[0], own[1] / base[1]))
    print(f"{os.cpu_count()} cores; times `import torch`: CPU, clock")
    for name, of_rounds in ratios.items():
        cpu, wall = np.median(of_rounds, axis=0)
        bar = f"  at most {BARS[name]}" if name in BARS else ""
        print(f"{name:26} {cpu:5.2f} {wall:5.2f}{bar}")


if __name__ == "__main__":
    main()
