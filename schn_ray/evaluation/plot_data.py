"""The numbers behind a report's pictures: what the codes look like, and what they mix up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from schn_ray.core.bits import unpack
from schn_ray.evaluation.metrics.average_precision import mean_or_none, precision_at, recall_at
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.metrics.histograms import GradedHistograms, Histograms

_NEIGHBOURS = 10
_CONFUSED_QUERIES = 500
_CONFUSED_CLASSES = 30
_CORRELATED_BITS = 128
_CORRELATED_CELLS = 10_000_000  # of (row, bit); 80 MB as numbers
_MAPPED_ROWS, _MAPPED_CODES = 800, 8
_PERPLEXITY = 30.0


def diagrams(
    queries: LabelledCodes, gallery: LabelledCodes, h: GradedHistograms, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Return everything that is drawn from an evaluation, as plain values for JSON."""
    return {
        "at": at_ranks(h.plain),
        "distances": distances(h.plain),
        "bits": bit_statistics(gallery.codes, h.plain.bits),
        "confusion": confusion(queries, gallery, h.plain, classes),
        "map": code_map(gallery, h.plain.bits, classes),
    }


def at_ranks(h: Histograms) -> list[dict[str, float | None]]:
    """Return precision and recall of the first k, for k as 1, 2, 5, 10 ... and the gallery."""
    rows = int(h.gallery.max(initial=0))
    ks = [step * 10**power for power in range(10) for step in (1, 2, 5) if step * 10**power < rows]
    return [
        {
            "k": k,
            "precision": mean_or_none(precision_at(h, k)),
            "recall": mean_or_none(recall_at(h, k)),
        }
        for k in [*ks, rows]
        if k
    ]


def distances(h: Histograms) -> dict[str, list[int]]:
    """Count the pairs of query and gallery row at each distance 0..K, similar and dissimilar."""
    similar = h.relevant.sum(axis=0)
    return {
        "similar": similar.tolist(),
        "dissimilar": (h.all_rows.sum(axis=0) - similar).tolist(),
    }


def bit_statistics(codes: NDArray[np.uint8], bits: int) -> dict[str, Any]:
    """Return each bit's share of ones [K], and the correlation of any two [K, K].

    A bit that is the same everywhere has no correlation: null. Of more than 128 bits, the first.
    Of many rows, every so many-th.
    """
    step = -(-len(codes) * bits // _CORRELATED_CELLS)
    signs = unpack(np.ascontiguousarray(codes[:: max(1, step)]), bits).astype(np.float64)
    some = signs[:, :_CORRELATED_BITS]
    deviation = some.std(axis=0)
    centred = some - some.mean(axis=0)
    product = np.outer(deviation, deviation)
    covariance = centred.T @ centred / max(len(some), 1)
    correlation = np.divide(
        covariance, product, out=np.full(product.shape, np.nan), where=product > 0
    )
    return {
        "balance": ((signs.mean(axis=0) + 1) / 2).tolist(),
        "correlation": [[_known(value) for value in row] for row in correlation.tolist()],
    }


def confusion(
    queries: LabelledCodes, gallery: LabelledCodes, h: Histograms, classes: tuple[str, ...]
) -> dict[str, Any]:
    """Say of which classes the ten nearest images are, by class of the query.

    Exact under ties: a row at the last distance counts by its chance to be among the ten. A query
    counts for each of its classes, an image with several labels is shared among them. At most 500
    queries and the 30 most frequent classes.

    Returns:
        ``classes``; ``share``: for each class, the share of each class among the nearest, and
        what is of none of these classes is missing from 1; ``neighbours``: ten.
    """
    frequent = _frequent(queries, len(classes))
    asked = np.unique(np.linspace(0, len(queries) - 1, _CONFUSED_QUERIES).round().astype(np.int64))
    shares = _shared_among_labels(gallery)[:, frequent]
    total, counted = np.zeros((len(frequent), len(frequent))), np.zeros(len(frequent))
    for place in asked.tolist():
        chance = _chances(h.all_rows[place], min(_NEIGHBOURS, len(gallery)))
        distance = _distances(queries.codes[place], gallery.codes)
        near = np.flatnonzero(distance < len(chance))
        weight = chance[distance[near]]
        mine = np.isin(frequent, queries.labels[[place]].indices)
        total[mine] += (shares[near].T @ weight) / weight.sum()
        counted[mine] += 1
    share = total / np.maximum(counted, 1)[:, None]
    return {
        "classes": [classes[c] for c in frequent],
        "share": share.tolist(),
        "neighbours": _NEIGHBOURS,
    }


def code_map(gallery: LabelledCodes, bits: int, classes: tuple[str, ...]) -> dict[str, Any] | None:
    """Place the codes of up to 800 gallery rows in a plane by t-SNE; None of fewer than 8 codes.

    A point is a code and a class, ``rows`` how many of the rows have both. An image with several
    labels has the rarest of them.
    """
    labelled = np.flatnonzero(np.diff(gallery.labels.indptr))
    chosen = np.linspace(0, len(labelled) - 1, min(_MAPPED_ROWS, len(labelled))).round()
    some = gallery[labelled[chosen.astype(np.int64)]]
    codes, code = np.unique(some.codes, axis=0, return_inverse=True)
    if len(codes) < _MAPPED_CODES:
        return None
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(codes) - 1) / 3)
    mapper = TSNE(perplexity=perplexity, init="pca", random_state=0)
    plane = mapper.fit_transform(unpack(codes, bits)).astype(np.float64).round(3)
    often = np.bincount(gallery.labels.indices, minlength=len(classes))
    rarest = [min(some.labels[[row]].indices, key=lambda c: often[c]) for row in range(len(some))]
    points, rows = np.unique([code.reshape(-1), rarest], axis=1, return_counts=True)
    return {
        "x": plane[points[0], 0].tolist(),
        "y": plane[points[0], 1].tolist(),
        "class": [classes[c] for c in points[1]],
        "rows": rows.tolist(),
    }


def _shared_among_labels(gallery: LabelledCodes) -> csc_array:
    """Return each row's weight for each of its classes [G, C]; a labelled row's come to 1."""
    labels = gallery.labels.astype(np.float64)
    per_row = np.diff(labels.indptr)
    labels.data = 1 / np.repeat(per_row, per_row)
    return csc_array(labels)


def _chances(counts: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return the chance to be among the first k of a row at each distance, up to the last."""
    ends = np.cumsum(counts)
    places = np.minimum(ends, k) - np.minimum(ends - counts, k)
    last = int(np.argmax(ends >= k))
    chance = np.divide(places, counts, out=np.zeros(len(counts)), where=counts > 0)
    return chance[: last + 1]


def _distances(code: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.asarray(np.bitwise_count(code ^ codes).sum(axis=1, dtype=np.int64))


def _frequent(queries: LabelledCodes, classes: int) -> NDArray[np.int64]:
    often = np.bincount(queries.labels.indices, minlength=classes)
    top = np.argsort(-often, kind="stable")[:_CONFUSED_CLASSES]
    return np.sort(top[often[top] > 0])


def _known(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
