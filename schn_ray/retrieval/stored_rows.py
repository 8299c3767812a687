"""Rows of an index in a store that was made of the same images."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.data.store.reader import Store
from schn_ray.retrieval.index.index import Index


def stored_rows(index: Index, ids: pa.LargeStringArray, store: Store) -> NDArray[np.int64]:
    """Return the row that a store has of each id: int64 [m], -1 where it has none.

    Args:
        index: that the ids are of, for messages.
        ids: [m], of the index.
        store: of the same images.

    Raises:
        SchnRayError: the store has no labels, or none of the ids.
    """
    if not store.labels.nnz:
        raise SchnRayError(f"{store.location} has no labels; leave --labels out")
    known = pc.index_in(ids, value_set=store.ids.cast(pa.large_string()))
    if known.null_count == len(known):
        raise SchnRayError(
            f"{store.location} has none of the ids of {index.path}, such as "
            f"{ids[0].as_py()!r}; name the store that was made of the same images"
        )
    rows: NDArray[np.int64] = pc.fill_null(known, -1).to_numpy(zero_copy_only=False)
    return rows.astype(np.int64)
