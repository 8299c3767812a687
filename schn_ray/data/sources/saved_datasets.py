"""What Hugging Face's ``datasets`` saved with ``save_to_disk``, read without that package."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import join, names_in, read_file, size_and_stamp
from schn_ray.data.sources.arrow import ArrowSource
from schn_ray.data.sources.listing import split_word

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"


@dataclass(frozen=True)
class SavedDataset(ArrowSource):
    """A folder of ``save_to_disk``: one data set, or one in a folder for each split.

    Columns are as in Parquet. Numbers of classes get the names that the data set has for them.
    """

    kind: str = "datasets"

    def files(self) -> list[tuple[str, int, str]]:
        """List the files in the order of the splits, and in a split in its own order.

        Raises:
            SchnRayError: not such a folder, or one of which a file is missing.
        """
        files = list(self._files())
        if not files:
            raise SchnRayError(f"{self.location}: no data set that save_to_disk wrote in there")
        return files

    def _files(self) -> Iterator[tuple[str, int, str]]:
        for folder in self._folders():
            state = _json(join(self.location, posixpath.join(folder, _STATE)))
            if state.get("_indices_data_files"):
                raise SchnRayError(
                    f"{self.location}: rows are chosen by an index file; save it again after "
                    "flatten_indices()"
                )
            info = join(self.location, posixpath.join(folder, _INFO))
            names = _INFO in names_in(join(self.location, folder) if folder else self.location)
            for file in state.get("_data_files", []):
                name = posixpath.join(folder, file["filename"])
                size, stamp = _size_and_stamp(join(self.location, name))
                yield name, size, f"{stamp} {_size_and_stamp(info)[1]}" if names else stamp

    def split_of(self, file: str) -> str | None:
        """Return the role that the name of the split's folder stands for."""
        return split_word(posixpath.dirname(file))

    def _folders(self) -> list[str]:
        if _DICT not in names_in(self.location):
            return [""]
        return [str(split) for split in _json(join(self.location, _DICT)).get("splits", [])]

    def features(self, schema: pa.Schema) -> dict[str, Any]:
        """Return what is known of the columns, from ``dataset_info.json`` where there is one."""
        folder = join(self.location, self._folders()[0]) if self._folders()[0] else self.location
        if _INFO in names_in(folder) and (features := _json(join(folder, _INFO)).get("features")):
            return dict(features)
        return super().features(schema)


def has_dataset(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder is what ``save_to_disk`` writes.

    Args:
        location: the folder.
        names: the names in it.
    """
    return _DICT in names or (_STATE in names and _INFO in names)


def _size_and_stamp(location: str) -> tuple[int, str]:
    try:
        return size_and_stamp(location)
    except OSError as error:
        raise SchnRayError(
            f"{location}: {error.strerror or error}; the data set is not whole"
        ) from error


def _json(location: str) -> dict[str, Any]:
    try:
        return dict(json.loads(read_file(location)))
    except (OSError, ValueError, TypeError) as error:
        raise SchnRayError(
            f"{location} cannot be read as JSON: {getattr(error, 'strerror', None) or error}"
        ) from error
