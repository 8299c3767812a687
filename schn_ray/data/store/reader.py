"""A finished store, mapped into memory: rows are read at random, after a check of its files."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.artefacts import Artefact
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.files import as_location
from schn_ray.data.shards.equal_rows import FirstRows, as_digests, first_with_hash
from schn_ray.data.shards.vectors import VectorColumn, VectorType
from schn_ray.data.sources.stored import (
    CLASSES,
    format_of_rows,
    have_images,
    map_rows,
    no_image,
)
from schn_ray.data.splits.protocols import JUNK, ROLES, Rows, Split, held_out_rows
from schn_ray.data.store.describe import SPLIT, multi_hot_matrix
from schn_ray.data.store.row_files import VECTOR


class Store:
    """A finished store, opened for reading; see ``open_store``.

    Pickles as its location, and is mapped again where it arrives.

    Attributes:
        path: its directory on this machine.
        location: the same path, or the URI of which ``path`` is a copy.
        manifest: of the store.
        classes: the vocabulary; column c of ``labels`` is ``classes[c]``.
        ids: [n] pyarrow strings, unique.
        labels: [n, C] multi-hot uint8; rows without a label are empty.
        cameras: [n] int32, -1 if unknown.
        split: role -> rows, ascending.
        vector_width: D of the rows' vectors; None if they have none.
        vector_dtype: the type in which they are stored; None if they have none.
        has_images: whether every row has an image.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self.path = local_copy(location)
        self.manifest: Manifest = read_manifest(self.path, "store")
        artefact = Artefact(self.path, self.manifest)
        artefact.check()
        self.classes: tuple[str, ...] = tuple(json.loads(artefact.read(CLASSES)))
        self._table = map_rows(artefact)
        self._images, self._starts = _chunks(self._table["image"])
        vectors = format_of_rows(self._table)
        self.vector_width: int | None = vectors.width if vectors else None
        self.vector_dtype: VectorType | None = vectors.dtype if vectors else None
        self.has_images: bool = have_images(self._table)
        self._vectors = VectorColumn(self._table[VECTOR]) if vectors else None
        self.ids: pa.Array = self._table["id"].combine_chunks()
        self.labels = multi_hot_matrix(self._table["labels"], self.classes)
        self.cameras: NDArray[np.int32] = self._table["camera"].to_numpy()
        self.split = _read_split(artefact.file(SPLIT))
        self._held_out: tuple[float, int] | None = None

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __reduce__(self) -> tuple[Callable[..., Store], tuple[Any, ...]]:
        return _reopened, (self.location, self._held_out)

    def image(self, row: int) -> bytes:
        """Return the encoded image of one row.

        Raises:
            SchnRayError: the row has no image, only a vector.
        """
        if not 0 <= row < len(self):
            raise IndexError(row)
        chunk = int(np.searchsorted(self._starts, row, "right")) - 1
        image = self._images[chunk][row - int(self._starts[chunk])].as_py()
        if image is None:
            raise no_image(self.location, row)
        return bytes(image)

    def vectors(self, rows: Rows) -> NDArray[np.float32]:
        """Return the vectors of these rows: [m, D]. Only they are read from the disk.

        Raises:
            SchnRayError: the rows have no vectors.
        """
        if self._vectors is None:
            raise SchnRayError(f"{self.location}: its rows have images, but no vectors")
        rows = np.asarray(rows, np.int64)
        if len(rows) and not 0 <= rows.min() <= rows.max() < len(self):
            raise IndexError(rows)
        return self._vectors.take(rows)

    @property
    def protocol(self) -> str:
        """The protocol of the split: the one that was named, or the one that ``prepare`` chose."""
        return str(self.manifest.counts.get("protocol", self.manifest.config["protocol"]))

    def uri(self, row: int) -> str:
        """Return where the image of one row came from; ``data.sources.fetch`` reads it."""
        return str(self._table["uri"][row].as_py())

    def rows(self, role: str) -> Rows:
        """Return the rows of a role: one of ``protocols.ROLES``, or ``junk``."""
        return self.split[role]

    def with_held_out(self, share: float, seed: int) -> Store:
        """Return this store with validation rows, which its training rows no longer have.

        Nothing is written. Its fingerprint is another one, so that runs tell the two apart.

        Args:
            share: of the labelled training rows, see ``protocols.held_out_rows``.
            seed: of the draw.
        """
        other, train = copy.copy(self), self.rows("train")
        held_out = held_out_rows(self.labels[train], share, seed)
        validation = np.union1d(self.rows("validation"), train[held_out])
        other.split = self.split | {"train": train[~held_out], "validation": validation}
        name = f"{self.manifest.fingerprint} held out {share} {seed}"
        fingerprint = hashlib.sha256(name.encode()).hexdigest()
        other.manifest = replace(self.manifest, fingerprint=fingerprint)
        other._held_out = share, seed
        return other

    def rows_of(self, ids: pa.Array | pa.ChunkedArray) -> Rows:
        """Return the row of each id: int64 [m], -1 where the store does not have it.

        Args:
            ids: [m] strings.
        """
        positions = pc.index_in(ids, value_set=self.ids.cast(ids.type))
        rows: Rows = pc.fill_null(positions, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        return rows

    def sha256(self, rows: Rows) -> NDArray[np.void]:
        """Return the SHA-256 of these rows' original images or vectors: [m], 32 bytes each."""
        return as_digests(self._table["sha256"].take(pa.array(rows)).combine_chunks())

    def identities(self, rows: Rows) -> pa.Table:
        """Return ``id`` and ``sha256`` of these rows' original images or vectors."""
        return self._table.select(["id", "sha256"]).take(pa.array(rows))

    def first_with_image(self) -> FirstRows:
        """Return for each row [n] the first row whose original image or vector has its bytes."""
        return first_with_hash(self._table["sha256"])


def open_store(path: Path | str, verify: bool = False) -> Store:
    """Open a finished store; images and vectors are read from the disk when they are used.

    Args:
        path: a directory, or a URI: it is copied to this machine, once, and the copy's hashes are
            checked.
        verify: check all hashes, too, unless these files were right before. Sizes are always
            checked.

    Raises:
        SchnRayError: ``path`` is no finished store, or it is damaged.
    """
    return Store(as_location(path))


def _reopened(location: str, held_out: tuple[float, int] | None) -> Store:
    store = open_store(location)
    return store if held_out is None else store.with_held_out(*held_out)


def _chunks(column: pa.ChunkedArray) -> tuple[list[pa.Array], NDArray[np.int64]]:
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    lengths = [len(chunk) for chunk in chunks]
    return chunks, np.cumsum([0, *lengths])[:-1]


def _read_split(path: Path) -> Split:
    try:
        table = pq.read_table(path, columns=["role", "row"])
    except (pa.ArrowException, OSError) as error:
        raise SchnRayError(f"{path} is damaged ({error}); make the store again") from error
    rows = table["row"].to_numpy()
    return {role: rows[pc.equal(table["role"], role).to_numpy()] for role in (*ROLES, JUNK)}
