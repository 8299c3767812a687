"""The numbers behind a report's diagrams: what the codes look like, and which classes mix."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.sparse import csc_array

from schn_ray.core.bits import unpack
from schn_ray.evaluation.figures import Record, Text
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


class RankPoint(Record):
    """Mean precision and recall of the first k ranks; None where no query is defined."""

    k: int
    precision: float | None
    recall: float | None


class PairDistances(Record):
    """Pairs of a query and a gallery row at each Hamming distance, 0 to K bits.

    Attributes:
        similar: pairs that share a label.
        dissimilar: pairs that share none.
    """

    similar: tuple[int, ...]
    dissimilar: tuple[int, ...]


class BitStatistics(Record):
    """How the bits of the gallery's codes are distributed.

    Attributes:
        balance: share of ones of each bit [K].
        correlation: of any two of the first 128 bits; None where a bit is the same everywhere.
    """

    balance: tuple[float, ...]
    correlation: tuple[tuple[float | None, ...], ...]


class Confusion(Record):
    """Of which classes the nearest images are, by class of the query.

    Attributes:
        classes: the most frequent ones of the queries, 30 at most.
        share: [class of the query][class of the image]; what is missing from 1 in a row is of none
            of these classes.
        neighbours: how many nearest images were counted.
    """

    classes: tuple[Text, ...]
    share: tuple[tuple[float, ...], ...]
    neighbours: int


class CodeMap(Record):
    """Codes of gallery rows in a plane; a point is a code and a class.

    Attributes:
        x: of each point.
        y: of each point.
        classes: the class of each point.
        rows: how many gallery rows have the code and the class.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    classes: tuple[Text, ...] = Field(validation_alias="class", serialization_alias="class")
    rows: tuple[int, ...]


class PlotData(Record):
    """What ``diagrams.json`` holds: the numbers of every diagram of an evaluation.

    Attributes:
        at: precision and recall by rank.
        distances: of similar and dissimilar pairs.
        bits: balance and correlation of bits.
        confusion: which classes mix.
        map: codes in a plane; None where there are too few distinct codes.
    """

    at: tuple[RankPoint, ...] = ()
    distances: PairDistances | None = None
    bits: BitStatistics | None = None
    confusion: Confusion | None = None
    map: CodeMap | None = None


def plot_data(
    queries: LabelledCodes, gallery: LabelledCodes, h: GradedHistograms, classes: tuple[str, ...]
) -> PlotData:
    """Compute the numbers of every diagram of an evaluation.

    Args:
        queries: Q of them.
        gallery: G rows.
        h: histograms of the queries over the gallery.
        classes: names of all C classes.
    """
    return PlotData(
        at=at_ranks(h.plain),
        distances=pair_distances(h.plain),
        bits=bit_statistics(gallery.codes, h.plain.bits),
        confusion=confusion(queries, gallery, h.plain, classes),
        map=code_map(gallery, h.plain.bits, classes),
    )


def at_ranks(h: Histograms) -> tuple[RankPoint, ...]:
    """Return precision and recall of the first k ranks: k = 1, 2, 5, 10, ... and the gallery.

    Args:
        h: histograms of all queries.
    """
    rows = int(h.gallery.max(initial=0))
    ks = [step * 10**power for power in range(10) for step in (1, 2, 5) if step * 10**power < rows]
    return tuple(
        RankPoint(
            k=k,
            precision=mean_or_none(precision_at(h, k)),
            recall=mean_or_none(recall_at(h, k)),
        )
        for k in [*ks, rows]
        if k
    )


def pair_distances(h: Histograms) -> PairDistances:
    """Count the pairs of a query and a gallery row at each distance.

    Args:
        h: histograms of all queries.
    """
    similar = h.relevant.sum(axis=0)
    dissimilar = h.all_rows.sum(axis=0) - similar
    return PairDistances(similar=similar.tolist(), dissimilar=dissimilar.tolist())


def bit_statistics(codes: NDArray[np.uint8], bits: int) -> BitStatistics:
    """Return each bit's share of ones, and the correlation of any two.

    Of more than 10,000,000 cells (row, bit), every n-th row is used.

    Args:
        codes: packed [n, ceil(K / 8)].
        bits: bits of a code, K.
    """
    step = -(-len(codes) * bits // _CORRELATED_CELLS)
    signs = unpack(np.ascontiguousarray(codes[:: max(1, step)]), bits).astype(np.float64)
    columns = signs[:, :_CORRELATED_BITS]
    deviation = columns.std(axis=0)
    centred = columns - columns.mean(axis=0)
    product = np.outer(deviation, deviation)
    covariance = centred.T @ centred / max(len(columns), 1)
    correlation = np.divide(
        covariance, product, out=np.full(product.shape, np.nan), where=product > 0
    )
    return BitStatistics(
        balance=((signs.mean(axis=0) + 1) / 2).tolist(),
        correlation=tuple(tuple(map(_defined, row)) for row in correlation.tolist()),
    )


def confusion(
    queries: LabelledCodes, gallery: LabelledCodes, h: Histograms, classes: tuple[str, ...]
) -> Confusion:
    """Count of which classes the ten nearest images are, by class of the query.

    Exact under ties: a row at the last distance counts by its probability to be among the ten. A
    query counts for each of its classes; an image with two labels counts half for each. At most
    500 queries and the 30 most frequent classes.

    Args:
        queries: Q of them.
        gallery: G rows.
        h: histograms of the queries over the gallery.
        classes: names of all C classes.
    """
    frequent = _frequent(queries, len(classes))
    sample = np.unique(np.linspace(0, len(queries) - 1, _CONFUSED_QUERIES).round().astype(np.int64))
    shares = _shared_among_labels(gallery)[:, frequent]
    total, counted = np.zeros((len(frequent), len(frequent))), np.zeros(len(frequent))
    for query in sample.tolist():
        chance = _chances(h.all_rows[query], min(_NEIGHBOURS, len(gallery)))
        distance = _distances(queries.codes[query], gallery.codes)
        near = np.flatnonzero(distance < len(chance))
        weight = chance[distance[near]]
        mine = np.isin(frequent, queries.labels[[query]].indices)
        total[mine] += (shares[near].T @ weight) / weight.sum()
        counted[mine] += 1
    share = total / np.maximum(counted, 1)[:, None]
    return Confusion(
        classes=tuple(classes[c] for c in frequent),
        share=share.tolist(),
        neighbours=_NEIGHBOURS,
    )


def code_map(gallery: LabelledCodes, bits: int, classes: tuple[str, ...]) -> CodeMap | None:
    """Map the codes of up to 800 gallery rows to a plane by t-SNE (van der Maaten, Hinton 2008).

    An image with two labels or more has the rarest of them.

    Args:
        gallery: G rows.
        bits: bits of a code, K.
        classes: names of all C classes.

    Returns:
        None where there are fewer than 8 distinct codes, or scikit-learn is not installed.
    """
    labelled = np.flatnonzero(np.diff(gallery.labels.indptr))
    chosen = np.linspace(0, len(labelled) - 1, min(_MAPPED_ROWS, len(labelled))).round()
    sample = gallery[labelled[chosen.astype(np.int64)]]
    codes, code = np.unique(sample.codes, axis=0, return_inverse=True)
    if len(codes) < _MAPPED_CODES:
        return None
    if importlib.util.find_spec("sklearn") is None:  # who measures codes need not draw them
        print(
            "schn-ray: without a map of the codes: pip install 'schn-ray[report]'", file=sys.stderr
        )
        return None
    from sklearn.manifold import TSNE

    perplexity = min(_PERPLEXITY, (len(codes) - 1) / 3)
    mapper = TSNE(perplexity=perplexity, init="pca", random_state=0)
    plane = mapper.fit_transform(unpack(codes, bits)).astype(np.float64).round(3)
    often = np.bincount(gallery.labels.indices, minlength=len(classes))
    rarest = [
        min(sample.labels[[row]].indices, key=lambda c: often[c]) for row in range(len(sample))
    ]
    points, rows = np.unique([code.reshape(-1), rarest], axis=1, return_counts=True)
    return CodeMap(
        x=plane[points[0], 0].tolist(),
        y=plane[points[0], 1].tolist(),
        classes=tuple(classes[c] for c in points[1]),
        rows=rows.tolist(),
    )


def _shared_among_labels(gallery: LabelledCodes) -> csc_array:
    """Return each row's weight for each of its classes [G, C]; those of a labelled row sum to 1."""
    labels = gallery.labels.astype(np.float64)
    per_row = np.diff(labels.indptr)
    labels.data = 1 / np.repeat(per_row, per_row)
    return csc_array(labels)


def _chances(counts: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """Return a row's probability to be among the first k, by its distance up to that of rank k."""
    ends = np.cumsum(counts)
    taken = np.minimum(ends, k) - np.minimum(ends - counts, k)
    last = int(np.argmax(ends >= k))
    chance = np.divide(taken, counts, out=np.zeros(len(counts)), where=counts > 0)
    return chance[: last + 1]


def _distances(code: NDArray[np.uint8], codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.asarray(np.bitwise_count(code ^ codes).sum(axis=1, dtype=np.int64))


def _frequent(queries: LabelledCodes, classes: int) -> NDArray[np.int64]:
    often = np.bincount(queries.labels.indices, minlength=classes)
    top = np.argsort(-often, kind="stable")[:_CONFUSED_CLASSES]
    return np.sort(top[often[top] > 0])


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else round(value, 4)
