r"""An index of 1e7 codes: build time, memory, opening, and queries/s against IndexBinaryFlat.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval.search_large \
        DIR [--rows 1e7] [--bits 64] [--codes c5]

DIR takes the codes and the index, about 2 GB, and stays. Building and opening each run in a process
of their own, whose peak resident memory is its own; the codes are written before that. One
core. The first 128 queries are compared, distance by distance, with IndexBinaryFlat.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.support.drawn import draw, write_codes
from schn_ray.retrieval.code_files import read_codes
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.index import open_index

_QUERIES, _FLAT = 4096, 128


def peak() -> str:
    return f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def build(folder: Path, _: Any) -> None:
    started, used = time.perf_counter(), time.process_time()
    write_index(folder / "codes", folder / "index")
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    print(f"build: {wall:.0f} s, {cpu:.0f} s of CPU, {peak()}", flush=True)


def search(folder: Path, queries: np.ndarray) -> None:
    open_index(folder / "index")  # imports and the page cache are not what is measured
    opened = []
    for _ in range(5):
        started = time.perf_counter()
        index = open_index(folder / "index")
        opened.append(1000 * (time.perf_counter() - started))
    print(f"open: {sorted(opened)[2]:.1f} ms; {index.info()}", flush=True)
    for k in (10, 100):
        index.search(queries, k)  # every block is checked once a process
        used = time.process_time()
        found = index.search(queries, k)
        seconds = (time.process_time() - used) / len(queries)
        print(f"k {k}: {1 / seconds:,.0f} queries/s, {peak()}", flush=True)
        np.savez(folder / f"found-{k}.npz", distances=found.distances[:_FLAT], seconds=seconds)


def compare(folder: Path, queries: np.ndarray) -> None:
    flat = faiss.IndexBinaryFlat(8 * queries.shape[1])
    flat.add(read_codes(folder / "codes")[1])
    for k in (10, 100):
        used = time.process_time()
        distances, _ = flat.search(queries[:_FLAT], k)
        seconds = (time.process_time() - used) / _FLAT
        ours = np.load(folder / f"found-{k}.npz")
        if not np.array_equal(ours["distances"], distances):
            raise SystemExit(f"k {k}: other distances than IndexBinaryFlat")
        print(f"k {k}: flat {1 / seconds:,.0f} queries/s, {seconds / ours['seconds']:.1f} times")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=float, default=1e7)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--codes", default="c5")
    asked = parser.parse_args()
    flips = None if asked.codes == "random" else float(asked.codes.removeprefix("c")) / 100
    if not (asked.folder / "codes").exists():
        write_codes(asked.folder / "codes", draw(int(asked.rows), asked.bits, flips, 0))
    queries = draw(_QUERIES, asked.bits, flips, 1)
    context = multiprocessing.get_context("spawn")
    for work in (build, search, compare):
        process = context.Process(target=work, args=(asked.folder, queries))
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"{work.__name__} failed")


if __name__ == "__main__":
    main()
