r"""The index against faiss's IndexBinaryFlat over all codes: queries/s, and the same distances.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval.search \
        [--rows 1e6] [--codes c5 random] [--parquet DIR]

Codes: c5 is 100 centres with 5 % of bits flipped, c1 and so on likewise; ``--parquet`` takes a
directory that encode wrote, its last rows being the queries. One core. Both sides get the same
queries in one call and are timed in turns, the median of CPU seconds counts; ours returns row
numbers in id order and counts ties, faiss any order. The k-th distances must be equal, query by
query, or the script fails.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import faiss
import numpy as np

from benchmarks.support.drawn import draw, write_codes
from schn_ray.retrieval.code_files import read_codes
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.index import Index, open_index


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def compare(name: str, gallery: np.ndarray, queries: np.ndarray, index: Index, few: int) -> None:
    flat = faiss.IndexBinaryFlat(8 * gallery.shape[1])
    flat.add(gallery)
    info = index.info()
    for k in (10, 100):
        theirs, _ = flat.search(queries[:few], k)
        ours = index.search(queries[:few], k)
        if not np.array_equal(ours.distances, theirs):
            raise SystemExit(f"{name}, k {k}: other distances than IndexBinaryFlat")
        flat_s, our_s = [], []
        for _ in range(3):
            flat_s.append(cpu_seconds(partial(flat.search, queries[:few], k)) / few)
            our_s.append(cpu_seconds(partial(index.search, queries, k)) / len(queries))
        slow, quick = statistics.median(flat_s), statistics.median(our_s)
        print(
            f"| {name} | {k} | {info['unique_share']:.0%} | {info['scan']} | "
            f"{info.get('certified', 1):.1%} | {1 / slow:,.0f} | {1 / quick:,.0f} | "
            f"{slow / quick:.2f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--bits", type=int, nargs="*", default=[32, 64, 128])
    parser.add_argument("--codes", nargs="*", default=["c5", "random"])
    parser.add_argument("--queries", type=int, default=2048)
    parser.add_argument("--flat-queries", type=int, default=512)
    parser.add_argument("--parquet", type=Path)
    asked = parser.parse_args()
    faiss.omp_set_num_threads(1)
    print("| codes | k | distinct | scan | certified at once | flat, queries/s | ours | times |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    problems = [(f"{b} bits, {c}", b, c) for b in asked.bits for c in asked.codes]
    if asked.parquet:
        problems = [(asked.parquet.name, 0, "")]
    for name, bits, kind in problems:
        with tempfile.TemporaryDirectory() as folder:
            if asked.parquet:
                drawn = read_codes(asked.parquet)[1]
                gallery, queries = drawn[: -asked.queries], drawn[-asked.queries :].copy()
            else:
                flips = None if kind == "random" else float(kind.removeprefix("c")) / 100
                gallery = draw(int(asked.rows), bits, flips, 0)
                queries = draw(asked.queries, bits, flips, 1)
            write_codes(Path(folder, "codes"), gallery)
            write_index(Path(folder, "codes"), Path(folder, "index"))
            index = open_index(Path(folder, "index"))
            compare(name, gallery, queries, index, asked.flat_queries)


if __name__ == "__main__":
    main()
