"""Receipts: what a written shard answers for, unit by unit."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from schn_ray.data.shards.rows import BadRow, Unit

ID, URI = "id", "uri"


@dataclass(frozen=True, slots=True)
class UnitReceipt:
    """What became of one unit: coded + quarantined = its rows."""

    unit: Unit
    coded: int
    quarantined: tuple[BadRow, ...] = ()


@dataclass(frozen=True)
class Receipt:
    """What a part answers for; its rows stand in the order of these units.

    Attributes:
        number: of the part.
        done: unit by unit.
    """

    number: int
    done: tuple[UnitReceipt, ...]

    @property
    def rows(self) -> int:
        """Rows of the source."""
        return sum(done.unit.rows for done in self.done)

    @property
    def coded(self) -> int:
        """Rows of the part."""
        return sum(done.coded for done in self.done)

    @property
    def quarantined(self) -> list[BadRow]:
        """Rows that have no code, and why."""
        return [row for done in self.done for row in done.quarantined]


def plain(receipt: Receipt) -> list[Any]:
    """Return a receipt as plain values, for JSON."""
    return [receipt.number, *map(_plain, receipt.done)]


def receipt_of(values: list[Any]) -> Receipt:
    """Make a receipt of plain values; ``TypeError`` or ``ValueError`` where they are none."""
    number, *done = values
    return Receipt(
        number,
        tuple(
            UnitReceipt(Unit(file, start, rows, at), coded, tuple(BadRow(*row) for row in bad))
            for file, start, rows, at, coded, bad in done
        ),
    )


def _plain(done: UnitReceipt) -> list[Any]:
    unit = done.unit
    bad = [list(asdict(row).values()) for row in done.quarantined]
    return [unit.file, unit.start, unit.rows, unit.stamp, done.coded, bad]
