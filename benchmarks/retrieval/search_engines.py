r"""The index beside other engines: recall by distance, queries/s, memory of the index, build time.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval.search_engines \
        [--rows 1e6] [--bits 64] [--codes c5]

usearch (hamming, b1), IndexBinaryHNSW and IndexBinaryIVF, all over every row as users build them,
and HNSW over distinct codes too. The search width of an engine is raised until recall@10 is 0.99,
or to its last setting. Recall by distance: the share of the true 10 nearest distances that the
answer has, so that rows that tie count as each other. One core, k 10, CPU seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from usearch.index import Index as Usearch

from benchmarks.support.drawn import draw, write_codes
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.index import open_index

K, GOOD = 10, 0.99
Search = Callable[[np.ndarray], np.ndarray]


def recall(found: np.ndarray, true: np.ndarray) -> float:
    """Return the share of places, rank by rank, that are as near as the true ones."""
    return float((np.sort(found, axis=1)[:, :K] <= true).mean())


def cpu(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def show(
    name: str,
    queries: np.ndarray,
    true: np.ndarray,
    built: float,
    size: float,
    settings: Iterable[tuple[str, Search]],
) -> None:
    for setting, search in settings:
        found = search(queries)
        seconds = cpu(partial(search, queries)) / len(queries)
        reached = recall(found, true)
        line = (
            f"| {name} | {setting} | {reached:.3f} | {1 / seconds:,.0f} | {size / 1e6:,.0f} MB | "
        )
        if reached >= GOOD:
            break
    print(line + f"{built:.0f} s |", flush=True)


def hnsw(codes: np.ndarray, bits: int) -> tuple[Any, float]:
    index = faiss.IndexBinaryHNSW(bits, 16)
    index.hnsw.efConstruction = 64
    return index, cpu(lambda: index.add(codes))


def widths(index: Any) -> Iterable[tuple[str, Search]]:
    for width in (16, 32, 64, 128, 256, 512, 1024):

        def search(queries: np.ndarray, width: int = width) -> np.ndarray:
            index.hnsw.efSearch = width
            distances: np.ndarray = index.search(queries, K)[0]
            return distances

        yield f"efSearch {width}", search


def serialised(index: Any) -> float:
    return float(len(faiss.serialize_index_binary(index)))


def by_usearch(codes: np.ndarray, bits: int) -> tuple[Usearch, float]:
    index = Usearch(ndim=bits, metric="hamming", dtype="b1", connectivity=16, expansion_add=64)
    keys = np.arange(len(codes))
    return index, cpu(lambda: index.add(keys, codes, threads=1))


def usearch_widths(index: Usearch) -> Iterable[tuple[str, Search]]:
    for width in (16, 32, 64, 128, 256, 512, 1024):

        def search(queries: np.ndarray, width: int = width) -> np.ndarray:
            index.expansion_search = width  # type: ignore[misc]
            return index.search(queries, K, threads=1).distances.astype(np.int32)

        yield f"expansion {width}", search


def ivf_probes(index: Any) -> Iterable[tuple[str, Search]]:
    for probes in (1, 2, 4, 8, 16, 32, 64):

        def search(queries: np.ndarray, probes: int = probes) -> np.ndarray:
            index.nprobe = probes
            distances: np.ndarray = index.search(queries, K)[0]
            return distances

        yield f"nprobe {probes}", search


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--codes", default="c5")
    asked = parser.parse_args()
    faiss.omp_set_num_threads(1)
    flips = None if asked.codes == "random" else float(asked.codes.removeprefix("c")) / 100
    codes, queries = draw(int(asked.rows), asked.bits, flips, 0), draw(256, asked.bits, flips, 1)
    flat = faiss.IndexBinaryFlat(asked.bits)
    flat.add(codes)
    true, _ = flat.search(queries, K)
    print("| engine | setting | recall@10 by distance | queries/s | size | build, CPU |")
    print("| --- | --- | --- | --- | --- | --- |")
    every: list[tuple[str, Search]] = [("exact", lambda q: flat.search(q, K)[0])]
    show("IndexBinaryFlat", queries, true, 0.0, codes.nbytes, every)
    with tempfile.TemporaryDirectory() as folder:
        write_codes(Path(folder, "codes"), codes)
        built = cpu(lambda: write_index(Path(folder, "codes"), Path(folder, "index")))
        index = open_index(Path(folder, "index"))
        names = ("codes", "starts", "rows", "code_of_row", "lists", "radii")
        files = [Path(folder, "index", "1", name) for name in names]
        size = sum(file.stat().st_size for file in files if file.exists())
        every = [("exact", lambda q: index.search(q, K).distances)]
        show("schn-ray, ids not counted", queries, true, built, size, every)
    ivf = faiss.IndexBinaryIVF(faiss.IndexBinaryFlat(asked.bits), asked.bits, 1024)
    built = cpu(lambda: (ivf.train(codes), ivf.add(codes)))
    show("IndexBinaryIVF, 1024 lists", queries, true, built, serialised(ivf), ivf_probes(ivf))
    near, built = by_usearch(codes, asked.bits)
    show("usearch", queries, true, built, near.memory_usage, usearch_widths(near))
    for name, some in (
        ("IndexBinaryHNSW", codes),
        ("IndexBinaryHNSW, distinct codes", np.unique(codes, axis=0)),
    ):
        graph, built = hnsw(some, asked.bits)
        truth, _ = _exact(some, queries)
        show(name, queries, truth, built, serialised(graph), widths(graph))


def _exact(codes: np.ndarray, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    distances, numbers = faiss.knn_hamming(queries, codes, K)
    return distances, numbers


if __name__ == "__main__":
    main()
