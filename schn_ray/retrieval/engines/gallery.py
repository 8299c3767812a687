"""The rows of codes or of an index, batch by batch, with the labels that a store has of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.cache import directory_kind, local_copy
from schn_ray.core.storage.files import as_location
from schn_ray.data.store.reader import Store, open_store
from schn_ray.retrieval.code_files import part_names
from schn_ray.retrieval.index.index import check_codes, open_index
from schn_ray.retrieval.index.pieces import Piece, pieces_of_codes, pieces_of_index
from schn_ray.retrieval.index.scan import Bytes
from schn_ray.retrieval.stored_rows import stored_rows

Pieces = Callable[[], Iterator[Piece]]


class RowBatch(NamedTuple):
    """Some rows of a gallery.

    Attributes:
        ids: [m] strings, without nulls.
        uris: [m] strings, without nulls.
        codes: uint8 [m, ceil(bits / 8)], packed.
        labels: [m] lists of strings, perhaps empty; None for a gallery without labels.
    """

    ids: pa.StringArray
    uris: pa.StringArray
    codes: Bytes
    labels: pa.ListArray | None

    def table(self, codes: dict[str, pa.Array]) -> pa.RecordBatch:
        """Return the rows as Arrow, with ``id``, ``uri``, the code and perhaps ``labels``.

        Args:
            codes: name -> column, of the code as an engine has it.
        """
        labels = {} if self.labels is None else {"labels": self.labels}
        return pa.record_batch({"id": self.ids, "uri": self.uris} | codes | labels)


@dataclass(frozen=True)
class CodeGallery:
    """Codes or an index, to be read from the beginning to the end.

    Attributes:
        location: path or URI, for errors.
        bits: of a code.
        rows: number of rows.
        made_from: kind of each input -> its fingerprint.
        pieces: yields all rows, without labels.
        store: the store with the rows' labels; None for a gallery without labels.
    """

    location: str
    bits: int
    rows: int
    made_from: dict[str, str]
    pieces: Pieces
    store: Store | None

    def batches(self) -> Iterator[RowBatch]:
        """Yield all rows; memory holds one batch, and for labels a number for each row's id.

        Raises:
            SchnRayError: damaged codes, or a store that has none of their ids.
        """
        numbers = None
        if self.store is not None:
            ids = pa.chunked_array([piece.ids for piece in self.pieces()], pa.large_string())
            numbers = stored_rows(self.location, ids, self.store)
        start = 0
        for piece in self.pieces():
            check_codes(piece.codes, self.bits, f"the codes in {self.location}")
            stop = start + len(piece.codes)
            labels = None if numbers is None else self._labels(numbers[start:stop])
            start = stop
            yield RowBatch(
                piece.ids.cast(pa.string()), piece.uris.cast(pa.string()), piece.codes, labels
            )

    def _labels(self, numbers: NDArray[np.int64]) -> pa.ListArray:
        """Return the labels of rows of the store; -1 stands for a row without any."""
        assert self.store is not None
        known = self.store.labels[numbers[numbers >= 0]]
        lengths = np.zeros(len(numbers), np.int64)
        lengths[numbers >= 0] = np.diff(known.indptr)
        names = pa.array(self.store.classes, pa.string()).take(pa.array(known.indices))
        starts = np.append(0, np.cumsum(lengths)).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(starts), names)


def open_gallery(path: Path | str, labels: Path | str | None = None) -> CodeGallery:
    """Open codes or an index, to be given to an engine.

    Args:
        path: a ``codes`` directory or an index, a path or a URI.
        labels: a store that has labels of the rows, by their ids.

    Raises:
        SchnRayError: neither codes nor an index, no rows, or a store without labels.
    """
    location = as_location(path)
    store = None if labels is None else open_store(labels)
    if store is not None and not store.labels.nnz:
        raise SchnRayError(f"{store.location} has no labels; leave --labels out")
    made_from = {} if store is None else {"store": store.manifest.fingerprint}
    if directory_kind(location) == "index":
        index = open_index(path)
        every = np.arange(len(index))
        made_from["index"] = index.manifest.fingerprint
        pieces: Pieces = lambda: pieces_of_index(index, every)  # noqa: E731
        return CodeGallery(location, index.bits, len(index), made_from, pieces, store)
    codes = open_artefact(local_copy(path), "codes")
    names = part_names(codes.manifest.files)
    codes.check_sizes(names)
    rows = sum(pq.read_metadata(codes.path / name).num_rows for name in names)
    if not rows:
        raise SchnRayError(f"{path} holds no codes; encode at least one image first")
    bits = int(codes.manifest.config["bits"])
    made_from["codes"] = codes.manifest.fingerprint
    return CodeGallery(location, bits, rows, made_from, lambda: pieces_of_codes(codes, bits), store)
