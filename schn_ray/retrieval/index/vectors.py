"""Int8 vectors of the rows of an index, and the cosines of queries with them.

A search by distance chooses rows; these vectors put them into a finer order (``rescoring``). A row
x becomes v = rint(127 x / max |x_i|), one byte a number, and the scale 1 / |v| in float32, so that
v times its scale has the length 1. Vectors lie in the order of the rows.

The score is the cosine of the query's vector with v. The query is scaled to whole numbers of 2^-e,
so that every sum of products is exact in float64 (``as_queries``): rows with equal vectors have
equal scores, in whatever order they are added up.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.atomic_files import FileWriter
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.checked_files import CheckedFile

Int8 = NDArray[np.int8]
Floats = NDArray[np.float64]
VectorName = Literal["relaxed", "features"]
VECTORS: tuple[VectorName, ...] = ("relaxed", "features")
_LARGEST = 127
_WHOLE_BITS = 53  # of a number that float64 holds exactly
_NUMBERS = 1 << 20  # of vectors in memory at once, as float64
_ROWS_AT_ONCE = 1 << 14


class VectorQueries(NamedTuple):
    """Vectors of q queries of length 1, as whole numbers.

    Attributes:
        whole: float64 [q, d], whole numbers.
        exponent: ``whole`` times 2^-exponent has the length 1, or is 0.
    """

    whole: Floats
    exponent: int


class IndexVectors:
    """The vectors of an index's n rows, mapped.

    Args:
        files: the index's files by name.
        name: of the vectors.
        rows: n.

    Raises:
        SchnRayError: a file has another size.

    Attributes:
        width: numbers of a vector, d.
    """

    def __init__(self, files: Mapping[str, CheckedFile], name: str, rows: int) -> None:
        self._file, self._scale_file = files[name], files[_scales(name)]
        size = len(self._file.data)
        if not size or size % rows or len(self._scale_file.data) != 4 * rows:
            raise SchnRayError(
                f"{self._file.path} is damaged: {size:,} bytes; make the index again"
            )
        self.width = size // rows
        self._vectors = self._file.array(np.int8).reshape(rows, self.width)
        self._scale = self._scale_file.array(np.float32)

    def at(self, rows: NDArray[np.int64]) -> Int8:
        """Return the vectors of rows, hashed: int8 [m, d]."""
        starts = rows * self.width
        self._file.check(starts, starts + self.width)
        return self._vectors[rows]

    def scores(self, queries: VectorQueries, query: int, rows: NDArray[np.int64]) -> Floats:
        """Return the cosines of one query with the vectors of rows: float64 [m]."""
        self._scale_file.check(4 * rows, 4 * rows + 4)
        scores = np.empty(len(rows))
        at_once = max(1, _NUMBERS // self.width)
        for start in range(0, len(rows), at_once):
            block = rows[start : start + at_once]
            scores[start : start + at_once] = _sums(self.at(block), queries, query)
        scores *= self._scale[rows]
        return np.ldexp(scores, -queries.exponent)


def as_int8(X: NDArray[np.floating]) -> Int8:
    """Return each row as whole numbers from -127 to 127: its largest number becomes 127 or -127.

    Args:
        X: [n, d], finite.

    Raises:
        SchnRayError: a number is NaN or infinite.

    Example:
        >>> as_int8(np.array([[0.5, -1.0, 0.0], [0.0, 0.0, 0.0]])).tolist()
        [[64, -127, 0], [0, 0, 0]]
    """
    _require_finite(X)
    largest = np.abs(X).max(axis=1, keepdims=True, initial=0).astype(np.float64)
    scaled = np.divide(X, largest, out=np.zeros(X.shape), where=largest > 0)
    return np.rint(scaled * _LARGEST).astype(np.int8)


def as_queries(X: NDArray[np.floating]) -> VectorQueries:
    """Scale the vectors of queries to whole numbers, whose products with int8 add up exactly.

    A vector of length 1 has a sum of |x_i| of at most sqrt(d). So all sums are below
    127 (sqrt(d) + d 2^-e) 2^e, and e is chosen so that this is below 2^53.

    Args:
        X: [q, d], finite.

    Raises:
        SchnRayError: a number is NaN or infinite.
    """
    _require_finite(X)
    largest = np.abs(X).max(axis=1, keepdims=True, initial=0).astype(np.float64)
    scaled = np.divide(X, largest, out=np.zeros(X.shape), where=largest > 0)
    length = np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    unit = np.divide(scaled, length, out=scaled, where=length > 0)
    exponent = _WHOLE_BITS - 8 - int(np.ceil(np.log2(np.sqrt(max(2, X.shape[1])) + 1)))
    return VectorQueries(np.rint(np.ldexp(unit, exponent)), exponent)


def query_cosines(queries: VectorQueries, vectors: Int8) -> Floats:
    """Return the cosines of queries with vectors in memory, as ``IndexVectors.scores`` has them.

    Args:
        queries: q of them.
        vectors: int8 [m, d].

    Returns:
        float64 [q, m].
    """
    scores = np.empty((len(queries.whole), len(vectors)))
    at_once = max(1, _NUMBERS // vectors.shape[1])
    for start in range(0, len(vectors), at_once):
        block = vectors[start : start + at_once]
        scores[:, start : start + at_once] = queries.whole @ block.astype(np.float64).T
    scores *= scales(vectors)
    return np.ldexp(scores, -queries.exponent)


def scales(vectors: Int8) -> NDArray[np.float32]:
    """Return 1 / |v| of vectors, float32 [m]; 0 for a vector of zeros.

    Args:
        vectors: int8 [m, d].
    """
    wide = vectors.astype(np.float64)  # sums of whole numbers are exact
    length = np.sqrt(np.einsum("ij,ij->i", wide, wide))
    return np.divide(1, length, out=np.zeros(len(length)), where=length > 0).astype(np.float32)


def write_vectors(folder: Path, name: str, raw: Path, width: int, order: NDArray[Any]) -> None:
    """Write vectors in the order of the rows, and their scales.

    Args:
        folder: to write to.
        name: of the vectors.
        raw: a file of int8 [n, d].
        width: d.
        order: rows of ``raw`` in the order of their ids [n].
    """
    vectors = np.memmap(raw, np.int8, "r").reshape(len(order), width)
    with FileWriter(folder / name) as file, FileWriter(folder / _scales(name)) as scale_file:
        for start in range(0, len(order), _ROWS_AT_ONCE):
            block = vectors[order[start : start + _ROWS_AT_ONCE]]
            file.write(block.tobytes())
            scale_file.write(scales(block).tobytes())


def _sums(vectors: Int8, queries: VectorQueries, query: int) -> Floats:
    sums: Floats = vectors.astype(np.float64) @ queries.whole[query]
    return sums


def _scales(name: str) -> str:
    return f"{name}_scales"


def _require_finite(X: NDArray[np.floating]) -> None:
    bad = ~np.isfinite(X).all(axis=1)
    if bad.any():
        raise SchnRayError(f"vector {int(bad.argmax())} has numbers that are NaN or infinite")
