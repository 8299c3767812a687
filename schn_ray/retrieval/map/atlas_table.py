"""The points of a map as a Parquet file, a row for each image, as embedding-atlas opens it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.atomic_files import writing
from schn_ray.retrieval.duplicates.groups import row_chunks
from schn_ray.retrieval.map.colours import Colouring
from schn_ray.retrieval.map.gallery_map import GalleryMap

_NEIGHBOURS = pa.struct({"ids": pa.list_(pa.int64()), "distances": pa.list_(pa.int32())})


def write_atlas_table(gallery: GalleryMap, colourings: Sequence[Colouring], path: Path) -> None:
    """Write ``id``, ``uri``, ``x``, ``y``, ``neighbors``, and a column for each colouring.

    ``neighbors`` has ``ids``, row numbers of this file from 0 on, and ``distances`` in bits: the
    nearest other codes, each by its first image. Images of the same code have the same place and
    the same neighbours.

    Args:
        gallery: the map.
        colourings: of its rows; those without a column are left out.
        path: of the file.
    """
    columns = {"id": pa.string(), "uri": pa.string(), "x": pa.float32(), "y": pa.float32()}
    shown = [colouring for colouring in colourings if colouring.column]
    schema = pa.schema(
        columns | {c.column: pa.string() for c in shown} | {"neighbors": _NEIGHBOURS},
        metadata={"codes": gallery.index.manifest.fingerprint},
    )
    _, first = np.unique(gallery.points, return_index=True)
    with writing(path), pq.ParquetWriter(path, schema) as writer:
        for at in row_chunks(len(gallery.rows)):
            rows, positions = gallery.rows[at], gallery.positions[gallery.points[at]]
            arrays = [
                pa.array(gallery.index.ids(rows), pa.string()),
                pa.array(gallery.index.uris(rows), pa.string()),
                *(pa.array(np.ascontiguousarray(axis)) for axis in positions.T),
                *(_names(colouring, at) for colouring in shown),
                _neighbours(gallery, at, first),
            ]
            writer.write_table(pa.table(arrays, schema=schema))


def _names(colouring: Colouring, at: NDArray[np.int64]) -> pa.Array:
    values = colouring.values[at]
    return pa.array(colouring.names, pa.string()).take(pa.array(values, mask=values < 0))


def _neighbours(
    gallery: GalleryMap, at: NDArray[np.int64], first: NDArray[np.int64]
) -> pa.StructArray:
    numbers, distances = (column[gallery.points[at]] for column in gallery.neighbours)
    starts = pa.array(np.arange(len(at) + 1, dtype=np.int32) * numbers.shape[1])
    lists = [
        pa.ListArray.from_arrays(starts, pa.array(values.ravel()))
        for values in (first[numbers].astype(np.int64), distances)
    ]
    return pa.StructArray.from_arrays(lists, fields=list(_NEIGHBOURS))
