"""Arrays that another program wrote: ``.npy``, ``.npz`` and Parquet; or arrays in memory.

They are read as they are. What they mean is decided by whoever asks for them: codes, embeddings,
labels.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.types as pt
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import as_location, is_uri, join, kind_at, names_in, read_file

ONLY = ""  # name of the array of a file that has one
SUFFIXES = (".npy", ".npz", ".parquet", ".txt")
Values = NDArray[Any] | list[Any]


@dataclass(frozen=True, eq=False)
class Arrays:
    """Arrays by name, and where they are from.

    Attributes:
        source: their file, or what they are called, for messages.
        arrays: name -> array; a list where rows have several values each. A single array without
            a name is ``ONLY``.
    """

    source: str
    arrays: Mapping[str, Values]

    def named(self, *names: str) -> Values | None:
        """Return the first array of these names; None if there is none."""
        return next((self.arrays[name] for name in names if name in self.arrays), None)

    def one(self, *names: str) -> Values:
        """Return the only array, or else the first of these names.

        Raises:
            SchnRayError: there is none.
        """
        values = next(iter(self.arrays.values())) if len(self.arrays) == 1 else self.named(*names)
        if values is None:
            raise SchnRayError(
                f"{self.source} has {', '.join(self.arrays) or 'nothing'}; expected one array, or "
                f"one that is called {' or '.join(names)}"
            )
        return values

    @property
    def sha256(self) -> str:
        """SHA-256 in hexadecimal over all values."""
        digest = hashlib.sha256()
        for name in sorted(self.arrays):
            values = self.arrays[name]
            digest.update(f"{name}\n".encode())
            if isinstance(values, np.ndarray) and values.dtype.kind not in "OU":
                digest.update(f"{values.dtype}{values.shape}".encode())
                digest.update(np.ascontiguousarray(values).data)
            else:
                digest.update(repr(list(values)).encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def read_arrays(source: Any, what: str) -> Arrays:
    """Read the arrays of a file, or take one in memory.

    Args:
        source: a path or URI of ``.npy``, ``.npz``, Parquet, or ``.txt`` (a line a row); a folder
            of Parquet, such as a directory of codes; or an array, tensor or list.
        what: it is, for messages, such as ``labels``.

    Raises:
        SchnRayError: no such file, one of another kind, or a damaged one.

    Example:
        >>> read_arrays([3, 5], "labels").one("labels").tolist()
        [3, 5]
    """
    if not isinstance(source, (str, Path)):
        values = source.detach().cpu() if hasattr(source, "detach") else source
        return Arrays(what, {ONLY: _array_of(values, what)})
    location = as_location(source)
    kind = kind_at(location)
    if kind is None:
        raise SchnRayError(f"{source}: no such file of {what}")
    if kind == "folder":
        return _of_table(_folder(location, what), location)
    if not location.endswith(SUFFIXES):
        raise SchnRayError(
            f"{source}: cannot read {what} from this file; expected {', '.join(SUFFIXES)}. Save "
            "other arrays with numpy.save"
        )
    try:
        return _read(location)
    except (OSError, ValueError, EOFError, pa.ArrowException) as error:
        raise SchnRayError(f"{source} cannot be read: {error}") from error


def _read(location: str) -> Arrays:
    if location.endswith(".txt"):
        lines = read_file(location).decode().removesuffix("\n").split("\n")
        rows = [[label.strip() for label in line.split(";") if label.strip()] for line in lines]
        return Arrays(location, {ONLY: rows})
    if location.endswith(".parquet"):
        return _of_table(pq.read_table(io.BytesIO(read_file(location))), location)
    if location.endswith(".npy") and not is_uri(location):
        return Arrays(location, {ONLY: np.load(location, mmap_mode="r", allow_pickle=False)})
    loaded = np.load(io.BytesIO(read_file(location)), allow_pickle=False)
    arrays = {name: loaded[name] for name in loaded.files} if location.endswith(".npz") else None
    return Arrays(location, {ONLY: loaded} if arrays is None else arrays)


def _folder(location: str, what: str) -> pa.Table:
    below = join(location, "data") if "data" in names_in(location) else location
    names = sorted(
        (name for name in names_in(below) if name.endswith(".parquet")),
        key=lambda name: (len(name), name),
    )
    if not names:
        raise SchnRayError(f"{location}: no .parquet files of {what} in there")
    return pa.concat_tables(pq.read_table(io.BytesIO(read_file(join(below, n)))) for n in names)


def _of_table(table: pa.Table, location: str) -> Arrays:
    columns = zip(table.column_names, table.columns, strict=True)
    return Arrays(location, {name: _values_of(column) for name, column in columns})


def _values_of(column: pa.ChunkedArray) -> Values:
    """Return bytes of one length as uint8 [n, w], lists of one length as [n, d], else a list."""
    kind, rows = column.type, len(column)
    if column.null_count:
        return list(column.to_pylist())
    if pt.is_fixed_size_binary(kind) or pt.is_binary(kind) or pt.is_large_binary(kind):
        values = column.to_pylist()
        widths = {len(value) for value in values}
        if len(widths) != 1:
            return list(values)
        return np.frombuffer(b"".join(values), np.uint8).reshape(rows, widths.pop())
    if pt.is_list(kind) or pt.is_large_list(kind) or pt.is_fixed_size_list(kind):
        flat = column.combine_chunks().flatten()
        if rows and not flat.null_count and len(flat) % rows == 0 and _is_number(flat.type):
            lengths = {len(value) for value in column.to_pylist()}
            if len(lengths) == 1:
                return np.asarray(flat.to_numpy(zero_copy_only=False)).reshape(rows, -1)
        return list(column.to_pylist())
    return np.asarray(column.to_numpy()) if _is_number(kind) else list(column.to_pylist())


def _is_number(kind: pa.DataType) -> bool:
    return bool(pt.is_integer(kind) or pt.is_floating(kind) or pt.is_boolean(kind))


def _array_of(values: Any, what: str) -> Values:
    if isinstance(values, list) and any(isinstance(value, (list, tuple)) for value in values):
        try:
            return np.asarray(values)
        except ValueError:  # rows with several labels each
            return [list(value) for value in values]
    try:
        return np.asarray(values)
    except ValueError as error:
        raise SchnRayError(f"no array can be made of the {what}: {error}") from error
