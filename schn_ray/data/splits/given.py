"""Read an existing split: the ids of each role, from another store's file, CSV or JSON."""

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

_ROLES = (*ROLES, JUNK)


def read_given(file: Path, ids: pa.ChunkedArray) -> Split:
    """Read a split, and find the rows of its ids.

    Args:
        file: ``split.parquet`` or a CSV with columns ``role`` and ``id``, or JSON: an object with
            a list of ids for each role. Roles are train, validation, query, gallery and junk.
        ids: [n] id of every row.

    Returns:
        role -> its rows, ascending.

    Raises:
        SchnRayError: the file has another format, an unknown role, or an id that no row has.
    """
    ids_of_role = read_ids(file)
    all_ids = ids.combine_chunks()
    return {
        role: _rows(file, role, ids_of_role.get(role, []), all_ids)
        for role in _ROLES
        if role != JUNK or role in ids_of_role
    }


def _rows(file: Path, role: str, role_ids: list[str], ids: pa.Array) -> np.ndarray:
    rows = pc.index_in(pa.array(role_ids, pa.string()), value_set=ids)
    if rows.null_count:
        unknown = [
            row_id for row_id, row in zip(role_ids, rows.to_pylist(), strict=True) if row is None
        ]
        raise SchnRayError(
            f"{file}: {len(unknown):,} of {len(role_ids):,} {role} ids are not in this source, "
            f"such as {unknown[0]!r}; its ids look like {ids[0].as_py() if len(ids) else None!r}"
        )
    return np.unique(rows.to_numpy().astype(np.int64))


def read_ids(file: Path) -> dict[str, list[str]]:
    """Read the ids of each role; what is wrong with the file shows before any row is read.

    Args:
        file: see ``read_given``.

    Returns:
        role -> ids.

    Raises:
        SchnRayError: the file has another format, or an unknown role.
    """
    ids_of_role = _parsed(file)
    for role in ids_of_role:
        if role not in _ROLES:
            raise SchnRayError(
                f"{file}: no role '{role}'{nearest(role, list(_ROLES)) or '.'} There are: "
                f"{', '.join(_ROLES)}"
            )
    return ids_of_role


def _parsed(file: Path) -> dict[str, list[str]]:
    try:
        if file.suffix == ".json":
            values = json.loads(file.read_text())
            if not isinstance(values, dict) or not all(map(_is_ids, values.values())):
                raise ValueError("wanted an object with a list of ids for each role")
            return values
        pairs = _of_csv(file) if file.suffix == ".csv" else _of_parquet(file)
    except (OSError, ValueError, KeyError, csv.Error, pa.ArrowException) as error:
        raise SchnRayError(f"{file} is no split: {error}; wanted columns role and id") from error
    ids_of_role: dict[str, list[str]] = {}
    for role, row_id in pairs:
        ids_of_role.setdefault(role, []).append(row_id)
    return ids_of_role


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
