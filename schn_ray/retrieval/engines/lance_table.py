"""Lance: the table ``codes`` of a LanceDB directory, a code as a vector of bytes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

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

    tables = (batch.table({CODE: byte_vectors(batch.codes)}) for batch in batches)
    first = next(tables)
    reader = pa.RecordBatchReader.from_batches(first.schema, itertools.chain([first], tables))
    with errors_of("LanceDB", OSError, RuntimeError):
        lancedb.connect(folder).create_table("codes", reader)


def _recipe(target: Target) -> str:
    return f"""import lancedb

{target.query}
table = lancedb.connect({target.quoted()}).open_table("codes")
search = table.search(query[0], vector_column_name="code").distance_type("hamming")
nearest = search.limit(10).to_arrow().select(["id", "_distance"])"""


LANCE = Engine(_write, _recipe, packages=("lancedb",), extra="lance")
