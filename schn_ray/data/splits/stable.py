"""A split for a source that grows: a row keeps its role whatever other rows come and go.

A model that is trained once is measured again and again while photos are added, renamed, edited and
removed. A split that is drawn anew would ask queries that the model was trained on. So two numbers
in [0, 1) are drawn for each row, a by its id and b by its bytes, and nothing else counts:

    query      a < s and b < s        s^2 = query_share
    training   a >= s and b >= s      or less, by a third number, for train_share
    gallery    the rest

A row with the id or the bytes of a training row can never be a query: it has a >= s or b >= s, as
the training row has. Renamed and edited images are safe, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import PrepareConfig
from schn_ray.data.shards.equal_rows import FirstRows

_ROWS_AT_ONCE = 1 << 14
Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


def stable_split(
    labels: csr_array[Any],
    ids: pa.ChunkedArray,
    sha256: pa.ChunkedArray,
    image_of: FirstRows,
    config: PrepareConfig,
) -> dict[str, Rows]:
    """Split rows by their ids and bytes.

    Where any row has a label, those without one have no role. Where none has, the gallery is all
    that are not queries, and nothing is held out for validation. A query of which there is a copy
    goes to the gallery.

    Args:
        labels: [n, C] label matrix.
        ids: [n] id of every row.
        sha256: [n] of its bytes.
        image_of: [n] first row with the same bytes; see ``first_with_hash``.
        config: seed, ``query_share``, ``train_share`` and ``validation_share``.

    Returns:
        role -> its rows, ascending.

    Raises:
        SchnRayError: shares out of bounds, or so few rows that a role has none.
    """
    share = config.query_share
    if not (0 < share < 1 and config.train_share > 0):
        raise SchnRayError(
            f"query_share {share:g} and train_share {config.train_share:g}: both must be above 0, "
            "and query_share below 1"
        )
    root = share**0.5
    by_id, lot = _numbers(ids, config.seed)
    by_content, _ = _numbers(sha256, config.seed)
    has_label = np.diff(labels.indptr) > 0
    ranked = has_label if has_label.any() else np.ones(len(has_label), bool)
    single = np.bincount(image_of, minlength=len(image_of))[image_of] == 1
    query = ranked & single & (by_id < root) & (by_content < root)
    trainable = ranked & (by_id >= root) & (by_content >= root)
    train = trainable & (lot < config.train_share / (1 - root) ** 2)
    held_out = train & (lot < config.validation_share * config.train_share / (1 - root) ** 2)
    if not has_label.any():
        gallery, held_out = ranked & ~query, np.zeros_like(train)
    else:
        gallery = ranked & ~query & ~train
    masks = {"train": train & ~held_out, "validation": held_out, "query": query, "gallery": gallery}
    for role in ("train", "query", "gallery"):
        if not masks[role].any():
            raise SchnRayError(
                f"of {int(ranked.sum()):,} rows, none is a {role} row by its id and its bytes: add "
                "images, or change the shares with --set query_share=0.25"
            )
    return {role: np.flatnonzero(mask) for role, mask in masks.items()}


def _numbers(values: pa.ChunkedArray, seed: int) -> tuple[Floats, Floats]:
    """Return two numbers in [0, 1) for each value [n], that depend on it and the seed alone."""
    key = f"stable {seed}".encode()
    digests = b"".join(_digests(values, key))
    words = np.frombuffer(digests, "<u8").reshape(-1, 2)
    numbers = (words >> np.uint64(11)).astype(np.float64) / 2**53
    return numbers[:, 0], numbers[:, 1]


def _digests(values: pa.ChunkedArray, key: bytes) -> Iterable[bytes]:
    for start in range(0, len(values), _ROWS_AT_ONCE):
        for value in values.slice(start, _ROWS_AT_ONCE).to_pylist():
            data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
            yield hashlib.blake2b(data, digest_size=16, key=key).digest()
