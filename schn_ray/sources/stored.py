"""The rows of a training store, to be checked or encoded again; how its Arrow files are opened."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from schn_ray.errors import SchnRayError
from schn_ray.manifest import MANIFEST, read_manifest
from schn_ray.sources.rows import BadRow, Row, Shard, cut

ROW_FILES = "rows-*.arrow"


@dataclass(frozen=True)
class Stored:
    """A store as a source: the same ids, labels and splits; the bytes are now in the store."""

    location: str
    shard_rows: int
    kind: str = "store"

    def shards(self) -> list[Shard]:
        """List row ranges of the store.

        Raises:
            SchnRayError: no finished store there.
        """
        runs = cut(open_rows(self.location).num_rows, self.shard_rows)
        stamps = (read_manifest(Path(self.location), "store").fingerprint,)
        return [
            Shard(number, count, start, stamps=stamps) for number, (start, count) in enumerate(runs)
        ]

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's rows."""
        table = open_rows(self.location).slice(shard.start, shard.rows)
        for i, row in enumerate(batch_row for b in table.to_batches() for batch_row in _rows(b)):
            row_id, image, labels, split = row
            yield Row(row_id, image, tuple(labels), f"{self.location}#{shard.start + i}", split)


def open_rows(location: str) -> pa.Table:
    """Map the rows of a finished store into memory; nothing is read until it is used.

    Raises:
        SchnRayError: no finished store there, or a damaged file.
    """
    read_manifest(Path(location), "store")
    return map_rows(Path(location))


def stored_image(location: str, row: int) -> bytes:
    """Return the bytes of one image of a store.

    Raises:
        IndexError: no such row.
        SchnRayError: no finished store there, or a damaged file.
    """
    made = Path(location, MANIFEST).stat().st_mtime_ns
    return bytes(_kept_open(location, made).column("image")[row].as_py())


@functools.lru_cache(maxsize=4)
def _kept_open(location: str, made: int) -> pa.Table:
    return open_rows(location)


def map_rows(directory: Path) -> pa.Table:
    """Map the Arrow files of a directory, in the order of their numbers.

    Raises:
        SchnRayError: none there, or a damaged file.
    """
    tables = [map_file(path) for path in sorted(directory.glob(ROW_FILES))]
    if not tables:
        raise SchnRayError(f"{directory} has no {ROW_FILES}; make the store again")
    return pa.concat_tables(tables)


def map_file(path: Path) -> pa.Table:
    """Map one Arrow file of a store.

    Raises:
        SchnRayError: a damaged file.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise SchnRayError(f"{path} is damaged ({error}); make the store again") from error


def _rows(batch: pa.RecordBatch) -> Iterator[tuple[str, bytes, list[str], str | None]]:
    columns = [batch.column(name) for name in ("id", "image", "labels", "split")]
    for i in range(batch.num_rows):  # one image at a time, as all at once may not fit
        row_id, image, labels, split = (column[i].as_py() for column in columns)
        yield row_id, image, labels, split
