"""Receipts: which units of a source the rows of a part come from, and what became of each unit."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from schn_ray.data.shards.rows import BadRow, Unit

ID, URI = "id", "uri"


@dataclass(frozen=True, slots=True)
class UnitReceipt:
    """What became of one unit: ``written`` + quarantined rows = the unit's rows.

    Attributes:
        unit: which file, or which rows of a file.
        written: how many of its rows are in the part.
        quarantined: its rows that are not, with their reasons.
    """

    unit: Unit
    written: int
    quarantined: tuple[BadRow, ...] = ()


@dataclass(frozen=True)
class Receipt:
    """What a part file contains.

    Attributes:
        number: the part's number.
        units: one receipt per unit; the part's rows have the order of these units.
        sha256: hexadecimal SHA-256 of the part file.
        size: of the part file, in bytes.
    """

    number: int
    units: tuple[UnitReceipt, ...]
    sha256: str
    size: int

    @property
    def written(self) -> int:
        """How many rows the part has."""
        return sum(done.written for done in self.units)

    @property
    def quarantined(self) -> list[BadRow]:
        """The rows of its units that are not in the part, with their reasons."""
        return [row for done in self.units for row in done.quarantined]


def receipt_to_bytes(receipt: Receipt) -> bytes:
    """Return a receipt as compressed JSON; equal receipts give equal bytes.

    Compressed, because it repeats the names of all files, which are longer than their codes.

    Args:
        receipt: of one part.
    """
    values = [receipt.sha256, receipt.size, receipt.number, *map(_plain_values, receipt.units)]
    return gzip.compress(json.dumps(values).encode(), mtime=0)


def receipt_from_bytes(data: bytes) -> Receipt:
    """Read what ``receipt_to_bytes`` returned.

    Args:
        data: the bytes of a receipt file.

    Raises:
        ValueError: these bytes are not a receipt.
    """
    with _no_receipt():
        sha256, size, number, *units = json.loads(gzip.decompress(data))
        return Receipt(number, tuple(_unit_receipt(*values) for values in units), sha256, size)


@dataclass(frozen=True)
class ReceiptTotals:
    """What a receipt has in all, without its units.

    Attributes:
        sha256: hexadecimal SHA-256 of the part file.
        size: of the part file, in bytes.
        written: rows of the part.
        quarantined: the rows that are not in it.
    """

    sha256: str
    size: int
    written: int
    quarantined: tuple[BadRow, ...]


def totals_from_bytes(data: bytes) -> ReceiptTotals:
    """Read the totals of a receipt; several times as fast as ``receipt_from_bytes``.

    Args:
        data: the bytes of a receipt file.

    Raises:
        ValueError: these bytes are not a receipt.
    """
    with _no_receipt():
        sha256, size, _, *units = json.loads(gzip.decompress(data))
        bad = tuple(BadRow(*row) for unit in units for row in unit[5])
        return ReceiptTotals(sha256, size, sum(unit[4] for unit in units), bad)


@contextmanager
def _no_receipt() -> Iterator[None]:
    """Turn whatever bytes that are no receipt cause into a ValueError."""
    try:
        yield
    except (OSError, EOFError, TypeError, IndexError, zlib.error) as error:  # OSError: no gzip
        raise ValueError(str(error)) from error


def _plain_values(done: UnitReceipt) -> list[Any]:
    unit = done.unit
    bad = [list(asdict(row).values()) for row in done.quarantined]
    return [unit.file, unit.start, unit.rows, unit.stamp, done.written, bad]


def _unit_receipt(
    file: str, start: int, rows: int, stamp: str, written: int, bad: list[list[str]]
) -> UnitReceipt:
    return UnitReceipt(Unit(file, start, rows, stamp), written, tuple(BadRow(*row) for row in bad))
