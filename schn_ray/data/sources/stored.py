"""The rows of a training store, to be checked or encoded again; how its Arrow files are opened.

A store at a URI is copied to this machine once, checked by its hashes, and mapped from there.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST, read_manifest
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.files import is_uri, names_in
from schn_ray.data.shards.rows import BadRow, Row, Shard, cut

ROW_FILES = "rows-*.arrow"
CLASSES = "classes.json"


@dataclass(frozen=True)
class StoreSource:
    """A store as a source: the same ids, labels and splits; the bytes are now in the store."""

    location: str
    shard_rows: int
    kind: str = "store"

    def shards(self) -> list[Shard]:
        """List row ranges of the store.

        Raises:
            SchnRayError: no finished store there.
        """
        path = local_copy(self.location)
        runs = cut(open_rows(path).num_rows, self.shard_rows)
        stamps = (read_manifest(path, "store").fingerprint,)
        return [
            Shard(number, count, start, stamps=stamps) for number, (start, count) in enumerate(runs)
        ]

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's rows."""
        table = open_rows(local_copy(self.location)).slice(shard.start, shard.rows)
        numbers = iter(range(shard.start, shard.start + shard.rows))
        for batch in table.to_batches():
            for row, number in zip(_rows(batch), numbers, strict=False):
                yield Row(uri=f"{self.location}#{number}", **row)


def has_store(place: str, names: frozenset[str]) -> bool:
    """Tell whether a folder is a store, finished or not."""
    return any(name.startswith("rows-") and name.endswith(".arrow") for name in names) and (
        MANIFEST in names or CLASSES in names or "receipts" in names
    )


def is_store(place: str) -> bool:
    """Tell whether there is a store at a place."""
    return has_store(place, names_in(place))


def open_rows(path: Path) -> pa.Table:
    """Map the rows of a finished store into memory; nothing is read until it is used.

    Raises:
        SchnRayError: no finished store there, or a damaged file.
    """
    read_manifest(path, "store")
    return map_rows(path)


def stored_image(location: str, row: int) -> bytes:
    """Return the bytes of one image of a store.

    Raises:
        IndexError: no such row.
        SchnRayError: no finished store there, or a damaged file.
    """
    path = local_copy(location) if is_uri(location) else Path(location)
    made = (path / MANIFEST).stat().st_mtime_ns
    return bytes(_kept_open(path, made).column("image")[row].as_py())


@functools.lru_cache(maxsize=4)
def _kept_open(path: Path, made: int) -> pa.Table:
    return open_rows(path)


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


_COLUMNS = ("id", "image", "labels", "split", "camera")


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = {name: batch.column(name) for name in _COLUMNS}
    for i in range(batch.num_rows):  # one image at a time, as all at once may not fit
        values = {name: column[i].as_py() for name, column in columns.items()}
        yield values | {"labels": tuple(values["labels"])}
