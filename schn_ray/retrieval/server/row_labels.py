"""The classes of indexed images, by a store of the same images or by a column of the index."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.data.sources.columns import NO_CLASS
from schn_ray.data.store.reader import Store
from schn_ray.retrieval.index.index import Index
from schn_ray.retrieval.stored_rows import stored_rows

COLUMNS_OF_LABELS = ("label", "labels", "class", "category")


class RowLabels(Protocol):
    """Knows the classes of rows of an index."""

    def of(self, rows: NDArray[np.int64]) -> list[list[str]]:
        """Return the classes of each row; rows: int64 [r]."""


class StoredLabels:
    """The labels that a store has of the same images, by their ids.

    Args:
        index: the gallery.
        store: of the same images; others have no classes.

    Raises:
        SchnRayError: it has no labels, or none of the ids.
    """

    def __init__(self, index: Index, store: Store) -> None:
        rows = stored_rows(index.path, index.columns()[0].whole(), store)
        self._rows = rows.astype(np.int32)
        self._labels, self._classes = store.labels, store.classes

    def of(self, rows: NDArray[np.int64]) -> list[list[str]]:
        """See ``RowLabels``."""
        starts, columns = self._labels.indptr, self._labels.indices
        return [
            [self._classes[column] for column in columns[starts[row] : starts[row + 1]]]
            if row >= 0
            else []
            for row in self._rows[rows].tolist()
        ]


class ColumnLabels:
    """The labels in a column of the index.

    Args:
        values: text or integers, [n].
    """

    def __init__(self, values: pa.Array[Any]) -> None:
        self._values = values

    def of(self, rows: NDArray[np.int64]) -> list[list[str]]:
        """See ``RowLabels``."""
        values = self._values.take(pa.array(rows)).to_pylist()
        return [[] if value in (None, "", NO_CLASS) else [str(value)] for value in values]


def labels_of_index(index: Index, store: Store | None) -> RowLabels | None:
    """Return who knows the classes of an index's rows; None if nobody does.

    Args:
        index: the gallery.
        store: of the same images; None to look for a column of the index.

    Raises:
        SchnRayError: as ``StoredLabels``.
    """
    if store is not None:
        return StoredLabels(index, store)
    for name in COLUMNS_OF_LABELS:
        if index.kinds.get(name) in ("text", "integer"):
            return ColumnLabels(index.column(name))
    return None
