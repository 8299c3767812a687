"""A gallery as points: distinct codes with their rows, neighbours and positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.index import Index
from schn_ray.retrieval.map.layout import lay_out
from schn_ray.retrieval.map.neighbours import Neighbours, nearest_codes

NEIGHBOURS = 15  # of a code


@dataclass(frozen=True)
class MapCounts:
    """Sizes of a map.

    Attributes:
        rows: images of the gallery.
        drawn: images on the map.
        codes: their distinct codes, each a point.
        bits: of a code.
    """

    rows: int
    drawn: int
    codes: int
    bits: int

    def __str__(self) -> str:
        points = f"{self.codes:,} distinct codes of {self.bits} bits, each a point"
        if self.drawn == self.rows:
            return f"{self.rows:,} images with {points}"
        return f"{self.drawn:,} of {self.rows:,} images, drawn at random, with {points}"


@dataclass(frozen=True, eq=False)
class GalleryMap:
    """u points, the distinct codes of m rows of an index.

    Attributes:
        index: the gallery.
        rows: int64 [m], numbers of rows, ascending, and so in the order of their ids.
        points: int64 [m], the point of each row.
        codes: int64 [u], the number of each point's code in the index.
        positions: float32 [u, 2].
        neighbours: of each point; numbers of points.
    """

    index: Index
    rows: NDArray[np.int64]
    points: NDArray[np.int64]
    codes: NDArray[np.int64]
    positions: NDArray[np.float32]
    neighbours: Neighbours

    @property
    def counts(self) -> MapCounts:
        """The sizes of the map."""
        return MapCounts(len(self.index), len(self.rows), len(self.codes), self.index.bits)


def draw_rows(index: Index, most: int, seed: int) -> NDArray[np.int64]:
    """Return the rows of a map, ascending: all, or of a larger gallery so many at random.

    Args:
        index: the gallery.
        most: rows at most.
        seed: of the draw.

    Raises:
        SchnRayError: most < 1.
    """
    if most < 1:
        raise SchnRayError(f"most is {most}; a map has at least 1 image")
    if len(index) <= most:
        return np.arange(len(index))
    return np.sort(np.random.default_rng(seed).choice(len(index), most, replace=False))


def lay_out_rows(index: Index, rows: NDArray[np.int64], seed: int) -> GalleryMap:
    """Give every distinct code of some rows a place.

    Args:
        index: the gallery.
        rows: int64 [m], numbers of rows, ascending, at least one.
        seed: of the layout.

    Raises:
        SchnRayError: a damaged index, or openTSNE is not installed.
    """
    numbers, points = np.unique(index.numbers()[rows], return_inverse=True)
    codes = np.ascontiguousarray(index.distinct()[0][numbers])
    neighbours = nearest_codes(codes, NEIGHBOURS)
    positions = lay_out(codes, index.bits, neighbours.numbers, seed)
    return GalleryMap(index, rows, points, numbers, positions, neighbours)
