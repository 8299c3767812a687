"""Histograms of Hamming distances: all that the exact metrics need of a ranking.

For every query, the gallery rows at each distance 0..K are counted, and the relevant ones among
them; a gallery row is relevant iff it shares a label with the query, and its grade is how many it
shares. Counts add up, so a gallery may be spread over machines: ``reduce(operator.add, parts)`` is
exact.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.data.labels import label_sets, shared_labels

Counts = NDArray[np.int64]

_PAIRS_AT_ONCE = 32_768  # distinct gallery (code, label set) pairs: the arrays stay in cache
_RELEVANCE_AT_ONCE = 4_194_304  # cells of (query label set, gallery label set)


@dataclass(frozen=True, eq=False)
class Histograms:
    """How many gallery rows lie at each Hamming distance from each of Q queries.

    Attributes:
        all_rows: int64 [Q, K+1], gallery rows at distance 0..K.
        relevant: int64 [Q, K+1], those of them that share a label with the query.

    Raises:
        SchnRayError: the shapes differ, or a level holds more relevant rows than rows.
    """

    all_rows: Counts
    relevant: Counts

    def __post_init__(self) -> None:
        shapes = f"{self.all_rows.shape} and {self.relevant.shape}"
        if self.all_rows.ndim != 2 or self.all_rows.shape != self.relevant.shape:
            raise SchnRayError(f"histograms of shapes {shapes}; expected two of one shape [Q, K+1]")
        if np.any(self.relevant < 0) or np.any(self.relevant > self.all_rows):
            raise SchnRayError(
                "histograms with more relevant rows than rows: expected (all, relevant)"
            )

    def __add__(self, other: Histograms) -> Histograms:
        """Return the histograms of two disjoint parts of the gallery, for the same queries."""
        if self.all_rows.shape != other.all_rows.shape:
            raise SchnRayError(
                f"histograms of shapes {self.all_rows.shape} and {other.all_rows.shape} do not add "
                "up; expected two parts of the gallery with the same queries and bits"
            )
        return Histograms(self.all_rows + other.all_rows, self.relevant + other.relevant)

    def __len__(self) -> int:
        """Return the number of queries Q."""
        return len(self.all_rows)

    @property
    def bits(self) -> int:
        """Bits of a code, K."""
        return self.all_rows.shape[1] - 1

    @property
    def gallery(self) -> Counts:
        """Gallery rows of each query [Q]."""
        return self.all_rows.sum(axis=1)

    @property
    def relevant_rows(self) -> Counts:
        """Relevant rows of each query, R [Q]."""
        return self.relevant.sum(axis=1)

    @property
    def undefined(self) -> int:
        """Queries without any relevant row: no metric is defined for them."""
        return int(np.sum(self.relevant_rows == 0))


@dataclass(frozen=True, eq=False)
class GradedHistograms:
    """How many gallery rows of each grade lie at each Hamming distance from each of Q queries.

    Attributes:
        counts: int64 [Q, G+1, K+1]; a row's grade is how many labels it shares with the query, at
            most G: as many as any of the queries has.

    Raises:
        SchnRayError: the shape is another one.
    """

    counts: Counts

    def __post_init__(self) -> None:
        if self.counts.ndim != 3:
            raise SchnRayError(
                f"graded histograms of shape {self.counts.shape}; expected [Q, G+1, K+1]"
            )

    def __add__(self, other: GradedHistograms) -> GradedHistograms:
        """Return the histograms of two disjoint parts of the gallery, for the same queries."""
        if self.counts.shape != other.counts.shape:
            raise SchnRayError(
                f"histograms of shapes {self.counts.shape} and {other.counts.shape} do not add up; "
                "expected two parts of the gallery with the same queries and bits"
            )
        return GradedHistograms(self.counts + other.counts)

    def __len__(self) -> int:
        """Return the number of queries Q."""
        return len(self.counts)

    def __getitem__(self, queries: NDArray[np.integer | np.bool_]) -> GradedHistograms:
        """Return the histograms of the queries of an index array or a mask."""
        return GradedHistograms(self.counts[queries])

    @property
    def plain(self) -> Histograms:
        """All rows, and the relevant ones: those of grade 1 or more."""
        return Histograms(self.counts.sum(axis=1), self.counts[:, 1:].sum(axis=1))


def concatenate(parts: Sequence[Histograms]) -> Histograms:
    """Return the histograms of all queries of all parts, in order.

    Args:
        parts: histograms of different queries over one gallery.

    Raises:
        SchnRayError: no parts, or codes of different lengths.
    """
    if len({part.bits for part in parts}) != 1:
        raise SchnRayError(
            f"histograms of {[part.bits for part in parts]} bits; expected one or more "
            "of one length"
        )
    return Histograms(
        np.concatenate([part.all_rows for part in parts]),
        np.concatenate([part.relevant for part in parts]),
    )


def distance_histograms(
    query_codes: NDArray[np.uint8],
    query_labels: csr_array,
    gallery_codes: NDArray[np.uint8],
    gallery_labels: csr_array,
    bits: int,
) -> Histograms:
    """Count the gallery rows, all and relevant, at each Hamming distance from each query.

    Exact. Rows with the same code and the same label set are counted once, with their number as
    weight. Besides the arguments and the result, memory is a few copies of the codes and arrays of
    32,768 distances.

    Args:
        query_codes: packed codes [Q, ceil(bits/8)], bit b is bit b % 8 of byte b // 8.
        query_labels: label matrix [Q, C] of 0 and 1; a row may have no label, or two and more.
        gallery_codes: packed codes [G, ceil(bits/8)].
        gallery_labels: label matrix [G, C].
        bits: K.

    Raises:
        SchnRayError: codes of another length, bits set in the padding, or labels of another shape.
    """
    counts = _counts((query_codes, query_labels), (gallery_codes, gallery_labels), bits, grades=1)
    return Histograms(counts[:, 0] + counts[:, 1], counts[:, 1])


def graded_histograms(
    query_codes: NDArray[np.uint8],
    query_labels: csr_array,
    gallery_codes: NDArray[np.uint8],
    gallery_labels: csr_array,
    bits: int,
) -> GradedHistograms:
    """Count the gallery rows of each grade at each Hamming distance from each query.

    A row's grade is the number of labels that it shares with the query.

    Args:
        query_codes: packed codes [Q, ceil(bits/8)].
        query_labels: label matrix [Q, C] of 0 and 1.
        gallery_codes: packed codes [G, ceil(bits/8)].
        gallery_labels: label matrix [G, C].
        bits: K.

    Raises:
        SchnRayError: codes of another length, bits set in the padding, or labels of another shape.
    """
    grades = int(np.diff(query_labels.indptr).max(initial=1))
    sides = (query_codes, query_labels), (gallery_codes, gallery_labels)
    return GradedHistograms(_counts(*sides, bits, grades))


def without_themselves(histograms: Histograms, labels: csr_array) -> Histograms:
    """Remove each query from its own ranking, where the queries are the gallery's rows too.

    Args:
        histograms: of n rows over the same n rows.
        labels: of the rows [n, C].
    """
    itself = np.zeros_like(histograms.all_rows)
    itself[:, 0] = 1
    # a row without a label is not relevant to itself
    labelled = itself * (np.diff(labels.indptr) > 0)[:, None]
    return Histograms(histograms.all_rows - itself, histograms.relevant - labelled)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The distinct (code, label set) pairs of n rows, sorted by label set."""

    words: NDArray[np.uint64]  # [W, pairs]; codes as columns of 64-bit words
    label_set: Counts  # [pairs]
    sets: csr_array  # [L, C]
    rows: Counts  # [pairs], rows that have it
    pair_of_row: Counts  # [n]


def _collapse(codes: NDArray[np.uint8], labels: csr_array, bits: int) -> _Pairs:
    _check_codes(codes, labels, bits)
    known = label_sets(labels)
    words = as_words(codes)
    order = np.lexsort((*words, known.set_of_row))
    keys = np.concatenate([words, known.set_of_row[None].astype(np.uint64)])[:, order]
    new = np.any(keys[:, 1:] != keys[:, :-1], axis=0)
    number = np.concatenate([[0], np.cumsum(new)])[: len(order)]
    pair_of_row = np.empty_like(order)
    pair_of_row[order] = number
    first = order[np.flatnonzero(np.concatenate([[True], new])[: len(order)])]
    return _Pairs(
        words=words[:, first],
        label_set=known.set_of_row[first],
        sets=known.sets,
        rows=np.bincount(number),
        pair_of_row=pair_of_row,
    )


def _check_codes(codes: NDArray[np.uint8], labels: csr_array, bits: int) -> None:
    if bits < 1:
        raise SchnRayError(f"codes of {bits} bits; expected 1 or more")
    width = -(-bits // 8)
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != width:
        raise SchnRayError(
            f"codes are {codes.dtype} {codes.shape}; expected uint8 [n, {width}] for {bits} bits"
        )
    if len(codes) != labels.shape[0]:
        raise SchnRayError(
            f"{len(codes)} codes and {labels.shape[0]} rows of labels; expected as many"
        )
    if bits % 8 and np.any(codes[:, -1] >> (bits % 8)):
        raise SchnRayError(f"codes have bits set beyond bit {bits - 1}; expected zeros as padding")


def as_words(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Return codes as columns of 64-bit words [W, n], padded with zeros.

    Args:
        codes: packed [n, ceil(K / 8)].
    """
    padded = np.pad(codes, ((0, 0), (0, -codes.shape[1] % 8)))
    return np.ascontiguousarray(padded.view(np.uint64).T)


def _counts(queries: _Side, gallery: _Side, bits: int, grades: int) -> Counts:
    """Return the gallery rows of each grade, at most ``grades``, at each distance [Q, G+1, K+1]."""
    query_pairs, ranked = _collapse(*queries, bits), _collapse(*gallery, bits)
    if queries[1].shape[1] != gallery[1].shape[1]:
        raise SchnRayError(
            f"queries have {queries[1].shape[1]} classes, the gallery {gallery[1].shape[1]}; "
            "expected label matrices of one vocabulary"
        )
    counts = np.zeros((query_pairs.words.shape[1], grades + 1, bits + 1), np.int64)
    chunks = [_Chunk.of(ranked, start) for start in range(0, len(ranked.rows), _PAIRS_AT_ONCE)]
    narrow = np.min_scalar_type(counts[0].size)  # often a byte: memory bandwidth is the limit
    for mine, grade in _query_groups(query_pairs, ranked, grades):
        # each grade has its own range of cells, so one bincount counts all grades
        shifts = (grade * (bits + 1)).astype(narrow)
        for chunk in chunks:
            shift = shifts[chunk.label_set]
            for query in range(mine.start, mine.stop):
                cells = _distances(chunk.words, query_pairs.words[:, query], shift)
                counts[query] += _counted(cells, chunk.rows, counts[query].size).reshape(
                    counts[query].shape
                )
    return counts[query_pairs.pair_of_row]


_Side = tuple[NDArray[np.uint8], csr_array]


@dataclass(frozen=True, eq=False)
class _Chunk:
    """Consecutive gallery pairs, few enough for the processor's cache."""

    words: NDArray[np.uint64]
    label_set: Counts
    rows: NDArray[np.float64] | None  # weights for bincount; None where each pair is one row

    @staticmethod
    def of(pairs: _Pairs, start: int) -> _Chunk:
        part = slice(start, start + _PAIRS_AT_ONCE)
        rows = pairs.rows[part]
        weights = None if rows.max(initial=1) == 1 else rows.astype(np.float64)
        return _Chunk(np.ascontiguousarray(pairs.words[:, part]), pairs.label_set[part], weights)


def _counted(
    cells: NDArray[np.unsignedinteger], rows: NDArray[np.float64] | None, size: int
) -> Counts:
    counts = np.bincount(cells.astype(np.int64), rows, minlength=size)
    return counts.astype(np.int64, copy=False)


def _query_groups(
    queries: _Pairs, gallery: _Pairs, grades: int
) -> Iterator[tuple[slice, NDArray[np.int32]]]:
    """Yield the query pairs of each label set, and the grade of each gallery label set [L]."""
    sets = queries.sets.shape[0]
    bounds = np.searchsorted(queries.label_set, np.arange(sets + 1))
    at_once = max(1, _RELEVANCE_AT_ONCE // max(1, gallery.sets.shape[0]))
    for start in range(0, sets, at_once):
        shared = shared_labels(queries.sets[start : start + at_once], gallery.sets)
        for number, grade in enumerate(np.minimum(shared, grades), start):
            yield slice(int(bounds[number]), int(bounds[number + 1])), grade


def _distances(
    words: NDArray[np.uint64], query: NDArray[np.uint64], shift: NDArray[np.unsignedinteger]
) -> NDArray[np.unsignedinteger]:
    """Return the Hamming distances [pairs] of codes [W, pairs] to one code [W], and a shift."""
    total = shift + np.bitwise_count(words[0] ^ query[0])
    for column, word in zip(words[1:], query[1:], strict=True):
        total += np.bitwise_count(column ^ word)
    return total
