"""``search --where`` against plain search of the same index: CPU time, in turns.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval.filters [--rows 1e6] [--codes c5 random]

Codes: c5 is 100 centres with 5 % of bits flipped, and so on; queries are drawn as the rows are. A
filter leaves a share of the rows, at random (``number < ...``), or whole clusters of them
(``cluster in (...)``), so that most queries lie far from all that pass. ``filter`` is
``Index.where``: the condition evaluated, and the codes, rows and lists of what passes set apart.
``times`` is the search after it, against plain search; ``one batch`` is both together for all
queries. Medians of CPU seconds. The first queries are compared with all distances to the rows
that pass, or the script fails.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.support.drawn import centres_of, draw, write_codes
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.column_file import ColumnFile
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.index.scan import hamming

SHARES = (1.0, 0.5, 0.01, 0.0001)


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def write_columns_of(folder: Path, codes: np.ndarray) -> tuple[ColumnFile, dict[str, np.ndarray]]:
    rows = len(codes)
    number = np.random.default_rng(2).permutation(rows)
    centres = np.packbits(centres_of(8 * codes.shape[1]), axis=1, bitorder="little")
    cluster = np.concatenate(
        [hamming(part, centres).argmin(axis=1) for part in np.array_split(codes, 64)]
    )
    text = pa.array([f"c{i:02}" for i in range(100)]).take(pa.array(cluster))
    ids = [f"photos/{i:09}.jpg" for i in range(rows)]
    table = pa.table({"id": ids, "number": number, "cluster": text})
    pq.write_table(table, folder / "columns.parquet")
    return ColumnFile(folder / "columns.parquet"), {"number": number, "cluster": cluster}


def filters(rows: int, columns: dict[str, np.ndarray]) -> dict[str, tuple[str, np.ndarray]]:
    """Return name -> condition, and which rows pass."""
    of_share = {
        f"{share:.2%} of the rows": (
            f"number < {round(share * rows)}",
            columns["number"] < round(share * rows),
        )
        for share in SHARES
    }
    one = "cluster = 'c07'", columns["cluster"] == 7
    half = f"cluster in ({', '.join(repr(f'c{i:02}') for i in range(50))})", columns["cluster"] < 50
    return of_share | {"half of the clusters": half, "one cluster": one}


def check(view: Index, queries: np.ndarray, k: int, codes: np.ndarray, passing: np.ndarray) -> None:
    rows = np.flatnonzero(passing)
    matches = view.search(queries, k)
    for query, distances in enumerate(hamming(queries, codes[rows])):
        expected = np.lexsort((rows, distances))[:k]
        if not np.array_equal(matches.rows[query], rows[expected]):
            raise SystemExit(f"query {query}: other rows than those of all distances")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--bits", type=int, nargs="*", default=[64])
    parser.add_argument("--codes", nargs="*", default=["c5"])
    parser.add_argument("--k", type=int, nargs="*", default=[10])
    parser.add_argument("--queries", type=int, default=2048)
    parser.add_argument("--checked", type=int, default=16)
    parser.add_argument("--turns", type=int, default=7)
    asked = parser.parse_args()
    print("| codes | k | filter leaves | plain, us a query | times | filter, ms | one batch |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for bits in asked.bits:
        for kind in asked.codes:
            flips = None if kind == "random" else float(kind.removeprefix("c")) / 100
            codes, queries = (
                draw(n, bits, flips, seed) for seed, n in ((0, int(asked.rows)), (1, asked.queries))
            )
            with tempfile.TemporaryDirectory() as folder:
                write_codes(Path(folder, "codes"), codes)
                file, columns = write_columns_of(Path(folder), codes)
                write_index(Path(folder, "codes"), Path(folder, "index"), file)
                index = open_index(Path(folder, "index"))
                for name, (condition, passing) in filters(len(codes), columns).items():
                    view = index.where(condition)
                    for k in asked.k:
                        check(view, queries[: asked.checked], k, codes, passing)
                        row = measure(index, condition, queries, k, asked.turns)
                        print(f"| {bits} bits, {kind} | {k} | {name} | {row} |", flush=True)


def measure(index: Index, condition: str, queries: np.ndarray, k: int, turns: int) -> str:
    view = index.where(condition)
    works: list[Callable[[], object]] = [
        partial(index.search, queries, k),
        partial(view.search, queries, k),
        partial(index.where, condition),
    ]
    seconds: list[list[float]] = [[] for _ in works]
    for turn in range(turns + 1):
        for work, times in zip(works, seconds, strict=True):
            used = cpu_seconds(work)
            if turn:  # the first hashes what it reads
                times.append(used)
    plain, filtered, made = (statistics.median(times) for times in seconds)
    return (
        f"{plain / len(queries) * 1e6:.0f} | {filtered / plain:.2f} | {made * 1e3:.1f} | "
        f"{(made + filtered) / plain:.2f}"
    )


if __name__ == "__main__":
    main()
