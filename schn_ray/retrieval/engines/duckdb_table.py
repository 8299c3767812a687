"""DuckDB: the table ``codes`` in ``codes.duckdb``, a code as 64-bit words.

Words, and not a column of the type BIT: ``bit_count(xor())`` over numbers is many times as fast.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from schn_ray.retrieval.engines.engine import Engine, Target, errors_of
from schn_ray.retrieval.engines.gallery import CodeGallery, RowBatch
from schn_ray.retrieval.engines.parquet_file import sql_of_words, word_columns, words_of_query

FILE = "codes.duckdb"
_MEMORY = "512MB"  # of DuckDB's own, which would take most of the machine's


def _write(gallery: CodeGallery, batches: Iterator[RowBatch], folder: Path) -> None:
    import duckdb

    tables = (batch.table(word_columns(batch.codes)) for batch in batches)
    first = next(tables)
    with errors_of("DuckDB", duckdb.Error), duckdb.connect(folder / FILE) as connection:
        connection.execute(f"SET memory_limit = '{_MEMORY}'")
        connection.register("first", first.slice(0, 0))
        connection.execute("CREATE TABLE codes AS SELECT * FROM first")
        for table in itertools.chain([first], tables):
            connection.register("rows", table)
            connection.execute("INSERT INTO codes SELECT * FROM rows")
            connection.unregister("rows")


def _recipe(target: Target) -> str:
    numpy = ", numpy" if target.width % 8 else ""
    return f'''import duckdb{numpy}

{target.query}
{words_of_query(target)}
sql = """{sql_of_words(target.bits, "codes")}"""
with duckdb.connect({target.quoted(FILE)}, read_only=True) as connection:
    nearest = connection.execute(sql, words).fetchall()'''


DUCKDB = Engine(_write, _recipe, unit=64, packages=("duckdb",), extra="duckdb")
