"""Rows of a gallery in a store that was made of the same images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.data.store.reader import Store


def stored_rows(
    gallery: Path | str, ids: pa.Array | pa.ChunkedArray, store: Store
) -> NDArray[np.int64]:
    """Return the row that a store has of each id: int64 [m], -1 where it has none.

    Args:
        gallery: where the ids are from, for messages.
        ids: [m] strings.
        store: of the same images.

    Raises:
        SchnRayError: the store has no labels, or none of the ids.
    """
    if not store.labels.nnz:
        raise SchnRayError(f"{store.location} has no labels; leave --labels out")
    rows = store.rows_of(ids)
    if (rows < 0).all():
        raise SchnRayError(
            f"{store.location} has none of the ids of {gallery}, such as "
            f"{ids[0].as_py()!r}; name the store that was made of the same images"
        )
    return rows
