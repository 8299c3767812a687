"""Columns of an index that come from a store of the same images: their labels or folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.storage.cache import directory_kind
from schn_ray.core.storage.files import as_location
from schn_ray.data.store.reader import Store, open_store
from schn_ray.retrieval.index.column_file import ColumnFile
from schn_ray.retrieval.index.columns import KeyedColumns, NewColumns
from schn_ray.retrieval.index.string_columns import order_of_ids
from schn_ray.retrieval.text_lists import joined_texts

LABEL, FOLDER = "label", "folder"


class StoredColumns:
    """What a store says of its images: ``label``, and the ``folder`` in the path that is the id.

    A label is of the kind ``texts`` if an image has several.

    Args:
        store: of the same images.
        names: the columns to take; None for the label, or the folder where no image has a label.
        kinds: the kinds that these columns must have; None for those of the store.

    Attributes:
        kinds: name -> kind of the columns to take.
        left_out: none.

    Raises:
        SchnRayError: the store has no such column, or one of another kind.
    """

    left_out: tuple[str, ...] = ()

    def __init__(
        self,
        store: Store,
        names: Sequence[str] | None = None,
        kinds: Mapping[str, str] | None = None,
    ) -> None:
        self._store = store
        counts = np.diff(store.labels.indptr)
        multi_label = bool((counts > 1).any())
        known = {LABEL: "texts" if multi_label else "text"} if counts.any() else {}
        default, known = (LABEL if known else FOLDER), {**known, FOLDER: "text"}
        for name in names or ():
            if name not in known:
                hint = nearest(name, list(known)) or "."
                raise SchnRayError(
                    f"{store.location}: a store has no column {name!r}{hint} Columns: "
                    f"{', '.join(known)}"
                )
        self.kinds: Mapping[str, str] = {name: known[name] for name in names or (default,)}
        for name, kind in (kinds or {}).items():
            if kind != self.kinds[name] and (name, kind) != (LABEL, "texts"):
                raise SchnRayError(
                    f"{store.location}: {name} is of the kind {self.kinds[name]}, in the index of "
                    f"the kind {kind}: give the index new columns of all rows"
                )
        self.kinds = dict(kinds or self.kinds)

    def fingerprint(self) -> str:
        """Return the SHA-256 of the store's content."""
        return self._store.manifest.fingerprint

    def gathered(self, folder: Path) -> KeyedColumns:
        """See ``ColumnSource``; nothing is written."""
        ids = self._store.ids.cast(pa.large_string())
        order = order_of_ids(ids, lambda count, id: SchnRayError(f"{count} ids such as {id!r}"))
        read = {LABEL: self._labels, FOLDER: self._folders}
        columns = {name: read[name]() for name in self.kinds}
        return KeyedColumns(ids, order, columns)

    def _labels(self) -> pa.Array[Any]:
        matrix = self._store.labels
        classes = pa.array(self._store.classes, pa.large_string())
        if self.kinds[LABEL] == "texts":
            values = classes.take(pa.array(matrix.indices))
            starts = pa.array(matrix.indptr.astype(np.int64))
            return joined_texts(pa.LargeListArray.from_arrays(starts, values))
        present = np.diff(matrix.indptr) > 0
        numbers = np.zeros(len(present), np.int64)
        numbers[present] = matrix.indices
        return classes.take(pa.array(numbers, mask=~present))

    def _folders(self) -> pa.Array[Any]:
        ids = self._store.ids.cast(pa.large_string())
        folders: pa.Array[Any] = pc.replace_substring_regex(ids, "/?[^/]*$", "")
        return folders


def open_columns(
    path: Path | str, names: Sequence[str] | None = None, kinds: Mapping[str, str] | None = None
) -> NewColumns:
    """Open what has columns of images: a Parquet or CSV file, or a store.

    Args:
        path: a path or a URI.
        names: see ``ColumnFile`` and ``StoredColumns``.
        kinds: see ``ColumnFile`` and ``StoredColumns``.

    Raises:
        SchnRayError: as they do.
    """
    if directory_kind(as_location(path)) == "store":
        return StoredColumns(open_store(path), names, kinds)
    return ColumnFile(path, names, kinds)
