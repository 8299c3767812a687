"""Labels of queries and gallery as others save them: class numbers, names, or one-hot rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.data.array_files import Values
from schn_ray.data.sources.columns import NO_CLASS

NAMES = ("label", "labels", "L", "y", "target", "targets")


@dataclass(frozen=True, eq=False)
class Labels:
    """Labels of rows.

    Attributes:
        matrix: [n, C] of 0 and 1.
        classes: names of the C classes.
        one_hot: whether a row was given as C values, so that C is known.
    """

    matrix: csr_array
    classes: tuple[str, ...]
    one_hot: bool = False


def labels_of(values: Values, source: str) -> Labels:
    """Read labels.

    Args:
        values: [n, C] of 0 and 1; or [n] or [n, 1] class numbers or names, -1 for none; or a list
            of several for each row.
        source: of them, for messages.

    Raises:
        SchnRayError: another shape, NaN, or numbers that are none of these.

    Example:
        >>> labels_of(np.array([[0, 1], [1, 1]]), "L.npy").matrix.toarray().tolist()
        [[0, 1], [1, 1]]
        >>> labels_of(np.array([7, 3, 7]), "y.npy").classes
        ('3', '7')
    """
    if isinstance(values, list):
        return _of_names([_names_of(value) for value in values])
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 1 and values.dtype.kind in "OUS":
        return _of_names([_names_of(value) for value in values.tolist()])
    if values.dtype.kind not in "biuf" or values.ndim not in (1, 2) or not len(values):
        raise SchnRayError(
            f"{source}: expected class numbers [n] or 0 and 1 [n, classes]; got "
            f"{values.dtype}{list(values.shape)}"
        )
    if values.ndim == 2:
        return _one_hot(values, source)
    whole = np.isfinite(values) & (values >= -1) & (np.floor(values) == values)
    if not whole.all():
        row = int(whole.argmin())
        raise SchnRayError(
            f"{source}: row {row} has {values[row]}; expected a class number, or -1 for no class"
        )
    return _of_numbers(values.astype(np.int64))


def in_common(queries: Labels, gallery: Labels, sources: tuple[str, str]) -> tuple[Labels, Labels]:
    """Give the labels of queries and gallery the same columns.

    Args:
        queries: of the queries.
        gallery: of the gallery.
        sources: of both, for messages.

    Raises:
        SchnRayError: one-hot labels of other numbers of classes; or no class is in both.
    """
    if queries.one_hot and gallery.one_hot and len(queries.classes) != len(gallery.classes):
        raise SchnRayError(
            f"{sources[0]} has {len(queries.classes)} classes, {sources[1]} has "
            f"{len(gallery.classes)}: both need the same columns"
        )
    names = {*queries.classes, *gallery.classes}
    classes = tuple(sorted(names, key=lambda name: (_number(name), name)))
    if not set(queries.classes) & set(gallery.classes):
        raise SchnRayError(
            f"{sources[0]} and {sources[1]} have no class in common, such as "
            f"{(queries.classes or ('none',))[0]!r} and {(gallery.classes or ('none',))[0]!r}"
        )
    position = {name: column for column, name in enumerate(classes)}
    return _moved(queries, position, classes), _moved(gallery, position, classes)


def _moved(labels: Labels, position: dict[str, int], classes: tuple[str, ...]) -> Labels:
    columns = np.array([position[name] for name in labels.classes], np.int64)
    matrix = labels.matrix
    moved = csr_array(
        (matrix.data, columns[matrix.indices], matrix.indptr),
        shape=(matrix.shape[0], len(classes)),
    )
    moved.sort_indices()
    return Labels(moved, classes, labels.one_hot)


def _one_hot(values: NDArray[np.generic], source: str) -> Labels:
    is_bit = (values == 0) | (values == 1)
    if not is_bit.all():
        row, column = np.argwhere(~is_bit)[0]
        raise SchnRayError(
            f"{source}: row {row} has {values[row, column]}; rows of {values.shape[1]} values are "
            "0 or 1 for each class. Class numbers have the shape [n]"
        )
    matrix = csr_array(values.astype(np.uint8))
    return Labels(matrix, tuple(map(str, range(values.shape[1]))), one_hot=True)


def _of_numbers(numbers: NDArray[np.int64]) -> Labels:
    known = numbers >= 0
    classes, columns = np.unique(numbers[known], return_inverse=True)
    starts = np.concatenate([[0], np.cumsum(known)])
    ones = np.ones(len(columns), np.uint8)
    matrix = csr_array((ones, columns, starts), shape=(len(numbers), len(classes)))
    return Labels(matrix, tuple(map(str, classes.tolist())))


def _of_names(rows: list[list[str]]) -> Labels:
    classes = sorted({name for row in rows for name in row})
    position = {name: column for column, name in enumerate(classes)}
    columns = [position[name] for row in rows for name in sorted(row)]
    starts = np.cumsum([0, *map(len, rows)])
    ones = np.ones(len(columns), np.uint8)
    matrix = csr_array((ones, columns, starts), shape=(len(rows), len(classes)))
    return Labels(matrix, tuple(classes))


def _names_of(value: object) -> list[str]:
    values = value if isinstance(value, list) else [] if value is None else [value]
    names = [each.decode() if isinstance(each, bytes) else str(each) for each in values]
    return [name for name in dict.fromkeys(names) if name not in ("", NO_CLASS)]


def _number(name: str) -> float:
    return float(name) if name.isdecimal() else float("inf")
