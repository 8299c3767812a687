"""``search --rescore query`` against plain search: CPU time, in turns, and the scores of all rows.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval.rescore [--rows 1e6] [--codes c5 random]

Codes: c5 is 100 centres with 5 % of bits flipped, and so on. A query is tanh(1.5 x), x a centre's
signs and noise that flips as many of its bits. ``arrays`` is ``Index.search`` and ``Index.scored``,
``results`` what the command does with them: ids and uris looked up. The median of CPU seconds
counts. The first queries are compared with the scores of all rows, or the script fails.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import NormalDist

import numpy as np

from benchmarks.support.drawn import centres_of, draw, write_codes
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.queries import relaxed_queries
from schn_ray.retrieval.search import SearchLimits, search_codes


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def drawn_outputs(n: int, bits: int, flips: float | None) -> np.ndarray:
    rng = np.random.default_rng(1)
    if flips is None:
        return np.tanh(1.5 * rng.normal(size=(n, bits))).astype(np.float32)
    signs = np.where(centres_of(bits)[rng.integers(0, 100, n)], 1.0, -1.0)
    noise = rng.normal(0, -1 / NormalDist().inv_cdf(flips), (n, bits))
    return np.tanh(1.5 * (signs + noise)).astype(np.float32)


def check(index: Index, relaxed: np.ndarray, k: int) -> None:
    scored, q = index.scored(relaxed, k), relaxed.astype(np.float64)
    scores = np.empty((len(q), len(index)))
    for start in range(0, len(index), 1 << 16):
        rows = np.arange(start, min(start + (1 << 16), len(index)))
        ones = np.unpackbits(index.codes(rows), axis=1, count=index.bits, bitorder="little")
        scores[:, rows] = q @ (ones * 2.0 - 1).T
    for query, of_rows in enumerate(scores):
        last = np.partition(of_rows, -k)[-k]
        best = np.flatnonzero(of_rows >= last - 1e-9)
        expected = best[np.lexsort((best, -np.round(of_rows[best], 9)))][:k]
        rows, own, _ = scored.rows_of(query)
        if not np.array_equal(rows, expected) or np.abs(own - of_rows[rows]).max() > 1e-6:
            raise SystemExit(f"query {query}: other rows or scores than those of all rows")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--bits", type=int, nargs="*", default=[32, 64, 128])
    parser.add_argument("--codes", nargs="*", default=["c5"])
    parser.add_argument("--k", type=int, nargs="*", default=[10])
    parser.add_argument("--queries", type=int, default=2048)
    parser.add_argument("--checked", type=int, default=8)
    asked = parser.parse_args()
    print("| codes | k | arrays: plain, us a query | rescored | times | results: times |")
    print("| --- | --- | --- | --- | --- | --- |")
    for bits in asked.bits:
        for kind in asked.codes:
            flips = None if kind == "random" else float(kind.removeprefix("c")) / 100
            relaxed = drawn_outputs(asked.queries, bits, flips)
            with tempfile.TemporaryDirectory() as folder:
                gallery = draw(int(asked.rows), bits, flips, 0)
                write_codes(Path(folder, "codes"), gallery)
                write_index(Path(folder, "codes"), Path(folder, "index"))
                index = open_index(Path(folder, "index"))
                for k in asked.k:
                    check(index, relaxed[: asked.checked], k)
                    measure(f"{bits} bits, {kind}", index, relaxed, k)


def measure(name: str, index: Index, relaxed: np.ndarray, k: int) -> None:
    names = [""] * len(relaxed)
    queries = relaxed_queries(names, names, relaxed)
    works: list[Callable[[], object]] = [
        partial(index.search, queries.codes, k),
        partial(index.scored, relaxed, k),
        partial(search_codes, index, queries, SearchLimits(k)),
        partial(search_codes, index, queries, SearchLimits(k, None, "query")),
    ]
    seconds: list[list[float]] = [[] for _ in works]
    for turn in range(8):
        for work, times in zip(works, seconds, strict=True):
            used = cpu_seconds(work)
            if turn:  # the first hashes what it reads
                times.append(used)
    plain, scored, results, rescored = (statistics.median(times) for times in seconds)
    one = 1e6 / len(relaxed)
    print(
        f"| {name} | {k} | {plain * one:.0f} | {scored * one:.0f} | {scored / plain:.2f} | "
        f"{rescored / results:.2f} |",
        flush=True,
    )


if __name__ == "__main__":
    main()
