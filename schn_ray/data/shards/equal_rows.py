"""Which rows have equal values: for each row, the number of the first row with the same value.

Row numbers are returned, not ids or hashes, which would take several times the memory.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FirstRows = NDArray[np.signedinteger]

_COMPARED = 1 << 16  # neighbours at once


def first_rows(values: NDArray[np.signedinteger]) -> FirstRows:
    """Return for each value the first row that has it.

    Args:
        values: [n] integers.

    Returns:
        [n] row numbers.

    Example:
        >>> first_rows(np.array([7, 5, 7, 7, 5])).tolist()
        [0, 1, 0, 0, 1]
    """
    order = np.argsort(values, kind="stable")
    repeats = _equal_to_the_one_before(values, order)
    first_of = _row_numbers(len(values))
    if len(repeats):
        begins = np.diff(repeats, prepend=-1) != 1
        first = repeats[begins] - 1
        first_of[order[repeats]] = order[first[np.cumsum(begins) - 1]]
    return first_of


def first_with_id(ids: pa.ChunkedArray) -> FirstRows:
    """Return for each id the first row that has it.

    Args:
        ids: [n] strings.

    Returns:
        [n] row numbers.
    """
    hashes = [np.fromiter(map(hash, chunk.to_pylist()), np.int64) for chunk in ids.chunks]
    values = np.concatenate([np.zeros(0, np.int64), *hashes])
    del hashes
    values.sort()
    if (values[1:] != values[:-1]).all():
        return _row_numbers(len(ids))
    return first_rows(ids.combine_chunks().dictionary_encode().indices.to_numpy())


def first_with_hash(sha256: pa.ChunkedArray) -> FirstRows:
    """Return for each SHA-256, all of its bytes compared, the first row that has it.

    Args:
        sha256: [n] hashes of 32 bytes.

    Returns:
        [n] row numbers.
    """
    first_of = first_rows(_words(sha256, 0))
    repeats = np.flatnonzero(first_of != _row_numbers(len(first_of)))
    for number in (1, 2, 3):
        words = _words(sha256, number)
        if (words[repeats] != words[first_of[repeats]]).any():
            whole = np.stack([_words(sha256, each) for each in range(4)], axis=1)
            return first_rows(np.unique(whole, axis=0, return_inverse=True)[1].reshape(-1))
    return first_of


def as_digests(column: pa.Array) -> NDArray[np.void]:
    """Return a column of hashes without a copy: [n], 32 bytes each.

    Args:
        column: [n] hashes of 32 bytes, perhaps a slice.
    """
    data = np.frombuffer(column.buffers()[1], "V32")
    return data[column.offset : column.offset + len(column)]


def _row_numbers(count: int) -> FirstRows:
    return np.arange(count, dtype=np.int32 if count <= np.iinfo(np.int32).max else np.int64)


def _words(sha256: pa.ChunkedArray, number: int) -> NDArray[np.int64]:
    """Return one of the four words of 8 bytes of each hash [n]."""
    words = (as_digests(chunk).view("<i8").reshape(-1, 4)[:, number] for chunk in sha256.chunks)
    return np.concatenate([np.zeros(0, np.int64), *words])


def _equal_to_the_one_before(
    values: NDArray[np.signedinteger], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the positions in an order, ascending, at which the value is the one before again."""
    positions = [np.zeros(0, np.int64)]
    for start in range(0, len(order), _COMPARED):
        chunk = values[order[start : start + _COMPARED + 1]]
        positions.append(start + 1 + np.flatnonzero(chunk[1:] == chunk[:-1]))
    return np.concatenate(positions)
