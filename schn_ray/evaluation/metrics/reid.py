"""Re-identification, the search for the same identity on another camera, by exact histograms.

The rules are those of Market-1501 (Zheng et al., ICCV 2015). A gallery row of the query's identity
and camera is left out of that query's ranking. Junk rows are left out of all rankings. Distractors
have an identity that no query has, so they are never relevant. The mean of
``metrics.average_precision`` is the mAP of re-identification, and that of
``first_hit.hit_rate_at`` its CMC, both exact under ties.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.metrics.average_precision import average_precision, mean_or_none
from schn_ray.evaluation.metrics.first_hit import hit_rate_at
from schn_ray.evaluation.metrics.histograms import Histograms, distance_histograms

JUNK, DISTRACTOR = -1, 0  # identities in the names of Market-1501's files


@dataclass(frozen=True, eq=False)
class Sightings:
    """Images, each of one identity and from one camera.

    Attributes:
        codes: packed [n, ceil(K / 8)].
        identities: [n] whole numbers; ``JUNK`` is ignored in a gallery.
        cameras: [n] whole numbers.

    Raises:
        SchnRayError: columns of different lengths.
    """

    codes: NDArray[np.uint8]
    identities: NDArray[np.int64]
    cameras: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = [len(column) for column in (self.codes, self.identities, self.cameras)]
        if len(set(lengths)) != 1:
            raise SchnRayError(
                f"{lengths[0]} codes, {lengths[1]} identities and {lengths[2]} cameras; expected "
                "as many of each"
            )


def sightings(codes: NDArray[np.uint8], labels: csr_array, cameras: NDArray[np.int32]) -> Sightings:
    """Return images [n] with their label as identity; those without a label are distractors.

    Args:
        codes: packed [n, ceil(K / 8)].
        labels: [n, C]; one label a row, or none.
        cameras: [n].

    Raises:
        SchnRayError: an image with two labels or more; see also ``Sightings``.
    """
    each = np.diff(labels.indptr)
    if (each > 1).any():
        raise SchnRayError(
            f"{int((each > 1).sum()):,} images have two labels or more; re-identification expects "
            "one, the identity"
        )
    identities = np.full(len(each), DISTRACTOR, np.int64)
    identities[each == 1] = DISTRACTOR + 1 + labels.indices
    return Sightings(codes, identities, cameras.astype(np.int64))


def reid_histograms(queries: Sightings, gallery: Sightings, bits: int) -> Histograms:
    """Count the rows that each query ranks: no junk, and none of its own identity and camera.

    Args:
        queries: Q of them.
        gallery: G of them.
        bits: bits of a code, K.

    Returns:
        Histograms [Q, K+1]; a row of the same identity on another camera is relevant. A query
        without such a row is undefined, left out of every mean and counted.

    Raises:
        SchnRayError: a query is junk or a distractor; see also ``distance_histograms``.
    """
    no_identity = np.isin(queries.identities, (JUNK, DISTRACTOR))
    if no_identity.any():
        raise SchnRayError(
            f"{int(no_identity.sum()):,} queries are junk or distractors (identity {JUNK} or "
            f"{DISTRACTOR}), the first is number {int(np.argmax(no_identity))}: expected queries "
            "with an identity"
        )
    ranked = gallery.identities != JUNK
    codes = gallery.codes[ranked]
    identity, same_identity = _as_labels(queries.identities, gallery.identities[ranked])
    sighting, same_sighting = _as_labels(
        np.stack([queries.identities, queries.cameras]),
        np.stack([gallery.identities, gallery.cameras])[:, ranked],
    )
    every_row = distance_histograms(queries.codes, identity, codes, same_identity, bits)
    own = distance_histograms(queries.codes, sighting, codes, same_sighting, bits).relevant
    return Histograms(every_row.all_rows - own, every_row.relevant - own)


@dataclass(frozen=True)
class ReidFigures:
    """Figures of re-identification: means over the queries with a relevant gallery row.

    Attributes:
        queries: all of them.
        undefined_queries: those whose identity is on no other camera; left out.
        map: mean average precision; None where no query is defined.
        cmc: rank k -> probability that the first k ranks hold the identity.
    """

    queries: int
    undefined_queries: int
    map: float | None
    cmc: dict[int, float | None]


def reid_figures(h: Histograms, ks: tuple[int, ...] = (1, 5, 10, 20)) -> ReidFigures:
    """Return mAP and CMC.

    Args:
        h: what ``reid_histograms`` returned.
        ks: ranks of the CMC.

    Raises:
        SchnRayError: a k < 1.
    """
    return ReidFigures(
        queries=len(h),
        undefined_queries=h.undefined,
        map=mean_or_none(average_precision(h)),
        cmc={k: mean_or_none(hit_rate_at(h, k)) for k in ks},
    )


def _as_labels(left: NDArray[np.int64], right: NDArray[np.int64]) -> tuple[csr_array, csr_array]:
    """Number the distinct columns of left [(2,) n] and right [(2,) m]; return one-hot rows."""
    both = np.concatenate([left, right], axis=-1)
    _, number = np.unique(both, axis=-1, return_inverse=True)
    number = number.reshape(-1)
    classes = int(number.max(initial=-1)) + 1
    rows = [number[: left.shape[-1]], number[left.shape[-1] :]]
    first, second = (
        csr_array(
            (np.ones(len(part), np.uint8), part, np.arange(len(part) + 1)),
            shape=(len(part), classes),
        )
        for part in rows
    )
    return first, second
