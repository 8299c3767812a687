"""The classes of indexed images, by a store of the same images or by a column of the index."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.data.sources.columns import NO_CLASS
from schn_ray.data.store.reader import Store
from schn_ray.retrieval.index.index import Index
from schn_ray.retrieval.index.stored_columns import FOLDER
from schn_ray.retrieval.stored_rows import stored_rows
from schn_ray.retrieval.text_lists import split_texts

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
        values: text or integers, or texts as ``text_lists`` joins them, [n].
        joined: whether they are those.
    """

    def __init__(self, values: pa.Array[Any], joined: bool) -> None:
        self._values, self._joined = values, joined

    def of(self, rows: NDArray[np.int64]) -> list[list[str]]:
        """See ``RowLabels``."""
        values = self._values.take(pa.array(rows)).to_pylist()
        if self._joined:
            return [split_texts(value) for value in values]
        return [[] if value in (None, "", NO_CLASS) else [str(value)] for value in values]


def column_to_list(kinds: Mapping[str, str]) -> str | None:
    """Return the column whose values a search page offers to choose from: classes, or folders.

    Args:
        kinds: column of an index -> its kind.

    Example:
        >>> column_to_list({"width": "integer", "folder": "text", "label": "texts"})
        'label'
    """
    names = (*COLUMNS_OF_LABELS, FOLDER)
    return next((name for name in names if kinds.get(name) in ("text", "texts")), None)


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
        kind = index.kinds.get(name)
        if kind in ("text", "texts", "integer"):
            return ColumnLabels(index.column(name), kind == "texts")
    return None
