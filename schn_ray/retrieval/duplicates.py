"""Near-duplicates of a gallery: groups of images that chains of similar codes connect.

Two distinct codes are neighbours if they differ in at most r bits. A group is what neighbours of
neighbours reach, so its ends may be farther apart than r. Neighbours are found exactly by the
pigeonhole principle: cut into r + 1 pieces, two codes that differ in r bits are equal in a piece.
So codes are sorted by each piece in turn and compared only where it is equal. Memory holds the
distinct codes and a bounded number of pairs at a time.
"""

from __future__ import annotations

import itertools
import tempfile
import uuid
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

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.cache import kind_of
from schn_ray.core.storage.files import as_location
from schn_ray.retrieval.index.build import build_index
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.index.scan import Bytes, uint64_words

_PAIRS_AT_ONCE = 1 << 22  # compared at once
_EDGES_AT_ONCE = 1 << 22  # joined at once
_ROWS_AT_ONCE = 1 << 16

Pairs = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class DuplicateCounts:
    """What was found.

    Attributes:
        rows: of the gallery.
        groups: of two images or more.
        in_groups: images that are in one.
        largest: images of the largest.
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
    """Write the groups of a gallery as Parquet: ``group``, ``id``, ``uri``.

    Groups are numbered in the order of their first ids; rows come by group, then by id. Images
    without a near-duplicate are left out.

    Args:
        path: a ``codes`` directory, or an index.
        radius: bits in which neighbours may differ.
        out: the file; written whole or not at all.

    Raises:
        SchnRayError: neither codes nor an index there, or a negative radius.
    """
    if radius < 0:
        raise SchnRayError(f"radius {radius}: wanted 0 or more bits")
    if out.is_dir():
        raise SchnRayError(f"{out} is a directory; name the Parquet file to write")
    out.parent.mkdir(parents=True, exist_ok=True)
    if kind_of(as_location(path)) == "index":
        return _write(open_index(path), radius, out)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".duplicates-") as folder:
        build_index(path, Path(folder, "index"))
        return _write(open_index(Path(folder, "index")), radius, out)


def connected(codes: Bytes, bits: int, radius: int) -> NDArray[np.int64]:
    """Return a label for each distinct code [u, w], the same for all that chains connect: [u]."""
    labels = np.arange(len(codes))
    for pairs in _collected(_neighbours(codes, bits, radius), labels):
        first, second = (labels[side] for side in pairs)
        graph = coo_array(
            (np.ones(len(first), np.int8), (first, second)), shape=(len(codes), len(codes))
        )
        _, component = connected_components(graph, directed=False)
        labels[:] = component[labels]
    return labels


def _collected(found: Iterator[Pairs], labels: NDArray[np.int64]) -> Iterator[Pairs]:
    """Put pairs together that are not connected yet, so that there are few joins."""
    waiting, size = list[Pairs](), 0
    for first, second in found:
        news = labels[first] != labels[second]
        if news.any():
            waiting.append((first[news], second[news]))
            size += int(news.sum())
        if size >= _EDGES_AT_ONCE:
            yield _concatenated(waiting)
            waiting, size = [], 0
    if waiting:
        yield _concatenated(waiting)


def _concatenated(pairs: list[Pairs]) -> Pairs:
    firsts, seconds = zip(*pairs, strict=True)
    return np.concatenate(firsts), np.concatenate(seconds)


def _neighbours(codes: Bytes, bits: int, radius: int) -> Iterator[Pairs]:
    """Yield all pairs of distinct codes at most ``radius`` bits apart, perhaps several times."""
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
    """Yield the codes cut into so many pieces of whole bits, each as a value a code."""
    cuts = np.linspace(0, bits, count + 1).astype(int).tolist()
    for low, high in itertools.pairwise(cuts):
        first, last = low // 8, -(-high // 8)
        some = codes[:, first:last].copy()
        some[:, 0] &= 0xFF << low % 8 & 0xFF
        if high % 8:
            some[:, -1] &= (1 << high % 8) - 1
        wide = uint64_words(some)
        if wide.shape[1] == 1:
            yield wide[:, 0]
        else:
            _, inverse = np.unique(wide, axis=0, return_inverse=True)
            yield inverse.reshape(-1)


def _ends_of_equal(values: NDArray[Any]) -> NDArray[np.int64]:
    """Return for each of ascending values where its run of equal ones ends."""
    last = np.flatnonzero(np.append(values[1:] != values[:-1], True)) + 1
    return np.repeat(last, np.diff(last, prepend=0))


def _close(
    wide: NDArray[np.uint64], order: NDArray[np.int64], ends: NDArray[np.int64], radius: int
) -> Iterator[Pairs]:
    """Compare each code with those behind it in its run."""
    behind = ends - np.arange(len(ends)) - 1
    done = np.append(0, np.cumsum(behind))
    start = 0
    while start < len(ends):
        stop = int(np.searchsorted(done, done[start] + _PAIRS_AT_ONCE, side="right")) - 1
        stop = max(start + 1, stop)  # one code with all behind it is less than the codes are
        some = np.arange(start, stop)
        first = np.repeat(some, behind[start:stop])
        second = np.arange(len(first)) - np.repeat(done[start:stop] - done[start], behind[some])
        second += first + 1
        distance = np.bitwise_count(wide[first] ^ wide[second]).sum(axis=1, dtype=np.int64)
        near = distance <= radius
        yield order[first[near]], order[second[near]]
        start = stop


def _write(index: Index, radius: int, out: Path) -> DuplicateCounts:
    codes, postings = index.distinct()
    labels = connected(codes, index.bits, radius)
    sizes = np.bincount(labels, postings.all_counts(), len(codes)).astype(np.int64)
    label_of_row = labels[index.numbers()]
    rows = np.flatnonzero(sizes[label_of_row] > 1)
    label_of_row = label_of_row[rows]
    _, first, inverse = np.unique(label_of_row, return_index=True, return_inverse=True)
    group = np.argsort(np.argsort(first))[inverse]  # rows ascend, so ids do
    order = np.argsort(group, kind="stable")
    _write_rows(index, rows[order], group[order], out, radius)
    several = sizes[sizes > 1]
    return DuplicateCounts(
        len(index), len(several), int(several.sum()), int(several.max(initial=0))
    )


def _write_rows(
    index: Index, rows: NDArray[np.int64], groups: NDArray[np.int64], out: Path, radius: int
) -> None:
    schema = pa.schema(
        {"group": pa.int64(), "id": pa.string(), "uri": pa.string()},
        metadata={"radius": str(radius), "codes": index.manifest.fingerprint},
    )
    beside = out.with_name(f".{out.name}.{uuid.uuid4().hex}.partial")
    try:
        with pq.ParquetWriter(beside, schema) as writer:
            for start in range(0, len(rows), _ROWS_AT_ONCE):
                some = rows[start : start + _ROWS_AT_ONCE]
                columns = [groups[start : start + len(some)], index.ids(some), index.uris(some)]
                writer.write_table(pa.table(columns, schema=schema))
        beside.rename(out)
    finally:
        beside.unlink(missing_ok=True)
