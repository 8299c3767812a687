"""From embeddings to search without labels: time and memory of every step, for ever more rows.

    OMP_NUM_THREADS=1 python -m benchmarks.methods.many_rows DIR --rows 1e5 1e6

Vectors [n, 512] in float16, made up around 100 centres, in a ``.npy`` file: ``prepare``, ``train
--method itq`` (10 rounds, 32 bits), ``encode``, ``index``, and ``search`` for 1,000 more of them.
Every step is a process of its own. Peaks are of its anonymous memory, and of all its resident
memory, which counts the pages of mapped files that the kernel can drop. The last line compares the
fit of two real gloo processes with that of one, on the first rows.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.lib.format import open_memmap
from torch.multiprocessing.spawn import spawn

import schn_ray
from schn_ray.core.workers import current_workers
from schn_ray.methods.shallow.feature_rows import FeatureRows
from schn_ray.methods.shallow.itq import Itq, ItqConfig

WIDTH, CENTRES, BITS, ROUNDS, QUERIES = 512, 100, 32, 10, 1_000
_AT_ONCE = 1 << 14


def write_vectors(path: Path, rows: int, seed: int) -> Path:
    """Write clustered vectors, a part at a time."""
    centres = np.random.default_rng(7).standard_normal((CENTRES, WIDTH), np.float32)
    rng, out = np.random.default_rng(seed), open_memmap(path, "w+", np.float16, (rows, WIDTH))
    for start in range(0, rows, _AT_ONCE):
        size = min(_AT_ONCE, rows - start)
        noise = rng.standard_normal((size, WIDTH), np.float32)
        out[start : start + size] = centres[rng.integers(0, CENTRES, size)] + noise
    out.flush()
    return path


def steps(folder: Path) -> dict[str, Callable[[], object]]:
    """Return the five steps by name, in order."""
    vectors, store, run = folder / "vectors.npy", folder / "store", folder / "run"
    codes, index = folder / "codes", folder / "index"
    return {
        "prepare": partial(
            schn_ray.prepare,
            vectors,
            store,
            settings={"protocol": "unlabelled", "query_share": 0.0001, "validation_share": 0},
        ),
        "train": partial(
            schn_ray.train,
            store,
            run,
            method="itq",
            settings={"bits": BITS, "method.rounds": ROUNDS},
        ),
        "encode": partial(schn_ray.encode, vectors, run, codes),
        "encode queries": partial(schn_ray.encode, folder / "queries.npy", run, folder / "queries"),
        "index": partial(schn_ray.build_index, codes, index),
        "search": partial(
            schn_ray.search, index, queries=folder / "queries", out=folder / "matches", k=10
        ),
    }


def run_step(folder: Path, name: str) -> None:
    """Run one step in this process."""
    torch.set_num_threads(1)
    steps(folder)[name]()


def watched(folder: Path, name: str) -> None:
    """Run one step in a process of its own, and print its time and its peaks."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=run_step, args=(folder, name))
    started, anonymous, resident = time.monotonic(), 0, 0
    process.start()
    assert process.pid is not None
    while process.is_alive():
        now = memory_of(process.pid)
        anonymous = max(anonymous, now.get("RssAnon", 0))
        resident = max(resident, now.get("VmHWM", 0))
        time.sleep(0.05)
    process.join()
    if process.exitcode:
        raise SystemExit(f"{name} failed")
    seconds = time.monotonic() - started
    print(
        f"  {name:15} {seconds:7.1f} s, peak {anonymous / 2**20:.2f} GiB anonymous, "
        f"{resident / 2**20:.2f} GiB resident",
        flush=True,
    )


def memory_of(pid: int) -> dict[str, int]:
    """Return the lines of a process's status that are sizes, in KiB."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}


def fit(rank: int, size: int, vectors: Path, folder: Path) -> None:
    """Fit ITQ as one of so many workers, and leave the projection in a file."""
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=size)
    X = np.load(vectors, mmap_mode="r")
    rows = FeatureRows(
        lambda at: X[at].astype(np.float32), len(X), WIDTH, workers=current_workers()
    )
    itq = Itq(ItqConfig(rounds=3), BITS, seed=0)
    for number in range(1, 4):
        itq.fit(rows, None, number)
    found: dict[str, Any] = {"mean": itq.head.mean, "W": itq.head.W, "t": itq.head.t}
    torch.save(found, folder / f"{size}-{rank}.pt")
    if size > 1:
        dist.destroy_process_group()


def compare_workers(vectors: Path) -> None:
    """Print how far two workers are from one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in (1, 2):
            spawn(fit, (size, vectors, folder), nprocs=size)  # type: ignore[no-untyped-call]
        one, *two = (
            torch.load(folder / f"{size}-{rank}.pt", weights_only=False)
            for size, rank in ((1, 0), (2, 0), (2, 1))
        )
    apart = {k: max(float(np.abs(one[k] - other[k]).max()) for other in two) for k in one}
    equal = all(np.array_equal(one[k], other[k]) for other in two for k in one)
    print(f"  itq, 3 rounds, 2 workers against 1: equal to the bit: {equal}; apart {apart}")


def main() -> None:
    """Go through all steps for each number of rows."""
    parser = argparse.ArgumentParser(description="From embeddings to search, for many rows.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=float, nargs="+", default=[1e5, 1e6])
    parser.add_argument("--compare", type=float, default=1e5, help="rows for two workers")
    parser.add_argument("--keep", action="store_true")
    asked = parser.parse_args()
    for rows in map(int, asked.rows):
        folder = asked.folder / f"rows-{rows}"
        folder.mkdir(parents=True)
        write_vectors(folder / "vectors.npy", rows, 0)
        write_vectors(folder / "queries.npy", QUERIES, 1)
        print(f"{rows:,} rows of {WIDTH} float16", flush=True)
        for name in steps(folder):
            watched(folder, name)
        if not asked.keep:
            shutil.rmtree(folder)
    if asked.compare:
        vectors = write_vectors(asked.folder / "compared.npy", int(asked.compare), 0)
        compare_workers(vectors)
        vectors.unlink()


if __name__ == "__main__":
    main()
