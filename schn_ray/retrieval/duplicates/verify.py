"""Groups of verified copies among candidates: pairs with near codes, whose images are copies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.core.progress import Progress
from schn_ray.retrieval.duplicates.components import Components
from schn_ray.retrieval.duplicates.evidence import DIFFERENT, Evidence
from schn_ray.retrieval.duplicates.nearest import near_pairs
from schn_ray.retrieval.index.postings import group_equal
from schn_ray.retrieval.index.scan import Bytes

_PAIRS_AT_ONCE = 1 << 16
_MOST_PAIRS = 10**11  # of one code; to compare them takes more than a day

Positions = NDArray[np.int64]


def verified_labels(codes: Bytes, bits: int, radius: int, evidence: Evidence) -> NDArray[np.uint32]:
    """Connect candidates by chains of pairs with near codes whose images are copies.

    Images of the same bytes are connected, whatever their codes.

    Args:
        codes: uint8 [n, w], packed, of the candidates.
        bits: of a code.
        radius: bits in which the codes of a pair may differ.
        evidence: of the candidates.

    Returns:
        uint32 [n], equal for candidates of one group.

    Raises:
        SchnRayError: so many images share codes that their pairs cannot be compared.
    """
    components = Components(len(codes))
    representatives = evidence.representatives()
    components.connect(np.arange(len(codes)), representatives)
    if evidence.vectors is not None:
        distinct = np.flatnonzero(representatives == np.arange(len(codes)))
        with Progress("comparing", unit="pairs") as progress:
            for first, second, _ in row_pairs(codes[distinct], codes[distinct], bits, radius):
                first, second = distinct[first], distinct[second]
                apart = first < second
                apart[apart] = components.roots(first[apart]) != components.roots(second[apart])
                first, second = first[apart], second[apart]
                ways, _ = evidence.compare(first, second)
                copies = ways != DIFFERENT
                components.connect(first[copies], second[copies])
                progress.advance(len(apart))
    return components.roots(np.arange(len(codes)))


def row_pairs(
    codes: Bytes, others: Bytes, bits: int, radius: int
) -> Iterator[tuple[Positions, Positions, NDArray[np.int64]]]:
    """Yield all pairs of rows within a radius, each once, a part at a time.

    Args:
        codes: uint8 [n, w], packed, equal ones or not.
        others: uint8 [m, w].
        bits: of a code.
        radius: in bits.

    Yields:
        Positions of codes, positions of others, and distances, all int64 [p].

    Raises:
        SchnRayError: more pairs of equal codes than can be compared.
    """
    (rows, starts, counts), (other_rows, other_starts, other_counts) = map(_lists, (codes, others))
    _refuse_too_many(int((counts.astype(object) ** 2).sum()) if len(counts) else 0, len(starts))
    distinct, other_distinct = codes[rows[starts]], others[other_rows[other_starts]]
    for first, second, distances in near_pairs(distinct, other_distinct, bits, radius):
        sizes = counts[first] * other_counts[second]
        ends = np.cumsum(sizes)
        for start in range(0, int(ends[-1]), _PAIRS_AT_ONCE):
            number = np.arange(start, min(start + _PAIRS_AT_ONCE, int(ends[-1])))
            pair = np.searchsorted(ends, number, side="right")
            within = number - (ends - sizes)[pair]
            row, other = np.divmod(within, other_counts[second[pair]])
            yield (
                rows[starts[first[pair]] + row],
                other_rows[other_starts[second[pair]] + other],
                distances[pair].astype(np.int64),
            )


def _lists(codes: Bytes) -> tuple[Positions, Positions, Positions]:
    """Return rows sorted by code, where each code's start, and how many it has."""
    rows, starts = group_equal(codes)
    return rows, starts, np.diff(starts, append=len(rows))


def _refuse_too_many(pairs: int, codes: int) -> None:
    if pairs > _MOST_PAIRS:
        raise SchnRayError(
            f"the images with near codes have only {codes:,} distinct codes, which makes {pairs:,} "
            "pairs to verify. The codes have collapsed: train again, with more bits, or use "
            "--verify bytes"
        )
