"""Queries to look at: those that do best, worst and in between, with their nearest images."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.data.store.reader import Store
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes

BEST, WORST, BETWEEN = "best", "worst", "in between"
_NEIGHBOURS = 10
_LOOKED_THROUGH = 500  # equals among which other classes are looked for


def examples(
    store: Store,
    queries: LabelledCodes,
    gallery: LabelledCodes,
    ap: NDArray[np.float64],
    count: int,
) -> list[dict[str, Any]]:
    """Describe so many queries: a third the worst, a third the best, the rest over the whole row.

    Among equally good ones, as many classes as there are; images at one distance from a query are
    in random order, always the same. ``ap``: average precision [Q], NaN where undefined,
    and those are not shown as best or worst.
    """
    chosen = _chosen(queries, ap, count)
    return [
        {"kind": kind, "average_precision": _known(ap[place])}
        | _example(store, queries, place, gallery)
        for place, kind in chosen.items()
    ]


def _chosen(queries: LabelledCodes, ap: NDArray[np.float64], count: int) -> dict[int, str]:
    """Return place -> kind."""
    defined = np.flatnonzero(~np.isnan(ap))
    third = min(count, len(defined)) // 3
    upwards = defined[np.argsort(ap[defined], kind="stable")]
    chosen = dict.fromkeys(_of_many_classes(queries, ap, upwards, third), WORST)
    downwards = defined[np.argsort(-ap[defined], kind="stable")]
    left = [place for place in downwards.tolist() if place not in chosen]
    chosen |= dict.fromkeys(_of_many_classes(queries, ap, left, third), BEST)
    left = [place for place in range(len(queries)) if place not in chosen]
    spread = np.linspace(0, len(left) - 1, min(len(left), count - len(chosen)))
    return chosen | dict.fromkeys((left[int(i)] for i in spread.round()), BETWEEN)


def _of_many_classes(
    queries: LabelledCodes, ap: NDArray[np.float64], ordered: Iterable[int], count: int
) -> list[int]:
    """Take the first so many, but of equal ones rather those of classes that are not there yet."""
    chosen: list[int] = []
    left = [int(place) for place in ordered]
    while left and len(chosen) < count:
        equal = [place for place in left[:_LOOKED_THROUGH] if ap[place] == ap[left[0]]]
        there = {c for place in chosen for c in queries.labels[[place]].indices.tolist()}
        fresh = [p for p in equal if not there & set(queries.labels[[p]].indices.tolist())]
        chosen.append((fresh or equal)[0])
        left.remove(chosen[-1])
    return chosen


def _example(
    store: Store, queries: LabelledCodes, query: int, gallery: LabelledCodes
) -> dict[str, Any]:
    distances = np.bitwise_count(queries.codes[query] ^ gallery.codes).sum(axis=1, dtype=np.int64)
    # hundreds share a distance: the first rows of the store would show its order, not the ranking
    drawn = np.random.default_rng([0, query]).random(len(distances))
    nearest = np.lexsort((drawn, distances))[:_NEIGHBOURS]
    relevant = (gallery.labels[nearest] @ queries.labels[[query]].T).toarray()[:, 0] > 0
    neighbours = [
        _described(store, int(gallery.rows[place]))
        | {"distance": int(distances[place]), "relevant": bool(right)}
        for place, right in zip(nearest, relevant, strict=True)
    ]
    return {"query": _described(store, int(queries.rows[query])), "neighbours": neighbours}


def _described(store: Store, row: int) -> dict[str, Any]:
    labels = [store.classes[label] for label in store.labels[[row]].indices]
    return {"id": store.ids[row].as_py(), "uri": store.uri(row), "labels": labels}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
