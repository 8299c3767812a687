"""A store, or features, as a source, to check or encode its rows; opens their Arrow files.

A store at a URI is first copied to this machine, once, and compared with its hashes.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from schn_ray.core.artefacts import Artefact
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST, Manifest, read_manifest
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.files import is_uri, names_in
from schn_ray.data.shards.rows import BadRow, Row, Shard, Source, cut
from schn_ray.data.shards.vectors import (
    VectorFormat,
    VectorRows,
    numpy_vectors,
    rows_of_shard,
    stored_type,
    vector_rows,
)
from schn_ray.data.sources.vector_columns import numbered

ROW_FILES = "rows-*.arrow"
CLASSES = "classes.json"
BACKBONE = "backbone"  # directory within features, see ``models.embed``


@dataclass(frozen=True)
class StoreSource:
    """A store as a source, with the ids, labels, splits, images and vectors that it has."""

    location: str
    shard_rows: int
    kind: str = "store"

    @cached_property
    def vectors(self) -> VectorFormat | None:
        """The format of the rows' vectors; None if they have none."""
        return format_of_rows(open_rows(local_copy(self.location)))

    def shards(self) -> list[Shard]:
        """List row ranges of the store.

        Raises:
            SchnRayError: no finished store at the location.
        """
        path = local_copy(self.location)
        shard_rows = rows_of_shard(self.shard_rows, self.vectors)
        runs = cut(open_rows(path).num_rows, shard_rows)
        stamps = (read_rows_manifest(path).fingerprint,)
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

    def read_batches(self, shard: Shard) -> Iterator[VectorRows]:
        """Read the shard's rows of vectors, many at once."""
        assert self.vectors is not None
        path = local_copy(self.location)
        of_images = read_rows_manifest(path).kind == "features"  # which lie where they were
        table = open_rows(path).slice(shard.start, shard.rows)
        first = shard.start
        for batch in table.to_batches(self.vectors.rows_at_once):
            columns = {name: batch[name] for name in ("id", "labels", "split", "camera", "vector")}
            numbers = np.arange(first, first + len(batch))
            uris = batch["uri"] if of_images else numbered(f"{self.location}#", numbers)
            if of_images:
                columns["image_sha256"] = batch["sha256"]
            yield vector_rows(columns | {"uri": uris}, {}, self.vectors)
            first += len(batch)


def features_backbone(source: Source) -> str | None:
    """Return the fingerprint of the backbone that computed a source's vectors; None if unknown.

    Args:
        source: of any kind; only what ``embed`` wrote says it.
    """
    if not isinstance(source, StoreSource):
        return None
    return read_rows_manifest(local_copy(source.location)).made_from.get("backbone")


def read_rows_manifest(path: Path) -> Manifest:
    """Read the manifest of a store, or of features, which have rows of the same form.

    Args:
        path: the directory.

    Raises:
        SchnRayError: neither of them, or not finished.
    """
    kind = "features" if (path / BACKBONE).is_dir() else "store"
    return read_manifest(path, kind)


def format_of_rows(rows: pa.Table) -> VectorFormat | None:
    """Return the format of a store's vectors; None if its rows have none.

    Args:
        rows: of the store, as ``open_rows`` returns them.
    """
    if "vector" not in rows.schema.names:
        return None
    kind = rows.schema.field("vector").type
    dtype = stored_type(kind.value_type)
    assert dtype is not None
    return VectorFormat(kind.list_size, dtype, images=have_images(rows))


def have_images(rows: pa.Table) -> bool:
    """Tell whether every row of a store has an image.

    Args:
        rows: of the store, as ``open_rows`` returns them.
    """
    return rows["image"].null_count == 0


def has_store(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder is a store, finished or not.

    Args:
        location: the folder.
        names: the names in it.
    """
    return any(name.startswith("rows-") and name.endswith(".arrow") for name in names) and (
        MANIFEST in names or CLASSES in names or "receipts" in names
    )


def is_store(location: str) -> bool:
    """Tell whether a location is a store, finished or not.

    Args:
        location: a path or a URI.
    """
    return has_store(location, names_in(location))


def open_rows(path: Path) -> pa.Table:
    """Memory-map the rows of a finished store, after a comparison of their files' SHA-256.

    A process compares a file once, and again when it was changed.

    Args:
        path: the store's directory.

    Returns:
        A table with the columns of the store.

    Raises:
        SchnRayError: no finished store, or a damaged file.
    """
    artefact = Artefact(path, read_rows_manifest(path))
    artefact.check(_row_files(artefact))
    return map_rows(artefact)


def stored_image(location: str, row: int) -> bytes:
    """Return the bytes of one image of a store.

    Args:
        location: the store, a path or a URI.
        row: its number in the store, from 0.

    Raises:
        IndexError: the store has no such row.
        SchnRayError: no finished store, or a damaged file.
    """
    path = local_copy(location) if is_uri(location) else Path(location)
    artefact, files, starts = _files_of(path, (path / MANIFEST).stat().st_mtime_ns)
    if not 0 <= row < starts[-1]:
        raise IndexError(row)
    number = int(np.searchsorted(starts, row, "right")) - 1
    table = map_file(artefact.file(files[number]))  # only this one is compared
    image = table.column("image")[row - starts[number]].as_py()
    if image is None:
        raise no_image(location, row)
    return bytes(image)


def no_image(location: str, row: int) -> SchnRayError:
    """Return the error of a row that is a vector alone.

    Args:
        location: of the store.
        row: its number.
    """
    return SchnRayError(f"{location}: row {row:,} has no image, only a vector")


@functools.lru_cache(maxsize=4)
def _files_of(path: Path, modified_ns: int) -> tuple[Artefact, list[str], list[int]]:
    """Return a store's files of rows, and the first row of each, with the number of all rows."""
    artefact = Artefact(path, read_rows_manifest(path))
    files = _row_files(artefact)
    counts = [map_file(path / name).num_rows for name in files]
    return artefact, files, list(accumulate(counts, initial=0))


def _row_files(artefact: Artefact) -> list[str]:
    """Return the names of the files of rows, in the order of their numbers."""
    names = fnmatch.filter(artefact.manifest.files, ROW_FILES)
    return sorted(names, key=lambda name: (len(name), name))  # 100,000 comes after 99,999


def map_rows(artefact: Artefact) -> pa.Table:
    """Memory-map the Arrow files of a store as one table; ``open_rows`` compares them first.

    Args:
        artefact: a store, or features.

    Raises:
        SchnRayError: no such files, or a damaged one.
    """
    files = _row_files(artefact)
    if not files:
        raise SchnRayError(f"{artefact.path} has no {ROW_FILES}; make the store again")
    return pa.concat_tables(map_file(artefact.path / name) for name in files)


def map_file(path: Path) -> pa.Table:
    """Memory-map one Arrow file of a store.

    Args:
        path: the file.

    Raises:
        SchnRayError: the file is damaged.
    """
    try:
        return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise SchnRayError(f"{path} is damaged ({error}); make the store again") from error


_COLUMNS = ("id", "image", "labels", "split", "camera")


def _rows(batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
    columns = {name: batch.column(name) for name in _COLUMNS}
    vectors = numpy_vectors(batch["vector"]) if "vector" in batch.schema.names else None
    for i in range(batch.num_rows):  # one image at a time, as all at once may not fit
        values = {name: column[i].as_py() for name, column in columns.items()}
        vector = {} if vectors is None else {"vector": vectors[i]}
        yield values | {"labels": tuple(values["labels"])} | vector
