"""Milvus: Parquet files for its bulk import, ``codes-*.parquet``, a code as a list of bytes.

The server does not run in the tests: the files are compared with the documented format.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.code_files import CODE
from schn_ray.retrieval.engines.engine import Engine, Target
from schn_ray.retrieval.engines.gallery import CodeGallery, RowBatch
from schn_ray.retrieval.engines.parquet_file import write_parquet
from schn_ray.retrieval.index.scan import Bytes

_BATCHES_A_FILE = 32
_LONGEST = 65_535  # bytes of a VARCHAR
_MOST_LABELS = 4096  # of an ARRAY


def byte_lists(codes: Bytes) -> pa.ListArray:
    """Return codes as lists of uint8 of any length, which is what the import reads.

    Args:
        codes: uint8 [n, w].
    """
    starts = np.arange(len(codes) + 1, dtype=np.int32) * codes.shape[1]
    return pa.ListArray.from_arrays(
        pa.array(starts), pa.array(np.ascontiguousarray(codes).reshape(-1))
    )


def _write(gallery: CodeGallery, batches: Iterator[RowBatch], folder: Path) -> None:
    tables = map(_table, batches)
    for number in itertools.count():
        group = list(itertools.islice(tables, 1))
        if not group:
            break
        rest = itertools.islice(tables, _BATCHES_A_FILE - 1)
        write_parquet(folder / f"codes-{number:05}.parquet", itertools.chain(group, rest))


def _table(batch: RowBatch) -> pa.RecordBatch:
    if batch.labels is not None:
        most = int(batch.labels.value_lengths().to_numpy().max())
        if most > _MOST_LABELS:
            raise SchnRayError(f"a row has {most:,} labels; Milvus takes {_MOST_LABELS:,}")
    return batch.table({CODE: byte_lists(batch.codes)})


def _recipe(target: Target) -> str:
    labels = f"""
schema.add_field(
    "labels", DataType.ARRAY, element_type=DataType.VARCHAR, max_length={_LONGEST},
    max_capacity={_MOST_LABELS},
)"""
    return f"""from pymilvus import DataType, MilvusClient
from pymilvus.bulk_writer import bulk_import

{target.query}
server = "http://localhost:19530"
client = MilvusClient(server)
schema = client.create_schema()
schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length={_LONGEST})
schema.add_field("uri", DataType.VARCHAR, max_length={_LONGEST})
schema.add_field("code", DataType.BINARY_VECTOR, dim={target.width * 8}){
        labels if target.labels else ""
    }
index = client.prepare_index_params()
index.add_index("code", index_type="BIN_FLAT", metric_type="HAMMING")
client.create_collection("codes", schema=schema, index_params=index)
# copy {target.out}/codes-*.parquet into the bucket of Milvus, and name each of them
bulk_import(url=server, collection_name="codes", files=[["codes-00000.parquet"]])
client.load_collection("codes")
nearest = client.search("codes", [query[0].tobytes()], anns_field="code", limit=10)"""


MILVUS = Engine(_write, _recipe, most_bits=32_768, longest_id=_LONGEST)
