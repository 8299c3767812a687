"""What rows of a map are coloured by: their label, their group of near codes, their copies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.data.store.reader import Store
from schn_ray.retrieval.duplicates.connected import connected_labels
from schn_ray.retrieval.duplicates.groups import number_groups
from schn_ray.retrieval.index.index import Index
from schn_ray.retrieval.stored_rows import stored_rows

_COPIES = ("alone", "2 to 9", "10 to 99", "100 and more")


@dataclass(frozen=True, eq=False)
class Colouring:
    """A value of each of m rows.

    Attributes:
        column: name of the column in the table; "" where the table has none.
        title: what the values are, for the legend.
        names: of the values.
        values: int64 [m], a number into names; -1 for none.
        nothing: what a row without a value is called.
    """

    column: str
    title: str
    names: list[str]
    values: NDArray[np.int64]
    nothing: str

    def of_points(self, points: NDArray[np.int64], count: int) -> NDArray[np.int64]:
        """Return the commonest value of each point's rows, of equally common the first: [u].

        Args:
            points: int64 [m], the point of each row, 0 to count - 1, each there at least once.
            count: points.
        """
        width = len(self.names) + 1
        cells, rows = np.unique(points * width + self.values + 1, return_counts=True)
        order = np.lexsort((-rows, cells // width))
        first = np.searchsorted(cells // width, np.arange(count))
        values: NDArray[np.int64] = cells[order][first] % width - 1
        return values


def colour_by_label(index: Index, rows: NDArray[np.int64], store: Store) -> Colouring:
    """Take the first label that a store has of each row.

    Args:
        index: the gallery.
        rows: int64 [m], numbers of rows.
        store: of the same images, by their ids.

    Raises:
        SchnRayError: it has no labels, or none of the ids.
    """
    numbers = stored_rows(index.path, pa.array(index.ids(rows), pa.large_string()), store)
    starts, labels = store.labels.indptr, store.labels.indices
    labelled = (numbers >= 0) & (starts[numbers + 1] > starts[numbers])
    values = np.full(len(numbers), -1)
    values[labelled] = labels[starts[numbers[labelled]]]
    return Colouring("label", "Label", list(store.classes), values, "no label")


def colour_by_group(index: Index, rows: NDArray[np.int64], radius: int) -> Colouring:
    """Find the groups of near codes in all of a gallery, as ``duplicates`` with ``verify="none"``.

    Args:
        index: the gallery.
        rows: int64 [m], numbers of rows.
        radius: bits in which neighbours in a chain may differ.

    Raises:
        SchnRayError: a negative radius, or a damaged index.
    """
    if radius < 0:
        raise SchnRayError(f"radius {radius} is negative; give 0 or more bits")
    codes, postings = index.distinct()
    labels = connected_labels(codes, index.bits, radius)
    sizes = np.bincount(labels, postings.all_counts(), len(codes)).astype(np.int64)
    label_of_row = labels[index.numbers()]
    members = np.flatnonzero(sizes[label_of_row] > 1)
    groups, order = number_groups(label_of_row[members])
    values = np.full(len(label_of_row), -1)
    values[members[order]] = groups
    names = [f"group {number}" for number in range(int(groups.max(initial=-1)) + 1)]
    title = f"Near codes, {radius} bit{'' if radius == 1 else 's'} apart at most"
    return Colouring("group", title, names, values[rows], "in no group")


def colour_by_copies(points: NDArray[np.int64]) -> Colouring:
    """Count the rows on the map that have the same code.

    Args:
        points: int64 [m], the point of each row.
    """
    copies = np.bincount(points)
    values = np.searchsorted([2, 10, 100], copies, side="right")[points]
    return Colouring("", "Images of the same code", list(_COPIES), values, "")
