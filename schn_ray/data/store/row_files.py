"""The parts of a store: Arrow files of rows, written as they come and mapped into memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from schn_ray.core.storage.files import is_uri, open_file

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


@dataclass(frozen=True)
class RowFiles:
    """The ``PartFormat`` of a store: ``rows-00000.arrow`` and so on, with the columns ``ROWS``."""

    stem: str = "rows-"
    suffix: str = ".arrow"

    def write(self, path: Path, batches: Iterable[pa.RecordBatch]) -> None:
        """Write rows batch by batch; one batch at a time is in memory."""
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, ROWS) as writer:
            for batch in batches:
                if batch.num_rows:
                    writer.write_batch(batch)

    def read(self, location: str, columns: Sequence[str] | None) -> pa.Table:
        """Map a local file; of one at a URI, download only these columns."""
        if not is_uri(location):
            table = pa.ipc.open_file(pa.memory_map(location)).read_all()
            return table if columns is None else table.select(columns)
        fields = None if columns is None else [ROWS.get_field_index(name) for name in columns]
        with open_file(location) as file:
            options = pa.ipc.IpcReadOptions(included_fields=fields)
            return pa.ipc.open_file(file, options=options).read_all()
