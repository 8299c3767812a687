"""One round of every shallow method on ever more rows: CPU time and memory of a worker.

    OMP_NUM_THREADS=1 python -m benchmarks.methods.scale_of_fits DIR --rows 1e5 1e6

Vectors [n, 256] in float16 around ten centres, a class each, in a ``.npy`` file that is removed
after; 64 bits. A method with kernel features has 300 anchors here. Each fit is a process of its own
with one core, and does its first round: what comes before the rounds, and one of them. Memory is
the peak of anonymous memory; pages of the mapped file, which the system can take back, are not.
"""

from __future__ import annotations

import argparse
import multiprocessing
import threading
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.lib.format import open_memmap
from scipy.sparse import csr_array
from threadpoolctl import threadpool_limits

from schn_ray.data.labels import LabelSets
from schn_ray.methods.registry import METHODS, find_method
from schn_ray.methods.shallow.feature_rows import FeatureRows
from schn_ray.methods.shallow.fit import ShallowFit
from schn_ray.methods.shallow.method import FittedMethod

WIDTH, BITS, CLASSES, ANCHORS = 256, 64, 10, 300
FITTED = [name for name in METHODS if issubclass(find_method(name), FittedMethod)]
_AT_ONCE = 1 << 14


def write_rows(path: Path, rows: int) -> None:
    """Write vectors and classes, a part at a time."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLASSES, WIDTH), np.float32)
    vectors = open_memmap(path / "vectors.npy", "w+", np.float16, (rows, WIDTH))
    classes = rng.integers(0, CLASSES, rows)
    np.save(path / "classes.npy", classes)
    noise = rng.standard_normal((_AT_ONCE, 4 * WIDTH), np.float32)  # of it, each row has a window
    for start in range(0, rows, _AT_ONCE):
        part = classes[start : start + _AT_ONCE]
        at = int(rng.integers(0, 3 * WIDTH))
        order = rng.permutation(_AT_ONCE)[: len(part)]
        vectors[start : start + len(part)] = centres[part] + noise[order, at : at + WIDTH]
    vectors.flush()


def fit_of(name: str) -> ShallowFit[Any]:
    """Return a fit that has not begun."""
    method = find_method(name)
    assert issubclass(method, FittedMethod)
    config = method.Fit.Config
    settings = {"anchors": ANCHORS} if "anchors" in config.model_fields else {}
    return method.Fit(config(**settings), BITS, 0)


def measure(name: str, folder: Path, results: Connection) -> None:
    """Do one round in this process, and send its CPU seconds and its peak in GiB."""
    torch.set_num_threads(1)
    X = np.load(folder / "vectors.npy", mmap_mode="r")
    classes = np.load(folder / "classes.npy")
    labels = LabelSets(classes, csr_array(np.eye(CLASSES, dtype=np.uint8)))
    rows = FeatureRows(lambda at: X[at].astype(np.float32), len(X), WIDTH)
    fit, peak = fit_of(name), [0]
    threading.Thread(target=watch, args=(peak,), daemon=True).start()
    started = time.process_time()
    with threadpool_limits(limits=1):
        fit.fit(rows, None if fit.labels == "none" else labels, 1)
    results.send((time.process_time() - started, peak[0] / 2**20))


def watch(peak: list[int]) -> None:
    """Keep the peak of this process's anonymous memory, in KiB."""
    while True:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                peak[0] = max(peak[0], int(line.split()[1]))
        time.sleep(0.02)


def main() -> None:
    """Measure methods on each number of rows."""
    parser = argparse.ArgumentParser(description="One round of fits on ever more rows.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=float, nargs="+", default=[1e5, 1e6])
    parser.add_argument("--only", nargs="+", default=FITTED, choices=FITTED)
    parser.add_argument("--keep", action="store_true", help="leave the vectors, for another run")
    asked = parser.parse_args()
    context = multiprocessing.get_context("fork")  # a start takes longer than most fits
    for count in map(int, asked.rows):
        folder = asked.folder / str(count)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "classes.npy").exists():
            write_rows(folder, count)
        for name in asked.only:
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=measure, args=(name, folder, sender))
            process.start()
            sender.close()
            seconds, peak = receiver.recv()
            process.join()
            print(f"{count:>10,} rows, {name:12}: {seconds:7.2f} s, {peak:.2f} GiB", flush=True)
        if not asked.keep:
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()


if __name__ == "__main__":
    main()
