"""NDCG, MRR and CMC against every order inside ties, and against libraries where there are none."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.metrics import ndcg_score
from torchmetrics.functional.retrieval import (
    retrieval_hit_rate,
    retrieval_normalized_dcg,
    retrieval_reciprocal_rank,
)

from schn_ray.core.errors import SchnRayError
from schn_ray.data.labels import label_matrix
from schn_ray.evaluation.metrics.first_hit import _expected_reciprocal, hit_rate_at, reciprocal_rank
from schn_ray.evaluation.metrics.histograms import (
    GradedHistograms,
    Histograms,
    distance_histograms,
    graded_histograms,
)
from schn_ray.evaluation.metrics.ndcg import ndcg_at

Levels = list[list[int]]  # for each distance, the grade of each of its rows
EXACT = {"rel": 1e-12, "abs": 1e-12}
GRADES = 4


def draw_levels(seed: int) -> Levels:
    rng = np.random.default_rng(seed)
    levels: Levels = [[] for _ in range(rng.integers(2, 5))]
    for _ in range(rng.integers(1, 7)):
        levels[rng.integers(len(levels))].append(
            int(rng.integers(0, GRADES) * (rng.random() < 0.6))
        )
    levels[rng.integers(len(levels))].append(int(rng.integers(1, GRADES)))
    return levels


@pytest.fixture(params=range(40))
def levels(request: pytest.FixtureRequest) -> Levels:
    return draw_levels(request.param)


def counted(*queries: Levels) -> GradedHistograms:
    counts = np.zeros((len(queries), GRADES, max(map(len, queries))), np.int64)
    for q, levels in enumerate(queries):
        for distance, level in enumerate(levels):
            for grade in level:
                counts[q, grade, distance] += 1
    return GradedHistograms(counts)


def over_all_orders(levels: Levels, metric: Callable[[list[int]], float]) -> float:
    orders = [list(itertools.permutations(level)) for level in levels]
    values = [metric([*itertools.chain(*chosen)]) for chosen in itertools.product(*orders)]
    return math.fsum(values) / len(values)


def literal_dcg(grades: list[int], k: int, gain: str) -> float:
    gains = grades if gain == "linear" else [2**g - 1 for g in grades]
    return math.fsum(g / math.log2(rank + 1) for rank, g in enumerate(gains[:k], 1))


@pytest.mark.parametrize("gain", ["linear", "exponential"])
def test_ndcg_is_the_mean_over_all_orders(levels: Levels, gain: str) -> None:
    everything = sorted(itertools.chain(*levels), reverse=True)
    for k in range(1, len(everything) + 2):
        expected = over_all_orders(levels, lambda r, k=k: literal_dcg(r, k, gain))
        expected /= literal_dcg(everything, k, gain)
        assert ndcg_at(counted(levels), k, gain)[0] == pytest.approx(expected, **EXACT), k
    whole = ndcg_at(counted(levels), None, gain)[0]
    assert whole == pytest.approx(ndcg_at(counted(levels), 99, gain)[0], **EXACT)


def test_reciprocal_rank_is_the_mean_over_all_orders(levels: Levels) -> None:
    expected = over_all_orders(
        levels, lambda r: 1 / next(rank for rank, grade in enumerate(r, 1) if grade)
    )
    assert reciprocal_rank(counted(levels).plain)[0] == pytest.approx(expected, **EXACT)


def test_cmc_is_the_mean_over_all_orders(levels: Levels) -> None:
    for k in range(1, sum(map(len, levels)) + 2):
        expected = over_all_orders(levels, lambda r, k=k: float(any(r[:k])))
        assert hit_rate_at(counted(levels).plain, k)[0] == pytest.approx(expected, **EXACT), k


@pytest.mark.parametrize("seed", range(8))
def test_without_ties_they_are_the_libraries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distances, grades = rng.permutation(100)[:50], rng.integers(0, GRADES, 50)
    grades[rng.random(50) < 0.8] = 0
    grades[7] = 2
    counts = np.zeros((1, GRADES, 101), np.int64)
    counts[0, grades, distances] = 1
    h = GradedHistograms(counts)
    scores = torch.tensor(100 - distances, dtype=torch.float64)
    relevant = torch.tensor(grades > 0)
    for k in (1, 5, 20, 50):
        assert ndcg_at(h, k)[0] == pytest.approx(
            ndcg_score([grades], [-distances], k=k), rel=1e-6, abs=1e-9
        )
        assert ndcg_at(h, k)[0] == pytest.approx(
            float(retrieval_normalized_dcg(scores, torch.tensor(grades), top_k=k)), abs=1e-6
        )
        hit = float(retrieval_hit_rate(scores, relevant, top_k=k))
        assert hit_rate_at(h.plain, k)[0] == pytest.approx(hit, abs=1e-6)
    expected = float(retrieval_reciprocal_rank(scores, relevant))
    assert reciprocal_rank(h.plain)[0] == pytest.approx(expected, abs=1e-6)


def test_ndcg_under_ties_is_scikit_learns_too(levels: Levels) -> None:
    grades = list(itertools.chain(*levels))
    if len(grades) < 2:
        pytest.skip("scikit-learn wants two rows")
    scores = [-d for d, level in enumerate(levels) for _ in level]
    for k in range(1, len(grades) + 1):
        expected = ndcg_score([grades], [scores], k=k)
        assert ndcg_at(counted(levels), k)[0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("N", "n", "r"), [(0, 50_000, 5), (7, 50_000, 40_000), (3, 1000, 1), (0, 9, 9)]
)
def test_the_first_of_a_large_tie(N: int, n: int, r: int) -> None:
    total, survived = 0.0, 1.0
    for i in range(1, n - r + 2):  # P(no relevant row so far), a rank at a time
        here = r / (n - i + 1)
        total += survived * here / (N + i)
        survived *= 1 - here
    assert _expected_reciprocal(N, n, r) == pytest.approx(total, rel=1e-11)


@pytest.mark.parametrize(("n", "r", "k"), [(5000, 3, 700), (5000, 4000, 5), (300, 150, 150)])
def test_a_hit_in_a_large_tie(n: int, r: int, k: int) -> None:
    h = Histograms(np.array([[2, n]]), np.array([[0, r]]))
    miss = math.comb(n - r, k - 2) / math.comb(n, k - 2)
    assert hit_rate_at(h, k)[0] == pytest.approx(1 - miss, **EXACT)
    assert hit_rate_at(h, 2)[0] == 0.0
    assert hit_rate_at(h, n + 2)[0] == 1.0


def test_undefined_queries_are_nan_and_change_no_other(levels: Levels) -> None:
    nothing: Levels = [[0, 0]]
    both, alone = counted(nothing, levels), counted(levels)
    for metric in (
        lambda h: ndcg_at(h, 3),
        lambda h: reciprocal_rank(h.plain),
        lambda h: hit_rate_at(h.plain, 3),
    ):
        assert np.isnan(metric(both)[0])
        assert metric(both)[1] == pytest.approx(metric(alone)[0], **EXACT)


def test_what_cannot_be_measured_says_why() -> None:
    h = counted([[1]])
    for act, words in (
        (lambda: ndcg_at(h, 0), "1 or more"),
        (lambda: ndcg_at(h, 1, "cubic"), "'linear' or 'exponential'"),  # type: ignore[arg-type]
        (lambda: hit_rate_at(h.plain, 0), "1 or more"),
        (lambda: GradedHistograms(np.zeros((2, 3), np.int64)), r"expected \[Q, G\+1, K\+1\]"),
        (lambda: h + counted([[1]], [[1]]), "same queries and bits"),
    ):
        with pytest.raises(SchnRayError, match=words):
            act()


# --- counting grades


@pytest.mark.parametrize("bits", [5, 12, 48, 70])
def test_graded_histograms_equal_a_double_loop(bits: int) -> None:
    rng = np.random.default_rng(bits)
    codes = np.packbits(rng.random((40, bits)) < 0.5, axis=1, bitorder="little")
    codes = codes[rng.integers(0, 12, 40)]  # few distinct ones
    labels = label_matrix(
        [rng.choice(6, rng.integers(0, 5), replace=False).tolist() for _ in range(40)], 6
    )
    found = graded_histograms(codes[:9], labels[:9], codes[9:], labels[9:], bits)
    Y = labels.toarray().astype(int)
    expected = np.zeros_like(found.counts)
    bit_rows = np.unpackbits(codes, axis=1, bitorder="little").astype(int)
    for q in range(9):
        for g in range(9, 40):
            distance = int(np.sum(bit_rows[q] != bit_rows[g]))
            expected[q, int(Y[q] @ Y[g]), distance] += 1
    np.testing.assert_array_equal(found.counts, expected)
    assert expected[:, 2:].sum() > 0
    plain = distance_histograms(codes[:9], labels[:9], codes[9:], labels[9:], bits)
    np.testing.assert_array_equal(found.plain.all_rows, plain.all_rows)
    np.testing.assert_array_equal(found.plain.relevant, plain.relevant)
    one = graded_histograms(codes[:9], labels[:9], codes[9:15], labels[9:15], bits)
    rest = graded_histograms(codes[:9], labels[:9], codes[15:], labels[15:], bits)
    np.testing.assert_array_equal((one + rest).counts, expected)
    np.testing.assert_array_equal(found[np.array([3, 4])].counts, expected[3:5])
