"""Recall of exact neighbours against a literal enumeration of all orders inside ties."""

import itertools
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.metrics import recall
from schn_ray.evaluation.metrics.recall import (
    NeighbourHistograms,
    RecallRanks,
    exact_neighbours,
    neighbour_histograms,
    neighbour_recall,
    neighbour_recalls,
)


def firsts(keys: list[float], count: int) -> Counter[frozenset[int]]:
    """Return the sets that the first ``count`` rows form, over all orders that rise by key."""
    orders = itertools.permutations(range(len(keys)))
    rising = [o for o in orders if all(keys[a] <= keys[b] for a, b in itertools.pairwise(o))]
    return Counter(frozenset(order[:count]) for order in rising)


def literal_recall(scores: list[float], distances: list[int], k: int, first: int) -> Fraction:
    """Return the mean recall over all pairs of an order by score and an order by distance."""
    nearest, listed = firsts([-score for score in scores], k), firsts(distances, first)
    shares = sum(
        n * m * Fraction(len(a & b), k) for a, n in nearest.items() for b, m in listed.items()
    )
    return shares / (nearest.total() * listed.total())


def measured(scores: list[float], distances: list[int], k: int, first: int) -> float:
    d = np.array([distances])
    nearest = neighbour_histograms(d, exact_neighbours(np.array([scores]), k), bits=4)
    all_rows = np.bincount(distances, minlength=5)[None]
    return float(neighbour_recall(NeighbourHistograms(all_rows, nearest, k), first)[0])


@settings(deadline=None, max_examples=150)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.2, 0.9]), st.integers(0, 4)), min_size=1, max_size=6
    ),
    st.data(),
)
def test_recall_is_the_mean_over_all_orders(
    rows: list[tuple[float, int]], data: st.DataObject
) -> None:
    scores, distances = [score for score, _ in rows], [d for _, d in rows]
    k = data.draw(st.integers(1, len(rows)))
    first = data.draw(st.integers(1, len(rows) + 1))
    expected = literal_recall(scores, distances, k, first)
    assert measured(scores, distances, k, first) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("cells", [1, 12, 1 << 22])
def test_features_and_codes_give_the_literal_recall_in_any_block(
    monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    monkeypatch.setattr(recall, "_CELLS_AT_ONCE", cells)
    rng = np.random.default_rng(0)
    # few distinct features, of exact cosines and any length: full of ties
    directions = np.array([[3, 4], [4, 3], [-3, 4], [0, 5], [5, 0]], np.float32)
    queries, gallery = directions[[0, 1, 3]], directions[rng.integers(0, 5, 6)]
    gallery = gallery * rng.integers(1, 4, (6, 1)).astype(np.float32)
    asked, ranked = (rng.integers(0, 8, (rows, 1)).astype(np.uint8) for rows in (3, 6))
    ranks = [RecallRanks(1, 1), RecallRanks(2, 2), RecallRanks(2, 4), RecallRanks(6, 3)]
    result = neighbour_recalls(queries, gallery, {"codes": (asked, ranked)}, 3, ranks)
    for q, at in itertools.product(range(3), ranks):
        cosines = gallery.astype(float) @ queries[q].astype(float)
        cosines /= 5 * np.linalg.norm(gallery.astype(float), axis=1)
        distances = [int(code[0] ^ asked[q, 0]).bit_count() for code in ranked]
        expected = literal_recall(cosines.round(6).tolist(), distances, *at)
        assert result["codes"][at][q] == pytest.approx(float(expected), abs=1e-12)


def test_without_ties_it_is_a_share_of_two_sorted_lists() -> None:
    rng = np.random.default_rng(1)
    queries, gallery = rng.normal(size=(4, 8)), rng.normal(size=(12, 8))
    # one bit more for each row: all distances to the code of no bits differ
    ranked = np.packbits(np.tri(12, 16, 0, bool), axis=1, bitorder="little")
    asked = np.zeros((4, 2), np.uint8)
    at = RecallRanks(3, 5)
    result = neighbour_recalls(queries, gallery, {"codes": (asked, ranked)}, 16, [at])
    for q in range(4):
        cosines = gallery @ queries[q] / np.linalg.norm(gallery, axis=1)
        near = set(np.argsort(-cosines)[:3].tolist())
        assert result["codes"][at][q] == pytest.approx(len(near & set(range(5))) / 3)


def test_equal_features_tie_wherever_they_stand() -> None:
    rng = np.random.default_rng(2)
    row = rng.normal(size=(1, 301)).astype(np.float32)
    gallery = np.concatenate([rng.normal(size=(37, 301)).astype(np.float32), row])
    gallery = gallery[rng.integers(0, 38, 101)]
    codes = {"equal": (np.zeros((1, 1), np.uint8), np.zeros((101, 1), np.uint8))}
    for k in (1, 5, 50):
        result = neighbour_recalls(row, gallery, codes, 8, [RecallRanks(k, 10)])
        # codes that do not differ find R of G rows by chance, whatever the neighbours are
        assert result["equal"][RecallRanks(k, 10)][0] == pytest.approx(10 / 101)
    cosines = next(iter(recall._cosine_blocks(row, gallery)))[1][0]
    of_row = [np.unique(cosines[(gallery == other).all(axis=1)]) for other in gallery]
    assert all(len(values) == 1 for values in of_row)


def test_a_perfect_code_finds_all_and_a_whole_gallery_too() -> None:
    signs = np.where(np.random.default_rng(3).random((30, 16)) < 0.5, 1.0, -1.0)
    packed = np.packbits(signs > 0, axis=1, bitorder="little")
    ranks = [RecallRanks(k, first) for k in (1, 7) for first in (7, 30, 99)]
    result = neighbour_recalls(signs[:5], signs, {"signs": (packed[:5], packed)}, 16, ranks)
    # the cosine of signs falls with their distance, but ties are broken by two separate coins
    for at in ranks:
        if at.first >= 30:
            np.testing.assert_allclose(result["signs"][at], 1, atol=1e-12)
    assert np.all(result["signs"][RecallRanks(1, 7)] == 1)


def test_ranks_outside_the_gallery_are_refused() -> None:
    for k in (0, 4):
        with pytest.raises(SchnRayError, match="expected 1 to 3"):
            exact_neighbours(np.zeros((1, 3)), k)
    with pytest.raises(SchnRayError, match="first 0 ranks"):
        neighbour_recall(NeighbourHistograms(np.ones((1, 2), int), np.ones((1, 2)), 1), 0)
