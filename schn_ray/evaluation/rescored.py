"""Measure what a rescored search brings: rows of its own beside the figures of Hamming distances.

``query`` is the order of ``search --rescore query``: by q . b, the query's relaxed output against
the gallery's codes. Rows of one code have one score, and so have codes that lose equal weights (see
``retrieval.index.scores``). ``relaxed`` and ``features`` are cosines with the int8 vectors that an
index has (``retrieval.index.vectors``), of all rows or of the nearest by distance; only rows with
equal vectors tie. Each distinct score is a level, as a Hamming distance is elsewhere, and average
precision is the expectation over all orders inside the levels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.storage.files import as_location
from schn_ray.data.labels import label_sets, share_a_label
from schn_ray.evaluation.config import ControlsConfig
from schn_ray.evaluation.controls import drawn_sides, ranked_by
from schn_ray.evaluation.features import RowFeatures, loaded
from schn_ray.evaluation.figures import Rescored
from schn_ray.evaluation.metrics.average_precision import average_precision
from schn_ray.evaluation.metrics.bootstrap import interval, paired_difference
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.metrics.histograms import Histograms, distance_histograms
from schn_ray.models.base_hasher import BaseHasher
from schn_ray.retrieval.index.scores import weights_of
from schn_ray.retrieval.index.vectors import as_int8, as_queries, query_cosines

Values = NDArray[np.float64]  # one a query
_QUERIES_AT_ONCE = 128


def measure_rescored(
    rescorings: Sequence[str],
    run: Path | str,
    features: RowFeatures,
    queries: LabelledCodes,
    gallery: LabelledCodes,
    config: ControlsConfig,
    candidates: int | None = None,
    bits: int | None = None,
) -> tuple[Rescored, ...]:
    """Measure each rescoring, and plain distances on the very same rows.

    Args:
        rescorings: names, as ``search --rescore`` takes them.
        run: a finished run.
        features: of the rows of the store.
        queries: Q of them, with the model's codes; with labels.
        gallery: G rows, with the codes that are searched.
        config: how many rows are drawn at random, and the seed: those of the controls.
        candidates: rows nearest by distance that vectors score; None: all.
        bits: of nested codes that are cut; None: all.
    """
    if not rescorings:
        return ()
    queries, gallery = drawn_sides(queries, gallery, config)[:2]
    sides = (queries.codes, queries.labels), (gallery.codes, gallery.labels)
    hasher = loaded(as_location(run))
    hasher = hasher if bits is None else hasher.first(bits)
    plain = average_precision(distance_histograms(*sides[0], *sides[1], hasher.bits))
    return tuple(
        _measured(name, hasher.of_features(), features, queries, gallery, candidates, plain)
        for name in rescorings
    )


def _measured(
    name: str,
    head: BaseHasher,
    features: RowFeatures,
    queries: LabelledCodes,
    gallery: LabelledCodes,
    candidates: int | None,
    plain: Values,
) -> Rescored:
    F, scored = features.of(queries.rows), None
    if name == "query":
        values = query_ap(head.relaxed_array(F), queries, gallery)
    else:
        G = features.of(gallery.rows)
        if name == "relaxed":
            F, G = (head.relaxed_array(X) for X in (F, G))
            G = G.astype(np.float16).astype(np.float32)  # as codes have them
        values, counts = vector_ap(F, queries, as_int8(G), gallery, candidates)
        scored = None if candidates is None else float(counts.mean())
    return Rescored(
        by=name,
        queries=len(queries),
        gallery=len(gallery),
        candidates=scored,
        map=interval(values),
        plain=interval(plain),
        gain=paired_difference(plain, values),
    )


def query_ap(
    relaxed: NDArray[np.floating], queries: LabelledCodes, gallery: LabelledCodes
) -> Values:
    """Return average precision [Q] of the order by q . b, exact under ties.

    Args:
        relaxed: of the queries [Q, K].
        queries: labels of the queries; their codes are not used.
        gallery: codes and labels of the rows that are ranked.
    """
    rankings = query_rankings(relaxed, queries, gallery)
    return np.array([average_precision(ranking)[0] for ranking in rankings])


def vector_ap(
    X: NDArray[np.floating],
    queries: LabelledCodes,
    vectors: NDArray[np.int8],
    gallery: LabelledCodes,
    candidates: int | None = None,
) -> tuple[Values, NDArray[np.int64]]:
    """Return average precision of the order by cosine, exact under ties, and the rows scored.

    Args:
        X: see ``vector_rankings``.
        queries: see ``vector_rankings``.
        vectors: see ``vector_rankings``.
        gallery: see ``vector_rankings``.
        candidates: see ``vector_rankings``.

    Returns:
        Average precision [Q], and how many rows were scored [Q].
    """
    rankings = vector_rankings(X, queries, vectors, gallery, candidates)
    pairs = [(average_precision(ranking)[0], count) for ranking, count in rankings]
    values, counts = zip(*pairs, strict=True)
    return np.array(values), np.array(counts, np.int64)


def query_rankings(
    relaxed: NDArray[np.floating], queries: LabelledCodes, gallery: LabelledCodes
) -> Iterator[Histograms]:
    """Yield the ranking of each query by q . b, equal scores as one level.

    Args:
        relaxed: of the queries [Q, K].
        queries: labels of the queries; their codes are not used.
        gallery: codes and labels of the rows that are ranked.
    """
    codes, code_of_row = np.unique(gallery.codes, axis=0, return_inverse=True)
    code_of_row, weights = code_of_row.reshape(-1), weights_of(relaxed)
    for query, relevant in enumerate(_relevant(queries, gallery)):
        losses = weights[np.array([query])].losses(codes[None])[0]
        yield ranked_by(-losses[code_of_row], relevant)


def vector_rankings(
    X: NDArray[np.floating],
    queries: LabelledCodes,
    vectors: NDArray[np.int8],
    gallery: LabelledCodes,
    candidates: int | None = None,
) -> Iterator[tuple[Histograms, int]]:
    """Yield the ranking of each query by cosine, and how many rows were scored.

    Args:
        X: vectors of the queries [Q, d].
        queries: their codes and labels.
        vectors: of the gallery rows [G, d].
        gallery: their codes and labels.
        candidates: rows nearest by distance that are scored, all ties of the last included; the
            others follow by distance. None: all rows are scored.
    """
    relevant = _relevant(queries, gallery)
    for start in range(0, len(X), _QUERIES_AT_ONCE):
        cosines = query_cosines(as_queries(X[start : start + _QUERIES_AT_ONCE]), vectors)
        for code, scores in zip(queries.codes[start:], cosines, strict=False):
            if candidates is None or candidates >= len(vectors):
                yield ranked_by(scores, next(relevant)), len(vectors)
                continue
            distances = np.bitwise_count(gallery.codes ^ code).sum(axis=1, dtype=np.int64)
            near = distances <= np.partition(distances, candidates - 1)[candidates - 1]
            # the others lie below the least cosine, in the order of distances
            yield ranked_by(np.where(near, scores, -2 - distances), next(relevant)), int(near.sum())


def _relevant(queries: LabelledCodes, gallery: LabelledCodes) -> Iterator[NDArray[np.bool_]]:
    """Yield which gallery rows share a label with each query: [G]."""
    query_sets, gallery_sets = label_sets(queries.labels), label_sets(gallery.labels)
    shared = share_a_label(query_sets.sets, gallery_sets.sets)
    for set_number in query_sets.set_of_row:
        yield shared[set_number][gallery_sets.set_of_row]
