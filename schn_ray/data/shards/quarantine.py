"""Quarantined rows: written to a file with their reasons; too many of them stop the job."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.core.atomic_files import writing
from schn_ray.core.errors import TooManyBadRows
from schn_ray.data.images import HEIC_EXTRA, NO_HEIC
from schn_ray.data.shards.rows import BadRow

QUARANTINE = "quarantine.parquet"
_NAMED = 5  # in an error
_AT_ONCE = 1 << 16
_BAD_ROWS = pa.schema(dict.fromkeys(("id", "uri", "stage", "reason"), pa.string()))


@dataclass(frozen=True)
class Quarantine:
    """The quarantined rows of a directory, which are in its ``quarantine.parquet``.

    Attributes:
        rows: how many there are.
        first: the first few of them.
        heic: how many are HEIC images that no installed library reads.
    """

    rows: int
    first: tuple[BadRow, ...]
    heic: int = 0

    def __str__(self) -> str:
        named = "\n".join(f"  {row.id} ({row.uri}): {row.reason}" for row in self.first)
        more = self.rows - len(self.first)
        return f"{named}\n  and {more:,} more" if more else named


def refuse_too_many(quarantine: Quarantine, rows: int, allowed: float) -> None:
    """Stop if a larger share of the rows is bad than allowed.

    Args:
        quarantine: the quarantined rows.
        rows: how many there are in all.
        allowed: the share that may be bad, 0 to 1.

    Raises:
        TooManyBadRows: with the count, the share and the first few rows.
    """
    if quarantine.rows <= allowed * rows:
        return
    share = share_to_allow(quarantine.rows, rows)
    allow = f", or allow more with --set source.max_bad_share={share:g}" if share < 1 else ""
    heic = f"\n{heic_line(quarantine.heic)}, then add --update" if quarantine.heic else ""
    raise TooManyBadRows(
        f"{quarantine.rows:,} of {rows:,} rows are bad, more than max_bad_share = {allowed:g} "
        f"allows:\n{quarantine}{heic}\n'schn-ray check' names them all: repair or remove them"
        f"{allow}"
    )


def share_to_allow(bad: int, rows: int) -> float:
    """Return the least ``source.max_bad_share`` of two digits that allows so many bad rows.

    Args:
        bad: rows.
        rows: how many there are in all.

    >>> share_to_allow(2, 8), share_to_allow(1, 3)
    (0.25, 0.34)
    """
    return math.ceil(100 * bad / rows) / 100


def heic_line(files: int) -> str:
    """Return what to do about HEIC images that no installed library reads.

    Args:
        files: how many there are.

    >>> heic_line(6)
    "6 .heic files skipped: pip install 'schn-ray[heic]'"
    """
    return f"{files:,} .heic {'file' if files == 1 else 'files'} skipped: pip install {HEIC_EXTRA}"


def write_quarantine(directory: Path, bad_rows: Iterable[BadRow]) -> Quarantine:
    """Write ``quarantine.parquet``: id, uri, stage and reason of each row; also if there is none.

    Args:
        directory: local.
        bad_rows: the quarantined rows, which may be more than memory holds.

    Raises:
        CannotWrite: the disk is full, say.
    """
    rows, path = iter(bad_rows), directory / QUARANTINE
    chunk = list(islice(rows, _AT_ONCE))
    first, count, heic = tuple(chunk[:_NAMED]), len(chunk), _heic(chunk)
    with writing(path):
        writer = pq.ParquetWriter(path, _BAD_ROWS)
        writer.write_table(_table(chunk))
    while chunk := list(islice(rows, _AT_ONCE)):
        count, heic = count + len(chunk), heic + _heic(chunk)
        with writing(path):
            writer.write_table(_table(chunk))
    with writing(path):
        writer.close()
    return Quarantine(count, first, heic)


def _heic(bad_rows: list[BadRow]) -> int:
    return sum(row.reason == NO_HEIC for row in bad_rows)


def _table(bad_rows: list[BadRow]) -> pa.Table:
    return pa.Table.from_pylist([asdict(row) for row in bad_rows], _BAD_ROWS)
