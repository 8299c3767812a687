"""Rows that repeat the id of an earlier row: known, and quarantined, when all rows are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from schn_ray.data.shards.receipts import ID, URI, UnitReceipt
from schn_ray.data.shards.rows import BadRow

Piece = TypeVar("Piece")
Column = Callable[[Piece, str], list[str]]


def repeated_ids(
    pieces: Sequence[Piece], column: Column[Piece]
) -> Iterator[tuple[Piece, dict[int, BadRow]]]:
    """Yield each piece that repeats ids of earlier rows, with these rows: number -> reason.

    Two passes, so that memory holds hashes of 8 bytes in place of ids: the second one looks only
    at ids whose hash came twice.

    Args:
        pieces: the rows in order, such as numbers of parts. The caller may write a piece again,
            without these rows, before it takes the next one.
        column: reads a column of a piece, given ``id`` or ``uri``.
    """
    hashes = [np.fromiter(map(hash, column(piece, ID)), np.int64) for piece in pieces]
    values = np.concatenate([np.zeros(0, np.int64), *hashes])
    values.sort()
    twice = np.unique(values[1:][values[1:] == values[:-1]])
    first_uris: dict[str, str] = {}
    for piece, of_piece in zip(pieces, hashes, strict=True):
        suspects = np.flatnonzero(np.isin(of_piece, twice)) if len(twice) else twice
        if len(suspects) and (repeated := _repeated(piece, column, suspects, first_uris)):
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


def _repeated(
    piece: Piece, column: Column[Piece], suspects: NDArray[np.int64], first_uris: dict[str, str]
) -> dict[int, BadRow]:
    ids, uris, repeated = column(piece, ID), column(piece, URI), {}
    for row in suspects.tolist():
        if ids[row] in first_uris:
            reason = f"same id as {first_uris[ids[row]]}"
            repeated[row] = BadRow(ids[row], uris[row], "id", reason)
        else:
            first_uris[ids[row]] = uris[row]
    return repeated
