r"""Near-duplicates of many codes: CPU seconds and peak memory, and how much all pairs would take.

    OMP_NUM_THREADS=1 python -m benchmarks.retrieval.duplicates \
        [--rows 1e6] [--bits 64] [--radii 2 10] [--codes planted|random|c5] [--verb DIR]
        [--flat] [--lance] [--lance-lists]

Planted: random codes, a tenth of which are copies of others with up to three bits flipped, as the
duplicates of a photo archive are. c5: 100 centres, 5 % of bits flipped. Each radius runs in a
process of its own, whose peak of resident memory is its own, the codes included.

--flat compares all pairs with faiss and connects them with scipy, in the same run, and compares the
groups. --lance does so with Lance's own clustering (lance.vector.hamming_clustering_for_sample over
all rows, of pylance: lancedb has no such function), its reading of the column included.
--lance-lists is its way for larger tables: an IVF_FLAT index, and each of its partitions clustered
by itself, so that pairs in two partitions are lost; it says how many of the images in groups it
has. --verb writes codes and an index to DIR, once, and runs the verb on both, ids, uris and the
file included. --band measures one band of a gallery that is too large to be tried whole here.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
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


@contextlib.contextmanager
def lance_table(codes: np.ndarray) -> Iterator[Any]:
    import lance

    column = pa.FixedSizeListArray.from_arrays(pa.array(codes.ravel()), codes.shape[1])
    with tempfile.TemporaryDirectory() as folder:
        yield lance.write_dataset(pa.table({"hash": column}), folder + "/codes.lance")


def by_lance(codes: np.ndarray, radius: int) -> np.ndarray:
    from lance.vector import hamming_clustering_for_sample

    with lance_table(codes) as table:
        groups = hamming_clustering_for_sample(table, "hash", None, radius).read_all()
    labels = np.arange(len(codes))
    members = groups["duplicates"].combine_chunks()
    sizes = np.diff(members.offsets.to_numpy())
    labels[members.flatten().to_numpy()] = np.repeat(groups["representative"].to_numpy(), sizes)
    return labels


def by_lance_lists(codes: np.ndarray, radius: int) -> int:
    """Return how many images are in groups; rows of about 1,000 are a list."""
    from lance.vector import get_ivf_partition_info, hamming_clustering_for_ivf_partition

    grouped = 0
    with lance_table(codes) as table:
        table.create_index(
            "hash", "IVF_FLAT", name="lists", num_partitions=len(codes) // 1000, metric="hamming"
        )
        for part in get_ivf_partition_info(table, "lists"):
            number = part["partition_id"]
            groups = hamming_clustering_for_ivf_partition(table, "lists", number, radius)
            groups = groups.read_all()
            grouped += len(groups) + len(groups["duplicates"].combine_chunks().flatten())
    return grouped


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
    opponents = {"all pairs": by_all_pairs} if asked.flat else {}
    opponents |= {"Lance's clustering": by_lance} if asked.lance else {}
    for name, opponent in opponents.items():
        used = time.process_time()
        expected = opponent(codes, radius)
        seconds = time.process_time() - used
        both = len(np.unique(np.stack([labels, expected]), axis=1).T)
        if not both == len(np.unique(labels)) == len(np.unique(expected)):
            raise SystemExit(f"other groups than by {name}")
        times = f"{seconds:.1f} s, {seconds / ours:.0f} times"
        print(f"  {name}: {times}, {peak()}; the same groups", flush=True)
    if asked.lance_lists:
        used = time.process_time()
        grouped = by_lance_lists(codes, radius)
        seconds = time.process_time() - used
        share = grouped / np.count_nonzero(sizes[labels] > 1)
        times = f"{seconds:.1f} s, {seconds / ours:.0f} times"
        print(f"  Lance by lists: {times}; {share:.0%} of the images in groups", flush=True)


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
    parser.add_argument("--lance", action="store_true")
    parser.add_argument("--lance-lists", action="store_true")
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
