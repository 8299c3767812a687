"""Histograms of a gallery, counted in parts by ``MapShards`` and summed: exact.

Workers import this module, so it must not import torch, which would be most of a worker's memory.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.evaluation.metrics.histograms import GradedHistograms, graded_histograms


@dataclass(frozen=True, eq=False)
class LabelledCodes:
    """Rows of a store with their codes: the queries, or the gallery that they rank.

    Attributes:
        rows: [m] rows of the store.
        codes: packed [m, ceil(K / 8)].
        labels: [m, C].
    """

    rows: NDArray[np.int64]
    codes: NDArray[np.uint8]
    labels: csr_array

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: NDArray[np.integer] | slice) -> LabelledCodes:
        return LabelledCodes(self.rows[index], self.codes[index], self.labels[index])


@dataclass(frozen=True, eq=False)
class GalleryPart:
    """Consecutive gallery rows as they are sent to a worker.

    Attributes:
        number: of the part, from 0.
        codes: packed [rows, ceil(K / 8)].
        labels: [rows, C].
    """

    number: int
    codes: NDArray[np.uint8]
    labels: csr_array

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.codes)


def count_relevant(
    queries: LabelledCodes,
    gallery: LabelledCodes,
    bits: int,
    part_rows: int,
    map_shards: MapShards = map_locally,
) -> GradedHistograms:
    """Count the whole gallery, part by part.

    Args:
        queries: Q of them; they travel to every worker.
        gallery: G rows.
        bits: K.
        part_rows: gallery rows of a part; a single part is counted in this process.
        map_shards: applies a function to all parts, on whatever machines.

    Returns:
        The same counts, however the gallery is cut and wherever they are counted.

    Raises:
        SchnRayError: the gallery has no row.
    """
    parts = list(gallery_parts(gallery, part_rows))
    function = functools.partial(count_part, queries=queries, bits=bits)
    counted = (map_locally if len(parts) == 1 else map_shards)(function, parts)
    total: NDArray[np.int64] | None = None
    for part in counted:
        if total is None:
            total = part.astype(np.int64)
        else:
            total += part
    if total is None:
        raise SchnRayError("an empty gallery; expected at least one row to rank")
    return GradedHistograms(total)


def gallery_parts(gallery: LabelledCodes, part_rows: int) -> Iterator[GalleryPart]:
    """Cut a gallery into parts.

    Args:
        gallery: G rows.
        part_rows: rows of a part; the last may have fewer.
    """
    for number, start in enumerate(range(0, len(gallery), part_rows)):
        part = slice(start, start + part_rows)
        yield GalleryPart(number, gallery.codes[part], gallery.labels[part])


def count_part(part: GalleryPart, queries: LabelledCodes, bits: int) -> NDArray[np.unsignedinteger]:
    """Count one part, on the worker that ``map_shards`` chooses.

    Args:
        part: of the gallery.
        queries: Q of them.
        bits: bits of a code, K.

    Returns:
        Counts as ``GradedHistograms`` has them, in the narrowest type, since they are sent back.
    """
    h = graded_histograms(queries.codes, queries.labels, part.codes, part.labels, bits)
    return h.counts.astype(np.min_scalar_type(part.rows))
