"""The parts of a store: Arrow files of rows, written as they come and mapped into memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from schn_ray.core.storage.files import is_uri, open_file
from schn_ray.data.shards.vectors import VectorFormat

ROWS = pa.schema(
    {
        "id": pa.string(),
        "image": pa.large_binary(),
        "labels": pa.list_(pa.string()),
        "sha256": pa.binary(32),
        "split": pa.string(),
        "uri": pa.string(),
        "camera": pa.int32(),
        "scale": pa.float32(),
    }
)


VECTOR = "vector"


def row_schema(vectors: VectorFormat | None) -> pa.Schema:
    """Return the columns of a store: ``ROWS``, and ``vector`` if its rows have vectors.

    Args:
        vectors: their format; if they are all that a row has, its image is null.
    """
    return ROWS if vectors is None else ROWS.append(pa.field(VECTOR, vectors.arrow_type))


@dataclass(frozen=True)
class RowFiles:
    """The ``PartFormat`` of a store: ``rows-00000.arrow`` and so on.

    Attributes:
        vectors: format of the vectors, see ``row_schema``.
    """

    vectors: VectorFormat | None = None
    stem: str = "rows-"
    suffix: str = ".arrow"
    folder: str = ""

    def write(self, path: Path, batches: Iterable[pa.RecordBatch]) -> None:
        """Write rows batch by batch; one batch at a time is in memory."""
        schema = row_schema(self.vectors)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
            for batch in batches:
                if batch.num_rows:
                    writer.write_batch(batch)

    def read(self, location: str, columns: Sequence[str] | None) -> pa.Table:
        """Map a local file; of one at a URI, download only these columns."""
        if not is_uri(location):
            table = pa.ipc.open_file(pa.memory_map(location)).read_all()
            return table if columns is None else table.select(columns)
        schema = row_schema(self.vectors)
        fields = None if columns is None else [schema.get_field_index(name) for name in columns]
        with open_file(location) as file:
            options = pa.ipc.IpcReadOptions(included_fields=fields)
            return pa.ipc.open_file(file, options=options).read_all()
