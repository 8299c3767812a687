"""What the rows of an index were made of: a digest a row, and the rows that have a digest.

``contents`` holds the first 16 bytes of the SHA-256 of each row's image (or vector), in the order
of the rows, zeros where it is not known; ``by_content`` has the row numbers in the order of these
digests, equal ones by row. Together they take 20 bytes a row. An index of codes that record no
digest has neither file.

``put_identical_first`` orders ties by it. Let R be the first c rows of a query by (key, id), where
the key is a distance or a negated score, and T all rows with the query's own digest. The first c
rows by (key, not in T, id) are among R and T: who is not in T has, in this order, at least those
before it that it had in the other, so it is in R or behind the first c. All of T is looked up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.atomic_files import FileWriter
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.code_files import SHA256, packed_codes
from schn_ray.retrieval.index.checked_files import CheckedFile
from schn_ray.retrieval.index.matches import Scored
from schn_ray.retrieval.index.scan import Bytes
from schn_ray.retrieval.index.scores import weights_of

CONTENTS, BY_CONTENT = "contents", "by_content"  # names of files
DIGEST = 16  # bytes of a SHA-256; two images of equal bytes that differ cannot be made on purpose


class Contents:
    """The digests of an index's rows, mapped.

    Args:
        files: the index's files by name.
        rows: of the index.

    Raises:
        SchnRayError: a file has another size than so many rows have.
    """

    def __init__(self, files: Mapping[str, CheckedFile], rows: int) -> None:
        self._digest_file, self._order_file = files[CONTENTS], files[BY_CONTENT]
        for file, size in ((self._digest_file, DIGEST * rows), (self._order_file, 4 * rows)):
            if len(file.data) != size:
                raise SchnRayError(f"{file.path} is damaged; make the index again")
        self._digests = self._digest_file.array(np.uint8).reshape(rows, DIGEST)
        self._order = self._order_file.array(np.uint32)

    def of(self, rows: NDArray[np.int64]) -> Bytes:
        """Return the digests of rows: uint8 [r, 16]."""
        self._digest_file.check(DIGEST * rows, DIGEST * (rows + 1))
        return self._digests[rows]

    def rows_of(self, digests: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return all pairs of a digest and a row that has it, in the order of digests, then rows.

        Args:
            digests: uint8 [q, 16]; zeros have no rows.

        Returns:
            Numbers of digests, int64 [p], and of rows, int64 [p].
        """
        first, second = _words(digests)
        low, high = (self._position(first, after) for after in (False, True))
        counts = np.where(digests.any(axis=1), high - low, 0)
        number = np.repeat(np.arange(len(digests)), counts)
        at = np.arange(len(number)) + np.repeat(low - (np.cumsum(counts) - counts), counts)
        rows = self._rows_at(at)
        same = _words(self.of(rows))[1] == second[number]
        return number[same], rows[same]

    def _position(self, words: NDArray[np.uint64], after: bool) -> NDArray[np.int64]:
        """Return how many digests, by their first words, are before each word, or not after it."""
        low, high = np.zeros(len(words), np.int64), np.full(len(words), len(self._order), np.int64)
        while (open_ := low < high).any():
            middle = (low[open_] + high[open_]) // 2
            probed = _words(self.of(self._rows_at(middle)))[0]
            right = probed <= words[open_] if after else probed < words[open_]
            low[open_] = np.where(right, middle + 1, low[open_])
            high[open_] = np.where(right, high[open_], middle)
        return low

    def _rows_at(self, at: NDArray[np.int64]) -> NDArray[np.int64]:
        self._order_file.check(4 * at, 4 * at + 4)
        return self._order[at].astype(np.int64)


def open_contents(files: Mapping[str, CheckedFile], rows: int) -> Contents | None:
    """Return the digests of an index; None if it was built without.

    Args:
        files: the index's files by name.
        rows: of the index.
    """
    return Contents(files, rows) if CONTENTS in files else None


def contents_of(table: pa.Table) -> Bytes:
    """Return the digests of rows of codes: uint8 [n, 16], zeros where none is recorded.

    Args:
        table: with or without a column ``sha256``.
    """
    known = SHA256 in table.column_names and table[SHA256].type == pa.binary(32)
    if not known or table[SHA256].null_count:
        return np.zeros((len(table), DIGEST), np.uint8)
    return packed_codes(table, SHA256)[:, :DIGEST]


def write_contents(folder: Path, digests: Bytes) -> None:
    """Write the two files, unless no digest is known.

    Args:
        folder: of the index.
        digests: uint8 [n, 16], in the order of the rows.
    """
    if not digests.any():
        return
    order = np.argsort(_words(digests)[0], kind="stable").astype(np.uint32)
    for name, array in ((CONTENTS, digests), (BY_CONTENT, order)):
        with FileWriter(folder / name) as file:
            file.write(np.ascontiguousarray(array).data.cast("B"))


def _words(digests: Bytes) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    words = np.ascontiguousarray(digests).view(">u8").astype(np.uint64)
    return words[:, 0], words[:, 1]


class RowsOfContents(Protocol):
    """An index that knows which rows have a digest."""

    def codes(self, rows: NDArray[np.int64]) -> Bytes:
        """Return the packed codes of rows."""

    def same_contents(self, digests: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return pairs of a digest and a row that has it; those of a digest in order of ids."""


def put_identical_first_scored(
    index: RowsOfContents,
    relaxed: NDArray[np.floating],
    digests: Bytes | None,
    scored: Scored,
    radius: int | None = None,
) -> None:
    """Let rows of the query's own bytes come first among equal scores q . b.

    Args:
        index: that was searched.
        relaxed: [q, bits], the queries.
        digests: see ``put_identical_first``.
        scored: the result, whose arrays are changed.
        radius: of the search, in bits.
    """
    weights = weights_of(relaxed)

    def score_of(query: int, codes: Bytes) -> NDArray[np.float64]:
        of_query = weights[np.array([query])]
        losses = of_query.losses(codes[None])[0]
        return of_query.scores(np.zeros(len(codes), np.int64), losses)

    put_identical_first(
        index,
        weights.codes,
        digests,
        scored.starts,
        scored.rows,
        scored.distances,
        radius,
        scored.scores,
        score_of,
    )


class ScoreOfRows(Protocol):
    """Scores rows, for a search by score."""

    def __call__(self, query: int, codes: Bytes, /) -> NDArray[np.float64]:
        """Return the scores of codes uint8 [r, w] for a query."""


def put_identical_first(
    index: RowsOfContents,
    codes: Bytes,
    digests: Bytes | None,
    starts: NDArray[np.int64],
    rows: NDArray[np.int64],
    distances: NDArray[np.int32],
    radius: int | None = None,
    scores: NDArray[np.float64] | None = None,
    score_of: ScoreOfRows | None = None,
) -> None:
    """Let rows of the query's own bytes come first among equal distances, or equal scores.

    Args:
        index: that was searched.
        codes: uint8 [q, w], of the queries.
        digests: uint8 [q, 16], of the queries' bytes; zeros where they are not known, None if none
            is.
        starts: int64 [q + 1], where each query's rows begin.
        rows: int64 [m], changed in this array, as the next two.
        distances: int32 [m].
        radius: of the search, in bits.
        scores: float64 [m], of a search by score.
        score_of: the scores of other rows, of a search by score.
    """
    if digests is None or not digests.any():
        return
    number, twins = index.same_contents(digests)
    bounds = np.searchsorted(number, np.arange(len(digests) + 1))
    for query in np.unique(number).tolist():
        own = slice(int(starts[query]), int(starts[query + 1]))
        twin = twins[bounds[query] : bounds[query + 1]]
        twin_codes = index.codes(twin)
        apart = np.bitwise_count(twin_codes ^ codes[query]).sum(axis=1, dtype=np.int32)
        near = apart <= (radius if radius is not None else apart.max())
        twin, apart = twin[near], apart[near]
        others = ~np.isin(rows[own], twin)
        columns: list[tuple[NDArray[Any], NDArray[Any]]] = [(rows, twin), (distances, apart)]
        keys = np.concatenate([apart, distances[own][others]]).astype(np.float64)
        if scores is not None and score_of is not None:
            twin_scores = score_of(query, twin_codes[near])
            columns.append((scores, twin_scores))
            keys = -np.concatenate([twin_scores, scores[own][others]])
        order = np.argsort(keys, kind="stable")[: own.stop - own.start]
        for column, values in columns:
            column[own] = np.concatenate([values, column[own][others]])[order]
