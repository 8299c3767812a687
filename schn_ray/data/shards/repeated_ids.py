"""Rows whose id an earlier row has: known only when all are written, and put aside then."""

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
    """Yield each piece of the rows in which ids repeat: row -> why; who came first keeps the id.

    Two passes, so that memory holds hashes of 8 bytes in place of ids: the second reads only the
    ids whose hash came twice.

    Args:
        pieces: in order; whoever takes one may write it again without these rows.
        column: reads a column of a piece: ``id`` or ``uri``.
    """
    hashes = [np.fromiter(map(hash, column(piece, ID)), np.int64) for piece in pieces]
    values = np.concatenate([np.zeros(0, np.int64), *hashes])
    values.sort()
    twice = np.unique(values[1:][values[1:] == values[:-1]])
    first: dict[str, str] = {}
    for piece, of_piece in zip(pieces, hashes, strict=True):
        suspects = np.flatnonzero(np.isin(of_piece, twice)) if len(twice) else twice
        if len(suspects) and (found := _repeated(piece, column, suspects, first)):
            yield piece, found


def quarantine_rows(
    done: Sequence[UnitReceipt], rows: Mapping[int, BadRow]
) -> tuple[UnitReceipt, ...]:
    """Return what became of units when these rows of theirs are put aside, too."""
    changed, start = list[UnitReceipt](), 0
    for one in done:
        bad = tuple(rows[row] for row in range(start, start + one.coded) if row in rows)
        changed.append(UnitReceipt(one.unit, one.coded - len(bad), one.quarantined + bad))
        start += one.coded
    return tuple(changed)


def rows_without(count: int, rows: Mapping[int, BadRow]) -> NDArray[np.int64]:
    """Return the numbers of the other rows of so many."""
    return np.array([row for row in range(count) if row not in rows], np.int64)


def _repeated(
    piece: Piece, column: Column[Piece], suspects: NDArray[np.int64], first: dict[str, str]
) -> dict[int, BadRow]:
    ids, uris, found = column(piece, ID), column(piece, URI), {}
    for row in suspects.tolist():
        if ids[row] in first:
            found[row] = BadRow(ids[row], uris[row], "id", f"same id as {first[ids[row]]}")
        else:
            first[ids[row]] = uris[row]
    return found
