"""Vectors in ``.npy`` files [n, D], mapped into memory, with ids and labels in files of their own.

``NAME.npy`` may have ``NAME.ids.txt`` (an id a line) or ``NAME.ids.npy`` (texts or whole numbers),
and ``NAME.labels.txt`` (a line a row; empty for a row without a label, ``;`` between labels).
Without ids, a row's id is its number.
"""

from __future__ import annotations

import functools
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import kind_at, size_and_stamp
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import BadRow, Row, Shard, units_of
from schn_ray.data.shards.vectors import (
    VectorFormat,
    VectorRows,
    arrow_vectors,
    problems_of,
    rows_of_shard,
    stored_type,
    vector_rows,
)
from schn_ray.data.sources.tables import file_location, table_files, table_shards
from schn_ray.data.sources.vector_columns import no_labels, numbered

SUFFIX = ".npy"
_IDS_TEXT, _IDS_ARRAY, _LABELS = ".ids.txt", ".ids.npy", ".labels.txt"
_SCANNED = 1 << 24  # bytes at once


@dataclass(frozen=True)
class NpySource:
    """One ``.npy`` file, or a folder of them; ids of a folder's rows are ``NAME.npy#row``."""

    location: str
    config: SourceConfig
    kind: str = "npy"

    @cached_property
    def vectors(self) -> VectorFormat:
        """The format of the vectors, that of the first file."""
        name, _, _ = self._files()[0]
        return _format_of(file_location(self.location, name), self.config.vector_width)

    def shards(self) -> Iterator[Shard]:
        """List row ranges, file by file; a file is opened when its turn comes.

        Raises:
            SchnRayError: no files or rows; a file that cannot be read, is not [n, D], or has
                another format than the first; ids or labels of another number of rows.
        """
        return self._shards_after(None)

    def shards_after(self, last: Shard) -> Iterator[Shard]:
        """List the shards that follow one of ``shards``; files before it are not opened."""
        return self._shards_after(last)

    def _shards_after(self, last: Shard | None) -> Iterator[Shard]:
        files = [(name, size, self._stamp(name, stamp)) for name, size, stamp in self._files()]
        shard_rows = rows_of_shard(self.config.shard_rows, self.vectors)
        yield from table_shards(self.location, files, shard_rows, self._rows_of, last)

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's rows one by one."""
        for batch in self.read_batches(shard):
            yield from batch.rows()

    def read_batches(self, shard: Shard) -> Iterator[VectorRows]:
        """Read the shard's rows, many at once."""
        for unit in units_of(shard):
            location = file_location(self.location, unit.file)
            stem = f"{unit.file}#" if kind_at(self.location) == "folder" else ""
            X, end = _open(location), unit.start + unit.rows
            for start in range(unit.start, min(end, len(X)), self.vectors.rows_at_once):
                stop = min(start + self.vectors.rows_at_once, end, len(X))
                yield self._batch(location, stem, X[start:stop], np.arange(start, stop))

    def _batch(
        self, location: str, stem: str, X: NDArray[Any], numbers: NDArray[np.int64]
    ) -> VectorRows:
        with np.errstate(over="ignore"):  # a number that float32 does not have becomes infinite
            X = np.ascontiguousarray(X, self.vectors.dtype)
        problems = problems_of(X)
        ids, id_problems = _ids(location, stem, numbers)
        labels, label_problems = _labels(location, numbers)
        columns = {
            "id": ids,
            "labels": labels,
            "uri": numbered(f"{location}#", numbers),
            "vector": arrow_vectors(X),
        }
        return vector_rows(columns, label_problems | problems | id_problems, self.vectors)

    def _files(self) -> list[tuple[str, int, str]]:
        files = table_files(self.location, (SUFFIX,))
        return [file for file in files if not file[0].endswith(_IDS_ARRAY)]

    def _stamp(self, name: str, stamp: str) -> str:
        """Return the stamp of a file together with those of its ids and labels."""
        location = file_location(self.location, name)
        others = (_path_of(location, ending) for ending in (_IDS_TEXT, _IDS_ARRAY, _LABELS))
        return " ".join([stamp, *(size_and_stamp(str(path))[1] for path in others if path)])

    def _rows_of(self, location: str) -> int:
        got, rows = _format_of(location, self.config.vector_width), len(_open(location))
        if got != self.vectors:
            raise SchnRayError(
                f"{location}: its vectors are {got}; the first file has {self.vectors}, and all "
                "vectors of a source have one width and type"
            )
        _ids(location, "", np.zeros(0, np.int64))
        _labels(location, np.zeros(0, np.int64))
        return rows


def has_npy(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has ``.npy`` files and nothing else.

    Args:
        location: the folder.
        names: the names in it.
    """
    files = [name for name in names if not name.startswith(".")]
    endings = (SUFFIX, _IDS_TEXT, _LABELS)
    return any(name.endswith(SUFFIX) for name in files) and all(
        name.endswith(endings) for name in files
    )


@functools.lru_cache(maxsize=4)
def _mapped(location: str, stamp: str) -> Any:
    try:
        return np.load(location, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise SchnRayError(f"{location} cannot be read as .npy: {error}") from error


def _open(location: str) -> Any:
    X = _mapped(location, size_and_stamp(location)[1])
    if not isinstance(X, np.ndarray) or X.ndim != 2 or X.shape[1] == 0:
        got = list(X.shape) if isinstance(X, np.ndarray) else "something else"
        raise SchnRayError(f"{location}: expected vectors [n, D], a row each; got {got}")
    return X


def _format_of(location: str, width: int | None) -> VectorFormat:
    X = _open(location)
    try:
        dtype = stored_type(pa.from_numpy_dtype(X.dtype.newbyteorder("=")))
    except pa.ArrowException:
        dtype = None
    if dtype is None:
        raise SchnRayError(
            f"{location} holds {X.dtype}; expected float16, float32, float64 or int8. "
            "Convert it with numpy's astype"
        )
    if width not in (None, X.shape[1]):
        raise SchnRayError(
            f"{location}: vectors have {X.shape[1]:,} numbers, source.vector_width is {width:,}"
        )
    return VectorFormat(X.shape[1], dtype)


def _path_of(location: str, ending: str) -> Path | None:
    """Return the path of the ids or labels of a file, if they exist."""
    path = Path(location.removesuffix(SUFFIX) + ending)
    return path if path.is_file() else None


def _ids(location: str, stem: str, numbers: NDArray[np.int64]) -> tuple[pa.Array, dict[int, str]]:
    text, array = _path_of(location, _IDS_TEXT), _path_of(location, _IDS_ARRAY)
    if text and array:
        raise SchnRayError(f"{text} and {posixpath.basename(array)}: expected one of them")
    default_ids = numbered(stem, numbers)
    if array:
        ids = _id_array(str(array), len(_open(location)))[numbers]
        if ids.dtype.kind != "S":
            return pa.array(ids.astype(str).tolist(), pa.string()), {}
        return _decoded(ids.tolist(), default_ids, numbers, array.name)
    if text:
        return _decoded(_lines_of(text, location).read(numbers), default_ids, numbers, text.name)
    return default_ids, {}


def _decoded(
    values: list[bytes], default_ids: pa.Array, numbers: NDArray[np.int64], file: str
) -> tuple[pa.Array, dict[int, str]]:
    """Return ids as texts, with the default ids in place of those that are none."""
    ids, problems = list[str | None](), dict[int, str]()
    for row, value in enumerate(values):
        try:
            ids.append(value.decode() or None)
            reason = "" if value else f"no id: row {numbers[row] + 1} of {file} is empty"
        except UnicodeDecodeError:
            ids.append(None)
            reason = f"row {numbers[row] + 1} of {file} is not UTF-8"
        if reason:
            problems[row] = reason
    return pc.coalesce(pa.array(ids, pa.string()), default_ids), problems


def _id_array(path: str, rows: int) -> Any:
    ids = _mapped(path, size_and_stamp(path)[1])
    if not isinstance(ids, np.ndarray) or ids.ndim != 1 or ids.dtype.kind not in "iuUS":
        got = f"{ids.dtype}{list(ids.shape)}" if isinstance(ids, np.ndarray) else "something else"
        raise SchnRayError(f"{path}: expected texts or whole numbers [n]; got {got}")
    if len(ids) != rows:
        raise _unequal(path, len(ids), rows)
    return ids


def _labels(location: str, numbers: NDArray[np.int64]) -> tuple[pa.Array, dict[int, str]]:
    path = _path_of(location, _LABELS)
    if path is None:
        return no_labels(len(numbers)), {}
    lines, problems = _lines_of(path, location).read(numbers), dict[int, str]()
    known: dict[bytes, list[str]] = {}
    for row, line in enumerate(lines):
        try:
            if line not in known:
                known[line] = sorted({label.strip() for label in line.decode().split(";")} - {""})
        except UnicodeDecodeError:
            problems[row] = f"line {numbers[row] + 1} of {path.name} is not UTF-8"
    return pa.array([known.get(line, []) for line in lines], pa.list_(pa.string())), problems


class _Lines:
    """The lines of a text file, mapped into memory: only where each begins is held."""

    def __init__(self, path: str) -> None:
        size = Path(path).stat().st_size
        self._data = np.memmap(path, np.uint8, "r") if size else np.zeros(0, np.uint8)
        ends = [
            start + np.flatnonzero(self._data[start : start + _SCANNED] == ord("\n"))
            for start in range(0, size, _SCANNED)
        ]
        if size and self._data[-1] != ord("\n"):
            ends.append(np.array([size]))
        self._ends = np.concatenate([np.zeros(0, np.int64), *ends])
        self._begin = 3 if self._data[:3].tobytes() == b"\xef\xbb\xbf" else 0

    def __len__(self) -> int:
        return len(self._ends)

    def read(self, numbers: NDArray[np.int64]) -> list[bytes]:
        """Return these lines, ascending and without gaps, without what ends them."""
        if not len(numbers):
            return []
        first, last = int(numbers[0]), int(numbers[-1])
        start = self._begin if first == 0 else int(self._ends[first - 1]) + 1
        text = self._data[start : int(self._ends[last])].tobytes()
        return [line.removesuffix(b"\r") for line in text.split(b"\n")]

    def is_blank(self, first: int) -> bool:
        """Tell whether there is nothing from a line on."""
        return not self._data[int(self._ends[first - 1]) if first else 0 :].tobytes().strip()


def _lines_of(path: Path, vectors: str) -> _Lines:
    lines = _lines(str(path), size_and_stamp(str(path))[1])
    rows = len(_open(vectors))
    if len(lines) < rows or (len(lines) > rows and not lines.is_blank(rows)):
        raise _unequal(str(path), len(lines), rows)
    return lines


@functools.lru_cache(maxsize=4)
def _lines(path: str, stamp: str) -> _Lines:
    return _Lines(path)


def _unequal(path: str, got: int, rows: int) -> SchnRayError:
    return SchnRayError(f"{path} has {got:,} rows, the vectors are {rows:,}: expected as many")
