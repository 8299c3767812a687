"""Average precision by the tie rules of others, to reproduce published figures; never the default.

A sort puts equal distances in an arbitrary order, and the figure then depends on that order as much
as on the codes. These rules ignore relevance, and depend on the order of the gallery's rows.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.metrics.average_precision import Denominator

Floats = NDArray[np.float64]
RULES = {
    "stable": "the gallery's first row first, as a stable sort leaves it",
    "reversed": "the gallery's last row first",
    "unstable": "the order of NumPy's default sort, which depends on its version and the processor",
}


def legacy_average_precision(
    query_codes: NDArray[np.uint8],
    query_labels: csr_array,
    gallery_codes: NDArray[np.uint8],
    gallery_labels: csr_array,
    rule: str,
    k: int | None = None,
    denominator: Denominator = "hits",
) -> Floats:
    """Return average precision [Q] of one sort; NaN where nothing in the gallery is relevant.

    Args:
        query_codes: packed [Q, ceil(K / 8)].
        query_labels: [Q, C].
        gallery_codes: packed [G, ceil(K / 8)]; the order of rows matters.
        gallery_labels: [G, C].
        rule: a name of ``RULES``.
        k: ranks; None for the whole gallery.
        denominator: as ``metrics.average_precision_at``.

    Raises:
        SchnRayError: an unknown rule, or a k < 1.
    """
    if rule not in RULES:
        raise SchnRayError(f"tie rule '{rule}'; expected one of {', '.join(RULES)}")
    if k is not None and k < 1:
        raise SchnRayError(f"k = {k}; expected 1 or more ranks")
    values = np.full(len(query_codes), np.nan)
    shared = gallery_labels.astype(np.int32).tocsr()
    for query, code in enumerate(query_codes):
        labels = query_labels[[query]].toarray()[0].astype(np.int32)
        relevant = (shared @ labels) > 0
        if not relevant.any():
            continue
        distances = np.bitwise_count(code ^ gallery_codes).sum(axis=1, dtype=np.int64)
        values[query] = _of_ranking(relevant[_order(distances, rule)], k, denominator)
    return values


def _order(distances: NDArray[np.int64], rule: str) -> NDArray[np.int64]:
    if rule == "unstable":
        return np.argsort(distances)
    if rule == "stable":
        return np.argsort(distances, kind="stable")
    return len(distances) - 1 - np.argsort(distances[::-1], kind="stable")


def _of_ranking(relevant: NDArray[np.bool_], k: int | None, denominator: Denominator) -> float:
    top = relevant[:k]
    ranks = np.flatnonzero(top) + 1
    hits, total = len(ranks), int(relevant.sum())
    divisor = {"relevant": total, "min": min(total, len(top)), "hits": hits}[denominator]
    return float(np.sum(np.arange(1, hits + 1) / ranks)) / divisor if divisor else 0.0
