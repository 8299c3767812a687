r"""Near-duplicates of many codes: CPU seconds and peak memory, and how much all pairs would take.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval.duplicates \
        [--rows 1e6] [--bits 64] [--radii 2 10] [--codes planted|random|c5] [--flat] [--verb DIR]

Planted: random codes, a tenth of which are copies of others with up to three bits flipped, as the
duplicates of a photo archive are. c5: 100 centres, 5 % of bits flipped. Each radius runs in a
process of its own, whose peak of resident memory is its own, the codes included.

--flat compares all pairs with faiss and connects them with scipy, in the same run, and compares the
groups. --verb writes codes and an index to DIR, once, and runs the verb on both, ids, uris and the
file included. --band measures one band of a gallery that is too large to be tried whole here.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

import faiss
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks.support.drawn import draw, write_codes
from schn_ray.retrieval.duplicates.bands import choose_bands, pairs_within, word_view
from schn_ray.retrieval.duplicates.components import Components
from schn_ray.retrieval.duplicates.connected import NeighbourSearch, connected_labels
from schn_ray.retrieval.duplicates.groups import find_duplicates
from schn_ray.retrieval.index.build import write_bare_index

_AT_ONCE = 64  # queries of a scan of all pairs


def peak() -> str:
    return f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB"


def gallery(rows: int, bits: int, kind: str) -> np.ndarray:
    """Draw distinct codes, ascending, as an index keeps them."""
    flips = float(kind[1:]) / 100 if kind.startswith("c") else None
    codes = draw(rows, bits, flips, 0)
    if kind == "planted":
        rng, copies = np.random.default_rng(3), rows // 10
        codes[-copies:] = codes[rng.integers(0, rows - copies, copies)]
        for bit in rng.integers(0, bits, (3, copies)):
            codes[np.arange(rows - copies, rows), bit // 8] ^= (1 << bit % 8).astype(np.uint8)
    if bits == 64:
        numbers = codes.view(np.uint64).ravel()
        numbers.sort()
        return numbers[np.append(True, numbers[1:] != numbers[:-1])].view(np.uint8).reshape(-1, 8)
    return np.unique(codes, axis=0)


def by_all_pairs(codes: np.ndarray, radius: int) -> np.ndarray:
    firsts, seconds = [], []
    for start in range(0, len(codes), _AT_ONCE):
        first, second, _ = pairs_within(codes[start : start + _AT_ONCE], codes[start:], radius)
        firsts.append(first + start)
        seconds.append(second + start)
    pairs = np.concatenate(firsts), np.concatenate(seconds)
    graph = coo_array((np.ones(len(pairs[0]), np.int8), pairs), shape=(len(codes),) * 2)
    return connected_components(graph, directed=False)[1]


def measure(asked: argparse.Namespace, radius: int) -> None:
    faiss.omp_set_num_threads(1)
    codes = gallery(asked.rows, asked.bits, asked.codes)
    name = f"{asked.codes}, {len(codes):,} distinct x {asked.bits} bits, radius {radius}"
    plan = choose_bands(word_view(codes), asked.bits, radius)
    bands = f"{len(plan)} bands of up to {max(band.threshold for band in plan)} bits"
    used = time.process_time()
    if asked.band:
        components = Components(len(codes))
        NeighbourSearch(word_view(codes), asked.bits, radius, components).compare_by_shifts(plan[0])
        print(f"{name}: one of {bands}: {time.process_time() - used:.1f} s, {peak()}", flush=True)
        return
    labels = connected_labels(codes, asked.bits, radius)
    ours = time.process_time() - used
    sizes = np.bincount(labels)
    groups = f"{np.count_nonzero(sizes > 1):,} groups, the largest of {sizes.max():,}"
    print(f"{name}: {ours:.2f} s, {peak()}; {bands}; {groups}", flush=True)
    if asked.flat:
        used = time.process_time()
        expected = by_all_pairs(codes, radius)
        flat = time.process_time() - used
        both = len(np.unique(np.stack([labels, expected]), axis=1).T)
        if not both == len(np.unique(labels)) == expected.max() + 1:
            raise SystemExit("other groups than by all pairs")
        print(f"  all pairs: {flat:.1f} s, {flat / ours:.0f} times; the same groups", flush=True)


def verb(asked: argparse.Namespace, radius: int) -> None:
    faiss.omp_set_num_threads(1)
    used = time.process_time()
    for source in ("index", "codes"):
        counts = find_duplicates(asked.verb / source, radius, asked.verb / "groups.parquet")
        print(f"of {source}: {time.process_time() - used:.2f} s, {peak()}; {counts}", flush=True)
        used = time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=lambda text: int(float(text)), default=1_000_000)
    parser.add_argument("--bits", type=int, default=64)
    parser.add_argument("--radii", type=int, nargs="+", default=[2])
    parser.add_argument("--codes", default="planted")
    parser.add_argument("--flat", action="store_true")
    parser.add_argument("--band", action="store_true")
    parser.add_argument("--verb", type=Path)
    asked = parser.parse_args()
    if asked.verb and not (asked.verb / "index").exists():
        codes = gallery(asked.rows, asked.bits, asked.codes)
        write_bare_index(write_codes(asked.verb / "codes", codes), asked.verb / "index")
    for radius in asked.radii:
        process = multiprocessing.get_context("spawn").Process(
            target=verb if asked.verb else measure, args=(asked, radius)
        )
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(f"radius {radius} failed")


if __name__ == "__main__":
    main()
