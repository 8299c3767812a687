"""Which rows are equal: for each row the first one that has the same value, as a number.

Numbers of rows are compared in place of ids and hashes, which take several times the memory.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

FirstRows = NDArray[np.signedinteger]

_COMPARED = 1 << 16  # neighbours at once


def first_rows(values: NDArray[np.signedinteger]) -> FirstRows:
    """Return for each value [n] the first row that has it.

    >>> first_rows(np.array([7, 5, 7, 7, 5])).tolist()
    [0, 1, 0, 0, 1]
    """
    order = np.argsort(values, kind="stable")
    again = _equal_to_the_one_before(values, order)
    found = _rows(len(values))
    if len(again):
        begins = np.diff(again, prepend=-1) != 1
        first = again[begins] - 1
        found[order[again]] = order[first[np.cumsum(begins) - 1]]
    return found


def first_with_id(ids: pa.ChunkedArray) -> FirstRows:
    """Return for each id [n] the first row that has it."""
    hashes = [np.fromiter(map(hash, chunk.to_pylist()), np.int64) for chunk in ids.chunks]
    values = np.concatenate([np.zeros(0, np.int64), *hashes])
    del hashes
    values.sort()
    if (values[1:] != values[:-1]).all():
        return _rows(len(ids))
    return first_rows(ids.combine_chunks().dictionary_encode().indices.to_numpy())


def first_with_hash(sha256: pa.ChunkedArray) -> FirstRows:
    """Return for each hash [n] of 32 bytes, all of them compared, the first row that has it."""
    found = first_rows(_words(sha256, 0))
    again = np.flatnonzero(found != _rows(len(found)))
    for number in (1, 2, 3):
        words = _words(sha256, number)
        if (words[again] != words[found[again]]).any():
            whole = np.stack([_words(sha256, each) for each in range(4)], axis=1)
            return first_rows(np.unique(whole, axis=0, return_inverse=True)[1].reshape(-1))
    return found


def as_digests(column: pa.Array) -> NDArray[np.void]:
    """Return a column of hashes as it lies in memory: [n], 32 bytes each."""
    data = np.frombuffer(column.buffers()[1], "V32")
    return data[column.offset : column.offset + len(column)]


def _rows(count: int) -> FirstRows:
    return np.arange(count, dtype=np.int32 if count <= np.iinfo(np.int32).max else np.int64)


def _words(sha256: pa.ChunkedArray, number: int) -> NDArray[np.int64]:
    """Return the same 8 of each hash's bytes [n]."""
    words = (as_digests(chunk).view("<i8").reshape(-1, 4)[:, number] for chunk in sha256.chunks)
    return np.concatenate([np.zeros(0, np.int64), *words])


def _equal_to_the_one_before(
    values: NDArray[np.signedinteger], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the places in an order, ascending, where the place before has the same value."""
    found = [np.zeros(0, np.int64)]
    for start in range(0, len(order), _COMPARED):
        here = values[order[start : start + _COMPARED + 1]]
        found.append(start + 1 + np.flatnonzero(here[1:] == here[:-1]))
    return np.concatenate(found)
