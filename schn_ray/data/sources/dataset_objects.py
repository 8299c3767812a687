"""A data set of Hugging Face's ``datasets`` that is open in Python, or a dict of its splits."""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.listing import split_word
from schn_ray.data.sources.tables import Columns, Piece, TableSource

_ONE = "rows"  # in place of a split's name


@dataclass(frozen=True)
class DatasetObject(TableSource):
    """Rows of an open data set; columns and class names as in a saved one.

    Attributes:
        splits: name -> data set; ``rows`` of one without a name.
    """

    kind: str = "datasets"
    splits: Mapping[str, Any] = field(default_factory=dict)

    def files(self) -> list[tuple[str, int, str]]:
        """List the splits, with their fingerprints as stamps."""
        return [(name, 0, _fingerprint(data)) for name, data in self.splits.items()]

    def split_of(self, file: str) -> str | None:
        """Return the role that the split's name stands for."""
        return split_word(file)

    def describe(self, location: str) -> tuple[pa.Schema, int]:
        """Return the columns and the number of rows of a split."""
        data = self._data(location)
        return data.features.arrow_schema, len(data)

    def pieces(
        self, location: str, start: int, count: int, columns: Columns, at_once: int
    ) -> Iterator[Piece]:
        """Yield rows as they are stored: images are not decoded."""
        data = self._data(location)
        names = columns(data.features.arrow_schema)
        rows, end = data.select_columns(names).with_format("arrow"), min(start + count, len(data))
        for first in range(start, end, at_once):
            table = rows[first : min(first + at_once, end)].combine_chunks()
            for batch in table.to_batches():
                yield first, batch.select(names)
                first += len(batch)

    def _data(self, location: str) -> Any:
        return self.splits[posixpath.basename(location)]


def is_dataset(value: Any) -> bool:
    """Tell whether a value is a data set of ``datasets``, or a dict of such; it is not imported.

    Args:
        value: what is to be a source.
    """
    values = list(value.values()) if isinstance(value, Mapping) else [value]
    return bool(values) and all(
        hasattr(each, "with_format") and hasattr(each, "features") for each in values
    )


def open_dataset(value: Any, config: SourceConfig) -> DatasetObject:
    """Open a data set, or a dict of its splits, as a source.

    Args:
        value: see ``is_dataset``.
        config: how it is read. Images that it names by path may be anywhere.

    Raises:
        SchnRayError: it is streamed, so that its rows have no numbers.

    Example:
        ``open_dataset(datasets.load_dataset("cifar10"), SourceConfig())``
    """
    splits = dict(value) if isinstance(value, Mapping) else {_ONE: value}
    if not all(hasattr(data, "__len__") for data in splits.values()):
        raise SchnRayError(
            "a streamed data set has no row numbers, and cannot be read in parts: load it with "
            "streaming=False"
        )
    digest = hashlib.sha256("\n".join(map(_fingerprint, splits.values())).encode())
    root = config.root or os.getcwd()
    config = config.model_copy(update={"root": root, "allow_outside": True})
    return DatasetObject(f"dataset:{digest.hexdigest()[:16]}", config, splits=splits)


def _fingerprint(data: Any) -> str:
    return str(getattr(data, "_fingerprint", ""))
