"""Near-duplicates of a gallery: groups of images that chains of similar codes connect.

Two distinct codes are neighbours if they differ in at most r bits. A group is a connected component
of the graph of neighbours (single linkage), so two of its codes may be farther apart than r.

The search for neighbours is exact, by the pigeonhole principle: cut two codes into r + 1 pieces; if
they differ in at most r bits, at least one piece is equal. So codes are sorted by each piece in
turn, and only codes with an equal piece are compared. Memory holds the distinct codes and a bounded
number of pairs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from schn_ray.core.atomic_files import writing
from schn_ray.core.directories import scratch_folder
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.cache import directory_kind
from schn_ray.core.storage.files import as_location
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.index.scan import Bytes, uint64_words

_PAIRS_AT_ONCE = 1 << 22  # compared at once
_EDGES_AT_ONCE = 1 << 22  # passed to one run of connected components
_ROWS_AT_ONCE = 1 << 16

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class DuplicateCounts:
    """Sizes of the groups.

    Attributes:
        rows: images of the gallery.
        groups: groups of at least two images.
        in_groups: images in any group.
        largest: images of the largest group.
    """

    rows: int
    groups: int
    in_groups: int
    largest: int

    def __str__(self) -> str:
        return (
            f"{self.groups:,} groups, the largest of {self.largest:,}; they hold "
            f"{self.in_groups:,} of {self.rows:,} images"
        )


def find_duplicates(path: Path | str, radius: int, out: Path) -> DuplicateCounts:
    """Write the groups of a gallery as Parquet with the columns ``group``, ``id``, ``uri``.

    Groups are numbered in the order of their first ids. Rows are sorted by group, then by id.
    Images without a near-duplicate are left out.

    Args:
        path: a ``codes`` directory or an index, a path or a URI.
        radius: bits in which neighbours may differ.
        out: file to write; it appears complete or not at all.

    Raises:
        SchnRayError: ``path`` is neither codes nor an index, ``out`` is a directory, or a negative
            radius.

    Example:
        ``find_duplicates("codes", 2, Path("groups.parquet")).groups``
    """
    if radius < 0:
        raise SchnRayError(f"radius {radius} is negative; give 0 or more bits")
    if out.is_dir():
        raise SchnRayError(f"{out} is a directory; name the Parquet file to write")
    with scratch_folder(out) as folder:
        if directory_kind(as_location(path)) != "index":
            write_index(path, folder / "index")
            path = folder / "index"
        counts = _write(open_index(path), radius, folder / "groups")
        with writing(out):
            (folder / "groups").rename(out)
    return counts


def connected_labels(codes: Bytes, bits: int, radius: int) -> NDArray[np.int64]:
    """Label the connected components of the graph of neighbours.

    Args:
        codes: uint8 [u, w], distinct.
        bits: of a code.
        radius: bits in which neighbours may differ.

    Returns:
        int64 [u], equal for codes of the same component.
    """
    labels = np.arange(len(codes))
    for pairs in _new_edges(_neighbours(codes, bits, radius), labels):
        first, second = (labels[side] for side in pairs)
        graph = coo_array(
            (np.ones(len(first), np.int8), (first, second)), shape=(len(codes), len(codes))
        )
        _, component = connected_components(graph, directed=False)
        labels[:] = component[labels]
    return labels


def _new_edges(pairs: Iterator[Pairs], labels: NDArray[np.int64]) -> Iterator[Pairs]:
    """Yield the pairs of codes with different labels, collected into few large batches.

    The caller changes ``labels`` after each batch.
    """
    batch, size = list[Pairs](), 0
    for first, second in pairs:
        new = labels[first] != labels[second]
        if new.any():
            batch.append((first[new], second[new]))
            size += int(new.sum())
        if size >= _EDGES_AT_ONCE:
            yield _concatenated(batch)
            batch, size = [], 0
    if batch:
        yield _concatenated(batch)


def _concatenated(pairs: list[Pairs]) -> Pairs:
    firsts, seconds = zip(*pairs, strict=True)
    return np.concatenate(firsts), np.concatenate(seconds)


def _neighbours(codes: Bytes, bits: int, radius: int) -> Iterator[Pairs]:
    """Yield all pairs of distinct codes at most ``radius`` bits apart, perhaps more than once.

    If the radius covers all bits, a chain through all codes stands for all pairs.
    """
    if radius == 0 or len(codes) < 2:
        return
    if radius >= bits:
        yield np.arange(len(codes) - 1), np.arange(1, len(codes))
        return
    wide = uint64_words(codes)
    for piece in _pieces(codes, bits, radius + 1):
        order = np.argsort(piece, kind="stable")
        ends = _ends_of_equal(piece[order])
        yield from _close(wide[order], order, ends, radius)


def _pieces(codes: Bytes, bits: int, count: int) -> Iterator[NDArray[Any]]:
    """Cut codes into ``count`` pieces of whole bits; yield each piece as one number per code."""
    cuts = np.linspace(0, bits, count + 1).astype(int).tolist()
    for low, high in itertools.pairwise(cuts):
        first, last = low // 8, -(-high // 8)
        columns = codes[:, first:last].copy()
        columns[:, 0] &= 0xFF << low % 8 & 0xFF
        if high % 8:
            columns[:, -1] &= (1 << high % 8) - 1
        wide = uint64_words(columns)
        if wide.shape[1] == 1:
            yield wide[:, 0]
        else:
            _, inverse = np.unique(wide, axis=0, return_inverse=True)
            yield inverse.reshape(-1)


def _ends_of_equal(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return, for each of ascending values, the end of the run of values equal to it."""
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True)) + 1
    return np.repeat(last, np.diff(last, prepend=0))


def _close(
    wide: NDArray[np.uint64], order: NDArray[np.int64], ends: NDArray[np.int64], radius: int
) -> Iterator[Pairs]:
    """Compare each code with those after it in its run; yield the pairs within the radius.

    Args:
        wide: the codes as words, in sorted order.
        order: the number of each of them.
        ends: the end of each one's run.
        radius: in bits.
    """
    after = ends - np.arange(len(ends)) - 1
    done = np.append(0, np.cumsum(after))
    start = 0
    while start < len(ends):
        stop = int(np.searchsorted(done, done[start] + _PAIRS_AT_ONCE, side="right")) - 1
        stop = max(start + 1, stop)  # at least one code: it has fewer pairs than there are codes
        chunk = np.arange(start, stop)
        first = np.repeat(chunk, after[chunk])
        second = np.arange(len(first)) - np.repeat(done[start:stop] - done[start], after[chunk])
        second += first + 1
        distance = np.bitwise_count(wide[first] ^ wide[second]).sum(axis=1, dtype=np.int64)
        near = distance <= radius
        yield order[first[near]], order[second[near]]
        start = stop


def _write(index: Index, radius: int, out: Path) -> DuplicateCounts:
    codes, postings = index.distinct()
    labels = connected_labels(codes, index.bits, radius)
    sizes = np.bincount(labels, postings.all_counts(), len(codes)).astype(np.int64)
    label_of_row = labels[index.numbers()]
    rows = np.flatnonzero(sizes[label_of_row] > 1)
    label_of_row = label_of_row[rows]
    _, first, inverse = np.unique(label_of_row, return_index=True, return_inverse=True)
    group = np.argsort(np.argsort(first))[inverse]  # rows ascend, so ids do
    order = np.argsort(group, kind="stable")
    _write_rows(index, rows[order], group[order], out, radius)
    groups = sizes[sizes > 1]
    return DuplicateCounts(len(index), len(groups), int(groups.sum()), int(groups.max(initial=0)))


def _write_rows(
    index: Index, rows: NDArray[np.int64], groups: NDArray[np.int64], out: Path, radius: int
) -> None:
    schema = pa.schema(
        {"group": pa.int64(), "id": pa.string(), "uri": pa.string()},
        metadata={"radius": str(radius), "codes": index.manifest.fingerprint},
    )
    with writing(out), pq.ParquetWriter(out, schema) as writer:
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            chunk = rows[start : start + _ROWS_AT_ONCE]
            columns = [groups[start : start + len(chunk)], index.ids(chunk), index.uris(chunk)]
            writer.write_table(pa.table(columns, schema=schema))
