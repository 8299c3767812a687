"""Quarantined rows: written to a file with their reasons; too many of them stop the job."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.core.errors import TooManyBadRows
from schn_ray.data.shards.rows import BadRow

QUARANTINE = "quarantine.parquet"
_BAD_ROWS = pa.schema(dict.fromkeys(("id", "uri", "stage", "reason"), pa.string()))


def refuse_too_many(bad_rows: list[BadRow], rows: int, allowed: float) -> None:
    """Stop if a larger share of the rows is bad than allowed.

    Args:
        bad_rows: the quarantined rows.
        rows: how many there are in all.
        allowed: the share that may be bad, 0 to 1.

    Raises:
        TooManyBadRows: with the count, the share and the first few rows.
    """
    if len(bad_rows) <= allowed * rows:
        return
    named = "\n".join(f"  {row.id} ({row.uri}): {row.reason}" for row in bad_rows[:5])
    more = f"\n  and {len(bad_rows) - 5:,} more" if len(bad_rows) > 5 else ""
    raise TooManyBadRows(
        f"{len(bad_rows):,} of {rows:,} rows are bad, more than max_bad_share = {allowed:g} "
        f"allows:\n{named}{more}\n'schn-ray check' names them all: repair or remove them, or allow "
        "more with --set source.max_bad_share=0.2"
    )


def write_quarantine(directory: Path, bad_rows: list[BadRow]) -> None:
    """Write ``quarantine.parquet``: id, uri, stage and reason of each row; also if there is none.

    Args:
        directory: local.
        bad_rows: the quarantined rows.
    """
    table = pa.Table.from_pylist([asdict(row) for row in bad_rows], _BAD_ROWS)
    pq.write_table(table, directory / QUARANTINE)
