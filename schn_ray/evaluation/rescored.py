"""Measure what a rescored search brings: rows of its own beside the figures of Hamming distances.

``query`` is the order of ``search --rescore query``: by q . b, the query's relaxed output against
the gallery's codes. Rows of one code have one score, and so have codes that lose equal weights (see
``retrieval.index.scores``). Each distinct score is a level, as a Hamming distance is elsewhere, and
average precision is the expectation over all orders inside the levels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.storage.files import as_location
from schn_ray.data.labels import label_sets, share_a_label
from schn_ray.data.shards.map_shards import MapShards
from schn_ray.data.store.reader import Store
from schn_ray.evaluation.config import ControlsConfig
from schn_ray.evaluation.controls import drawn_sides, ranked_by
from schn_ray.evaluation.features import GivenFeatures, features_of, loaded
from schn_ray.evaluation.figures import Rescored
from schn_ray.evaluation.metrics.average_precision import average_precision
from schn_ray.evaluation.metrics.bootstrap import interval, paired_difference
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.evaluation.metrics.histograms import distance_histograms
from schn_ray.retrieval.index.scores import weights_of

Values = NDArray[np.float64]  # one a query


def measure_rescored(
    rescorings: Sequence[str],
    run: Path | str,
    store: Store,
    queries: LabelledCodes,
    gallery: LabelledCodes,
    config: ControlsConfig,
    map_shards: MapShards,
    given: GivenFeatures | None = None,
) -> tuple[Rescored, ...]:
    """Measure each rescoring, and plain distances on the very same rows.

    Args:
        rescorings: names, as ``search --rescore`` takes them.
        run: a finished run.
        store: has the images, or the vectors; with labels.
        queries: Q of them, with the model's codes.
        gallery: G rows, with the codes that are searched.
        config: how many rows are drawn at random, and the seed: those of the controls.
        map_shards: computes features, on whatever machines.
        given: features of the store's images; None: the run's network computes them.
    """
    if not rescorings:
        return ()
    queries, gallery = drawn_sides(queries, gallery, config)[:2]
    sides = (queries.codes, queries.labels), (gallery.codes, gallery.labels)
    hasher = loaded(as_location(run))
    plain = average_precision(distance_histograms(*sides[0], *sides[1], hasher.bits))
    F = features_of(run, store, queries.rows, map_shards, given)
    rescored = query_ap(hasher.of_features().relaxed_array(F), queries, gallery)
    return tuple(
        Rescored(
            by=name,
            queries=len(queries),
            gallery=len(gallery),
            map=interval(rescored),
            plain=interval(plain),
            gain=paired_difference(plain, rescored),
        )
        for name in rescorings
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
    codes, code_of_row = np.unique(gallery.codes, axis=0, return_inverse=True)
    code_of_row = code_of_row.reshape(-1)
    query_sets, gallery_sets = label_sets(queries.labels), label_sets(gallery.labels)
    shared = share_a_label(query_sets.sets, gallery_sets.sets)
    weights, values = weights_of(relaxed), np.full(len(relaxed), np.nan)
    for query in range(len(relaxed)):
        losses = weights[np.array([query])].losses(codes[None])[0]
        relevant = shared[query_sets.set_of_row[query]][gallery_sets.set_of_row]
        values[query] = average_precision(ranked_by(-losses[code_of_row], relevant))[0]
    return values
