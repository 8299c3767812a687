"""Lance: the table ``codes`` of a LanceDB directory, a code as a vector of bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.code_files import CODE
from schn_ray.retrieval.engines.engine import Engine, Target, errors_of
from schn_ray.retrieval.engines.gallery import CodeGallery, RowBatch
from schn_ray.retrieval.index.scan import Bytes


def byte_vectors(codes: Bytes) -> pa.FixedSizeListArray:
    """Return codes as vectors of bytes.

    Args:
        codes: uint8 [n, w].
    """
    flat = pa.array(np.ascontiguousarray(codes).reshape(-1))
    return pa.FixedSizeListArray.from_arrays(flat, codes.shape[1])


def _write(gallery: CodeGallery, batches: Iterator[RowBatch], folder: Path) -> None:
    import lancedb

    failed: list[SchnRayError] = []
    tables = _tables(batches, failed)
    first = next(tables)
    reader = pa.RecordBatchReader.from_batches(first.schema, itertools.chain([first], tables))
    try:
        with errors_of("LanceDB", OSError, RuntimeError):
            lancedb.connect(folder).create_table("codes", reader)
    except SchnRayError:
        if failed:  # Lance would show it with its traceback
            raise failed[0] from None
        raise


def _tables(batches: Iterator[RowBatch], failed: list[SchnRayError]) -> Iterator[pa.RecordBatch]:
    """Yield the rows as Lance has them; an error of reading is added to ``failed``, too."""
    try:
        for batch in batches:
            yield batch.table({CODE: byte_vectors(batch.codes)})
    except SchnRayError as error:
        failed.append(error)
        raise


def _recipe(target: Target) -> str:
    return f"""import lancedb

{target.query}
table = lancedb.connect({target.quoted()}).open_table("codes")
search = table.search(query[0], vector_column_name="code").distance_type("hamming")
nearest = search.limit(10).to_arrow().select(["id", "_distance"])"""


LANCE = Engine(_write, _recipe, packages=("lancedb",), extra="lance")
