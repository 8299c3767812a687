"""Parquet, for whatever reads it: ``codes.parquet`` with the code as bytes and as 64-bit words."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.core.atomic_files import writing
from schn_ray.retrieval.code_files import CODE, code_column
from schn_ray.retrieval.engines.engine import Engine, Target
from schn_ray.retrieval.engines.gallery import CodeGallery, RowBatch
from schn_ray.retrieval.index.scan import Bytes, uint64_words

FILE = "codes.parquet"


def word_columns(codes: Bytes) -> dict[str, pa.Array]:
    """Return codes as columns ``w0``, ``w1`` ... of 64 bits each, padded with zeros.

    Signed numbers, as Spark and BigQuery have no others.

    Args:
        codes: uint8 [n, w].

    Example:
        >>> word_columns(np.array([[255] * 8 + [1]], np.uint8))["w1"].to_pylist()
        [1]
    """
    words = uint64_words(codes).view(np.int64)
    return {f"w{i}": pa.array(np.ascontiguousarray(word)) for i, word in enumerate(words.T)}


def word_count(bits: int) -> int:
    """Return how many words of 64 bits a code has.

    Args:
        bits: of a code.
    """
    return -(-bits // 64)


def sql_of_words(bits: int, table: str) -> str:
    """Return DuckDB's SELECT of the ten rows nearest to the words $1, $2 ...

    Args:
        bits: of a code.
        table: its name, or a quoted file.
    """
    count = word_count(bits)
    # bit_count has 8 bits: a sum of two of them may overflow
    cast = "::INTEGER" if count > 1 else ""
    words = [f"bit_count(xor(w{i}, ${i + 1})){cast}" for i in range(count)]
    lines = "\n    + ".join([f"SELECT id, {words[0]}", *words[1:]])
    return f"{lines} AS distance\nFROM {table} ORDER BY distance LIMIT 10"


def words_of_query(target: Target) -> str:
    """Return the line of Python that makes words of a query.

    Args:
        target: what is searched.
    """
    missing = -target.width % 8
    padded = f"numpy.pad(query[0], (0, {missing}))" if missing else "query[0]"
    return f'words = {padded}.view("<i8").tolist()'


def write_parquet(path: Path, tables: Iterable[pa.RecordBatch]) -> None:
    """Write a Parquet file, a row group a batch.

    Args:
        path: of the new file.
        tables: at least one batch.
    """
    tables = iter(tables)
    first = next(tables)
    with writing(path), pq.ParquetWriter(path, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_batch(table)


def write_rows(path: Path, batches: Iterator[RowBatch]) -> Iterator[RowBatch]:
    """Write ``id``, ``uri`` and perhaps ``labels`` as Parquet, and pass the batches on.

    Args:
        path: of the new file.
        batches: to write.
    """
    writer = None
    try:
        for batch in batches:
            rows = batch.table({})
            with writing(path):
                writer = writer or pq.ParquetWriter(path, rows.schema)
                writer.write_batch(rows)
            yield batch
    finally:
        if writer is not None:
            with writing(path):
                writer.close()


def _write(gallery: CodeGallery, batches: Iterator[RowBatch], folder: Path) -> None:
    write_parquet(
        folder / FILE,
        (
            batch.table({CODE: code_column(batch.codes)} | word_columns(batch.codes))
            for batch in batches
        ),
    )


def _recipe(target: Target) -> str:
    file = f"{target.out}/{FILE}".replace("\\", "\\\\").replace("'", "''")
    sql = sql_of_words(target.bits, f"'{file}'")
    numpy = ", numpy" if target.width % 8 else ""
    return f'''import duckdb{numpy}

{target.query}
{words_of_query(target)}
sql = """{sql}"""
nearest = duckdb.execute(sql, words).fetchall()'''


PARQUET = Engine(_write, _recipe, unit=64)
