"""Somebody else's split: the ids of each role, from a store's own file, a CSV or JSON."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.data.splits.protocols import JUNK, ROLES, Split

_KNOWN = (*ROLES, JUNK)


def read_given(file: Path, ids: pa.ChunkedArray) -> Split:
    """Read a split and find its rows.

    Args:
        file: ``split.parquet`` or a CSV with columns ``role`` and ``id``, or JSON: an object with
            a list of ids a role. Roles are train, validation, query, gallery and junk.
        ids: [n] of the store's rows.

    Returns:
        role -> its rows, ascending.

    Raises:
        SchnRayError: not such a file, an unknown role, or an id that no row has.
    """
    named = _named(file)
    for role in named:
        if role not in _KNOWN:
            raise SchnRayError(
                f"{file}: no role '{role}'{nearest(role, list(_KNOWN))} There are: "
                f"{', '.join(_KNOWN)}"
            )
    together = ids.combine_chunks()
    return {
        role: _rows(file, role, named.get(role, []), together)
        for role in _KNOWN
        if role != JUNK or role in named
    }


def _rows(file: Path, role: str, wanted: list[str], ids: pa.Array) -> np.ndarray:
    places = pc.index_in(pa.array(wanted, pa.string()), value_set=ids)
    if places.null_count:
        unknown = [
            name for name, row in zip(wanted, places.to_pylist(), strict=True) if row is None
        ]
        raise SchnRayError(
            f"{file}: {len(unknown):,} of {len(wanted):,} {role} ids are not in this source, such "
            f"as {unknown[0]!r}; its ids look like {ids[0].as_py() if len(ids) else None!r}"
        )
    return np.unique(places.to_numpy().astype(np.int64))


def _named(file: Path) -> dict[str, list[str]]:
    try:
        if file.suffix == ".json":
            values = json.loads(file.read_text())
            if not isinstance(values, dict) or not all(map(_is_ids, values.values())):
                raise ValueError("wanted an object with a list of ids a role")
            return values
        pairs = _of_csv(file) if file.suffix == ".csv" else _of_parquet(file)
    except (OSError, ValueError, KeyError, csv.Error, pa.ArrowException) as error:
        raise SchnRayError(f"{file} is no split: {error}; wanted columns role and id") from error
    found: dict[str, list[str]] = {}
    for role, row_id in pairs:
        found.setdefault(role, []).append(row_id)
    return found


def _is_ids(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(row_id, str) for row_id in value)


def _of_csv(file: Path) -> list[tuple[str, str]]:
    with file.open(newline="", encoding="utf-8-sig") as text:
        reader = csv.DictReader(text, strict=True)
        if not {"role", "id"} <= set(reader.fieldnames or ()):
            raise ValueError(f"its header is {reader.fieldnames}")
        rows = [(row["role"], row["id"]) for row in reader]
    for number, (role, row_id) in enumerate(rows, 2):
        if not role or row_id is None:
            raise ValueError(f"line {number} has no role or no id")
    return rows


def _of_parquet(file: Path) -> list[tuple[str, str]]:
    table = pq.read_table(file, columns=["role", "id"])
    return list(zip(table["role"].to_pylist(), map(str, table["id"].to_pylist()), strict=True))
