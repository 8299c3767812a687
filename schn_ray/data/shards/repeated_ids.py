"""Rows that repeat the id of an earlier row: known, and quarantined, when all rows are written."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.atomic_files import FileWriter
from schn_ray.data.shards.receipts import ID, URI, UnitReceipt
from schn_ray.data.shards.rows import BadRow

Piece = TypeVar("Piece")
Column = Callable[[Piece, str], list[str]]

_AT_ONCE = 1 << 18  # hashes in memory; more go to files
_BUCKETS = 256  # at 1e8 rows, 390,625 hashes each
_HASH = np.dtype([("hash", np.int64), ("piece", np.int32)])


def repeated_ids(
    pieces: Sequence[Piece], column: Column[Piece]
) -> Iterator[tuple[Piece, dict[int, BadRow]]]:
    """Yield each piece that repeats ids of earlier rows, with these rows: number -> reason.

    Two passes: the first one takes hashes of ids, the second one looks only at pieces with an id
    whose hash came twice, and at these ids. More hashes than ``_AT_ONCE`` are sorted into temporary
    files by their last bits, 12 bytes a row, and compared file by file.

    Args:
        pieces: the rows in order, such as numbers of parts. The caller may write a piece again,
            without these rows, before it takes the next one.
        column: reads a column of a piece, given ``id`` or ``uri``.
    """
    twice, suspects = _hashes_that_come_twice(pieces, column)
    first_uris: dict[str, str] = {}
    for number in suspects.tolist():
        piece = pieces[number]
        ids = column(piece, ID)
        rows = np.flatnonzero(np.isin(_hashes(ids), twice))
        if repeated := _repeated(piece, ids, column, rows, first_uris):
            yield piece, repeated


def quarantine_rows(
    units: Sequence[UnitReceipt], rows: Mapping[int, BadRow]
) -> tuple[UnitReceipt, ...]:
    """Return the receipts of units after more of their rows were quarantined.

    Args:
        units: of one part, in the order of its rows.
        rows: row of the part -> reason.
    """
    changed, start = list[UnitReceipt](), 0
    for done in units:
        bad = tuple(rows[row] for row in range(start, start + done.written) if row in rows)
        changed.append(UnitReceipt(done.unit, done.written - len(bad), done.quarantined + bad))
        start += done.written
    return tuple(changed)


def rows_without(count: int, rows: Mapping[int, BadRow]) -> NDArray[np.int64]:
    """Return the row numbers 0 to ``count`` - 1 without those of ``rows``.

    Args:
        count: rows of a part.
        rows: row of the part -> why it is left out.
    """
    return np.array([row for row in range(count) if row not in rows], np.int64)


def _hashes(ids: list[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, ids), np.int64, len(ids))


def _hashes_that_come_twice(
    pieces: Sequence[Piece], column: Column[Piece]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return the hashes, and the numbers of the pieces that have them, ascending."""
    twice, numbers = [np.zeros(0, np.int64)], [np.zeros(0, np.int32)]
    with tempfile.TemporaryDirectory(prefix="schn-ray-ids-") as folder:
        for bucket in _buckets(pieces, column, Path(folder)):
            # by this field: sorting both takes ten times as long
            bucket = bucket[np.argsort(bucket["hash"])]
            hashes = bucket["hash"]
            again = np.flatnonzero(hashes[1:] == hashes[:-1])
            repeated = bucket[np.union1d(again, again + 1)]
            twice.append(np.unique(repeated["hash"]))
            numbers.append(np.unique(repeated["piece"]))
    return np.concatenate(twice), np.unique(np.concatenate(numbers))


def _buckets(
    pieces: Sequence[Piece], column: Column[Piece], folder: Path
) -> Iterator[NDArray[np.void]]:
    """Yield all hashes with the numbers of their pieces; equal hashes are in one bucket."""
    waiting, count = list[NDArray[np.void]](), 0
    files = list[FileWriter]()
    for number, piece in enumerate(pieces):
        hashes = _hashes(column(piece, ID))
        waiting.append(np.empty(len(hashes), _HASH))
        waiting[-1]["hash"], waiting[-1]["piece"] = hashes, number
        count += len(hashes)
        if count >= _AT_ONCE:
            files = files or [FileWriter(folder / str(name)) for name in range(_BUCKETS)]
            _write(waiting, files)
            waiting, count = [], 0
    if not files:
        yield np.concatenate([np.zeros(0, _HASH), *waiting])
        return
    _write(waiting, files)
    for file in files:
        file.close()
    for name in range(_BUCKETS):
        yield np.fromfile(folder / str(name), _HASH)


def _write(hashes: list[NDArray[np.void]], files: list[FileWriter]) -> None:
    rows = np.concatenate([np.zeros(0, _HASH), *hashes])
    bucket = rows["hash"] % len(files)
    order = np.argsort(bucket, kind="stable")
    ends = np.searchsorted(bucket[order], np.arange(1, len(files) + 1))
    start = 0
    for file, end in zip(files, ends.tolist(), strict=True):
        file.write(rows[order[start:end]].tobytes())
        start = end


def _repeated(
    piece: Piece,
    ids: list[str],
    column: Column[Piece],
    suspects: NDArray[np.int64],
    first_uris: dict[str, str],
) -> dict[int, BadRow]:
    uris, repeated = column(piece, URI), {}
    for row in suspects.tolist():
        if ids[row] in first_uris:
            reason = f"same id as {first_uris[ids[row]]}"
            repeated[row] = BadRow(ids[row], uris[row], "id", reason)
        else:
            first_uris[ids[row]] = uris[row]
    return repeated
