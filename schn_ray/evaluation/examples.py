"""Example queries of a report: the best, the worst and others, with their nearest images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from schn_ray.data.store.reader import Store
from schn_ray.evaluation.figures import Record, Text
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes

BEST, WORST, BETWEEN = "best", "worst", "in between"
_NEIGHBOURS = 10
_CANDIDATES = 500  # of equally good queries, how many are searched for a new class


class LabelledImage(Record):
    """An image of the store.

    Attributes:
        id: of its row.
        uri: where its bytes are.
        labels: names of its classes.
    """

    id: Text
    uri: Text
    labels: tuple[Text, ...]


class RankedImage(LabelledImage):
    """A gallery image near a query.

    Attributes:
        distance: Hamming distance to the query, in bits.
        relevant: whether it shares a label with the query; None in a store without labels.
    """

    distance: int
    relevant: bool | None


class ExampleQuery(Record):
    """A query and its nearest gallery images: an entry of ``examples.json``.

    Attributes:
        kind: ``best``, ``worst`` or ``in between``.
        average_precision: of the query; None where nothing is relevant.
        query: its image.
        neighbours: ten at most, nearest first.
    """

    kind: Text = ""
    average_precision: float | None = None
    query: LabelledImage
    neighbours: tuple[RankedImage, ...]


def examples(
    store: Store,
    queries: LabelledCodes,
    gallery: LabelledCodes,
    ap: NDArray[np.float64],
    count: int,
) -> list[ExampleQuery]:
    """Choose queries to show: a third the worst, a third the best, the rest spread over all.

    The rest are the same for every model that is measured on the same queries, but for those that
    are among its best or worst.

    Of equally good queries, those of classes not yet shown come first. Images at one distance from
    a query are in random order, the same at every call.

    Args:
        store: has the images.
        queries: Q of them.
        gallery: G rows.
        ap: average precision [Q]; NaN where undefined, and never shown as best or worst.
        count: queries to show, at most.
    """
    return [
        ExampleQuery(
            kind=kind,
            average_precision=None if np.isnan(ap[position]) else float(ap[position]),
            query=_image(store, int(queries.rows[position])),
            neighbours=_neighbours(store, queries, position, gallery),
        )
        for position, kind in _chosen(queries, ap, count).items()
    ]


def _chosen(queries: LabelledCodes, ap: NDArray[np.float64], count: int) -> dict[int, str]:
    """Return position of a query -> kind."""
    defined = np.flatnonzero(~np.isnan(ap))
    third = min(count, len(defined)) // 3
    upwards = defined[np.argsort(ap[defined], kind="stable")]
    chosen = dict.fromkeys(_of_many_classes(queries, ap, upwards, third), WORST)
    downwards = defined[np.argsort(-ap[defined], kind="stable")]
    left = [position for position in downwards.tolist() if position not in chosen]
    chosen |= dict.fromkeys(_of_many_classes(queries, ap, left, third), BEST)
    # spread over all queries, and not over those left: so they are the same ones for another model
    others = min(len(queries), count) - len(chosen)
    for position in ((np.arange(others) + 0.5) * len(queries) / others).tolist():
        free = (p for p in range(len(queries)) if p not in chosen)
        chosen[min(free, key=lambda p: abs(p - position))] = BETWEEN
    return chosen


def _of_many_classes(
    queries: LabelledCodes, ap: NDArray[np.float64], ordered: Iterable[int], count: int
) -> list[int]:
    """Take the first ``count`` queries; among equally good ones prefer classes not yet taken."""
    chosen: list[int] = []
    left = [int(position) for position in ordered]
    while left and len(chosen) < count:
        equal = [position for position in left[:_CANDIDATES] if ap[position] == ap[left[0]]]
        shown = {c for position in chosen for c in queries.labels[[position]].indices.tolist()}
        fresh = [p for p in equal if not shown & set(queries.labels[[p]].indices.tolist())]
        chosen.append((fresh or equal)[0])
        left.remove(chosen[-1])
    return chosen


def _neighbours(
    store: Store, queries: LabelledCodes, query: int, gallery: LabelledCodes
) -> tuple[RankedImage, ...]:
    distances = np.bitwise_count(queries.codes[query] ^ gallery.codes).sum(axis=1, dtype=np.int64)
    # hundreds share a distance: the first rows of the store would show its order, not the ranking
    drawn = np.random.default_rng([0, query]).random(len(distances))
    nearest = np.lexsort((drawn, distances))[:_NEIGHBOURS]
    relevant = (gallery.labels[nearest] @ queries.labels[[query]].T).toarray()[:, 0] > 0
    return tuple(
        RankedImage(
            **dict(_image(store, int(gallery.rows[position]))),
            distance=int(distances[position]),
            relevant=bool(right) if store.classes else None,
        )
        for position, right in zip(nearest, relevant, strict=True)
    )


def _image(store: Store, row: int) -> LabelledImage:
    labels = tuple(store.classes[label] for label in store.labels[[row]].indices)
    return LabelledImage(id=store.ids[row].as_py(), uri=store.uri(row), labels=labels)
