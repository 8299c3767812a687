"""SQLite with sqlite-vec: ``codes`` and ``rows`` in ``codes.sqlite``, joined by the row's number.

Ids, paths and labels (as JSON) are in a table of their own, as sqlite-vec 0.1.9 never frees some 70
bytes for each value of an auxiliary column. By way of apsw, as Python's own ``sqlite3`` often
cannot load an extension.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

from schn_ray.retrieval.engines.engine import Engine, Target, errors_of
from schn_ray.retrieval.engines.gallery import CodeGallery, RowBatch

FILE = "codes.sqlite"
_MOST_BITS = 8192  # of a vector of sqlite-vec


def _write(gallery: CodeGallery, batches: Iterator[RowBatch], folder: Path) -> None:
    import apsw
    import sqlite_vec

    bits = -(-gallery.bits // 8) * 8
    labels = ", labels TEXT NOT NULL" if gallery.store is not None else ""
    columns = f"number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, uri TEXT NOT NULL{labels}"
    insert_code = "INSERT INTO codes(rowid, code) VALUES (?, vec_bit(?))"
    insert_row = f"INSERT INTO rows VALUES (?, ?, ?{', ?' if labels else ''})"
    first = 0
    with (
        errors_of("SQLite", apsw.Error),
        contextlib.closing(apsw.Connection(str(folder / FILE))) as connection,
    ):
        connection.enable_load_extension(True)
        connection.load_extension(sqlite_vec.loadable_path())
        connection.execute("PRAGMA synchronous = OFF")  # what is not finished is removed anyway
        connection.execute(f"CREATE VIRTUAL TABLE codes USING vec0(code bit[{bits}])")
        connection.execute(f"CREATE TABLE rows ({columns})")
        for batch in batches:
            with connection:
                codes = enumerate(map(bytes, batch.codes), first)
                connection.executemany(insert_code, codes)
                connection.executemany(insert_row, _values(batch, first))
            first += len(batch.ids)


def _values(batch: RowBatch, first: int) -> Iterator[tuple[int | str, ...]]:
    numbers = range(first, first + len(batch.ids))
    columns = [numbers, batch.ids.to_pylist(), batch.uris.to_pylist()]
    if batch.labels is not None:
        columns.append([json.dumps(names) for names in batch.labels.to_pylist()])
    return zip(*columns, strict=True)


def _recipe(target: Target) -> str:
    return f'''import apsw, sqlite_vec

{target.query}
connection = apsw.Connection({target.quoted(FILE)})
connection.enable_load_extension(True)
connection.load_extension(sqlite_vec.loadable_path())
sql = """SELECT id, distance FROM codes JOIN rows ON number = codes.rowid
WHERE code MATCH vec_bit(?) AND k = 10 ORDER BY distance"""
nearest = connection.execute(sql, (query[0].tobytes(),)).fetchall()'''


SQLITE = Engine(
    _write, _recipe, packages=("apsw", "sqlite_vec"), extra="sqlite", most_bits=_MOST_BITS
)
