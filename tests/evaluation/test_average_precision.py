import itertools
import json
import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict
from fractions import Fraction
from functools import reduce

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.sparse import csr_array
from sklearn.metrics import average_precision_score

from schn_ray.core.errors import SchnRayError
from schn_ray.data.labels import label_matrix
from schn_ray.evaluation.metrics import average_precision as metrics
from schn_ray.evaluation.metrics import histograms as counting
from schn_ray.evaluation.metrics.average_precision import (
    average_precision,
    average_precision_at,
    best_average_precision,
    empty_ball,
    mean,
    pr_curve,
    precision_at,
    precision_within_radius,
    recall_at,
    worst_average_precision,
)
from schn_ray.evaluation.metrics.histograms import (
    Histograms,
    concatenate,
    distance_histograms,
    without_themselves,
)
from schn_ray.evaluation.metrics.summary import summarise

Codes = NDArray[np.uint8]
Levels = list[list[bool]]  # for each distance, which of its rows are relevant
Ranking = tuple[bool, ...]
EXACT = {"rel": 1e-12, "abs": 1e-12}


def draw_levels(rng: np.random.Generator) -> Levels:
    """Draw up to 8 rows at up to 5 distances, so that some levels are empty and some are large."""
    levels: Levels = [[] for _ in range(rng.integers(2, 6))]
    for _ in range(rng.integers(1, 9)):
        levels[rng.integers(len(levels))].append(bool(rng.random() < 0.5))
    levels[rng.integers(len(levels))].append(True)  # so that the query is defined
    return levels


def histograms(*queries: Levels) -> Histograms:
    return Histograms(
        np.array([[len(level) for level in levels] for levels in queries]),
        np.array([[sum(level) for level in levels] for levels in queries]),
    )


def rankings(levels: Levels) -> Iterator[tuple[Ranking, int]]:
    """Yield every ranking that sorts by distance, and how many orders of the rows give it."""
    orders = [Counter(itertools.permutations(level)) for level in levels]
    for choice in itertools.product(*(order.items() for order in orders)):
        ranking = tuple(itertools.chain.from_iterable(order for order, _ in choice))
        yield ranking, math.prod(count for _, count in choice)


def over_all_orders(levels: Levels, metric: Callable[[Ranking], Fraction]) -> float:
    values = [(metric(ranking), weight) for ranking, weight in rankings(levels)]
    return float(sum(v * w for v, w in values) / sum(w for _, w in values))


def sum_of_precisions(ranking: Ranking, k: int) -> Fraction:
    ranks = [rank for rank, relevant in enumerate(ranking[:k], 1) if relevant]
    return sum((Fraction(sum(ranking[:rank]), rank) for rank in ranks), Fraction(0))


def literal_ap(ranking: Ranking) -> Fraction:
    return sum_of_precisions(ranking, len(ranking)) / sum(ranking)


def literal_ap_at(ranking: Ranking, k: int, denominator: str) -> Fraction:
    R, hits = sum(ranking), sum(ranking[:k])
    divisor = {"relevant": R, "min": min(R, k), "hits": hits}[denominator]
    return sum_of_precisions(ranking, k) / divisor if divisor else Fraction(0)


@pytest.fixture(params=range(40))
def levels(request: pytest.FixtureRequest) -> Levels:
    return draw_levels(np.random.default_rng(request.param))


def ranks(levels: Levels) -> range:
    """Every k: at the ends of ties, inside them, and beyond the gallery."""
    return range(1, sum(map(len, levels)) + 3)


def test_average_precision_is_the_mean_over_all_orders(levels: Levels) -> None:
    expected = over_all_orders(levels, literal_ap)
    assert average_precision(histograms(levels))[0] == pytest.approx(expected, **EXACT)


@pytest.mark.parametrize("denominator", ["relevant", "min", "hits"])
def test_average_precision_at_k_is_the_mean_over_all_orders(
    levels: Levels, denominator: metrics.Denominator
) -> None:
    for k in ranks(levels):
        expected = over_all_orders(levels, lambda r, k=k: literal_ap_at(r, k, denominator))
        measured = average_precision_at(histograms(levels), k, denominator)
        assert measured[0] == pytest.approx(expected, **EXACT), k


def test_precision_and_recall_at_k_are_the_mean_over_all_orders(levels: Levels) -> None:
    h, R = histograms(levels), sum(map(sum, levels))
    for k in ranks(levels):
        hits = over_all_orders(levels, lambda ranking, k=k: Fraction(sum(ranking[:k])))
        assert precision_at(h, k)[0] == pytest.approx(hits / k, **EXACT)
        assert recall_at(h, k)[0] == pytest.approx(hits / R, **EXACT)


def test_the_bounds_are_the_best_and_the_worst_order(levels: Levels) -> None:
    h = histograms(levels)
    found = [literal_ap(ranking) for ranking, _ in rankings(levels)]
    assert best_average_precision(h)[0] == pytest.approx(float(max(found)), **EXACT)
    assert worst_average_precision(h)[0] == pytest.approx(float(min(found)), **EXACT)
    tied = any(0 < sum(level) < len(level) for level in levels)
    assert (best_average_precision(h)[0] - worst_average_precision(h)[0] > 1e-6) == tied


def test_queries_do_not_see_each_other() -> None:
    rng = np.random.default_rng(0)
    drawn = [(draw_levels(rng) + [[]] * 5)[:6] for _ in range(20)]
    drawn[3] = [[], [False], [], [], [], []]
    together = histograms(*drawn)
    one_by_one = [histograms(levels) for levels in drawn]
    for metric in (
        average_precision,
        best_average_precision,
        worst_average_precision,
        lambda h: average_precision_at(h, 3, "hits"),
        lambda h: average_precision_at(h, 3, "min"),
        lambda h: precision_at(h, 3),
        lambda h: precision_within_radius(h, 1),
    ):
        alone = np.concatenate([metric(h) for h in one_by_one])
        np.testing.assert_array_equal(metric(together), alone)
        np.testing.assert_array_equal(metric(concatenate(one_by_one)), alone)


@pytest.mark.parametrize("seed", range(10))
def test_without_ties_it_is_scikit_learns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    distances = rng.permutation(128)[:60]
    relevant = rng.random(60) < 0.3
    all_rows, hits = np.zeros((2, 1, 129), np.int64)
    all_rows[0, distances], hits[0, distances] = 1, relevant
    h = Histograms(all_rows, hits)
    expected = average_precision_score(relevant, -distances)
    for metric in (average_precision, best_average_precision, worst_average_precision):
        assert metric(h)[0] == pytest.approx(expected, **EXACT)


def test_a_sort_of_tied_rows_says_something_else() -> None:
    tied: Levels = [[True, False, False], [True, False]]
    by_row = float(literal_ap(tuple(itertools.chain.from_iterable(tied))))
    assert by_row == pytest.approx(best_average_precision(histograms(tied))[0])
    assert average_precision(histograms(tied))[0] < by_row - 0.1
    # scikit-learn takes a tie as one threshold, which is neither the mean nor a bound
    threshold = average_precision_score([1, 0, 0, 1, 0], [0, 0, 0, -1, -1])
    assert abs(threshold - average_precision(histograms(tied))[0]) > 0.01


def test_the_denominators_differ_and_fewer_hits_can_score_more() -> None:
    one_hit, two_hits = [[True], [False], [False], [True]], [[True], [False], [False, True], []]
    h = histograms(one_hit, two_hits)
    by_hits = average_precision_at(h, 3, "hits")
    assert by_hits[0] == 1.0
    assert by_hits[1] < 1.0
    by_relevant = average_precision_at(h, 3, "relevant")
    assert by_relevant[0] == pytest.approx(1 / 2)
    assert by_relevant[1] > by_relevant[0]
    assert average_precision_at(h, 1, "min")[0] == 1.0
    assert average_precision_at(h, 1, "relevant")[0] == pytest.approx(1 / 2)


def test_a_perfect_list_scores_one_to_the_digit() -> None:
    h = histograms([[True] * 3, [], [True], [True] * 7, [False] * 9, [False]])
    for metric in (average_precision, best_average_precision, worst_average_precision):
        assert metric(h)[0] == 1.0
    for k in range(1, 12):
        assert average_precision_at(h, k, "min")[0] == average_precision_at(h, k, "hits")[0] == 1.0


def test_k_beyond_the_gallery_adds_nothing(levels: Levels) -> None:
    h, rows = histograms(levels), sum(map(len, levels))
    for denominator in ("relevant", "min", "hits"):
        measured = average_precision_at(h, 10 * rows, denominator)
        np.testing.assert_allclose(measured, average_precision(h), rtol=1e-12)
    assert recall_at(h, 10 * rows)[0] == 1.0
    assert precision_at(h, 10 * rows)[0] == pytest.approx(sum(map(sum, levels)) / (10 * rows))


def test_a_few_rows_behind_ten_million_keep_their_digits() -> None:
    far, n, r = 10_000_000, 10, 4
    h = Histograms(np.array([[far, n]]), np.array([[0, r]]))
    exact = Fraction(r, n) * sum(
        (1 + Fraction((i - 1) * (r - 1), n - 1)) / (far + i) for i in range(1, n + 1)
    )
    assert average_precision(h)[0] == pytest.approx(float(exact / r), rel=1e-9)
    assert average_precision(h)[0] == pytest.approx(float(exact / r), abs=1e-15)
    best = sum(Fraction(i, far + i) for i in range(1, r + 1)) / r
    assert best_average_precision(h)[0] == pytest.approx(float(best), abs=1e-15)


@pytest.mark.parametrize(
    ("n", "r", "k"), [(5000, 500, 1000), (5000, 4999, 2500), (5000, 1, 2), (60_000, 20_000, 300)]
)
def test_hits_of_a_large_tie_equal_the_hypergeometric_sum(n: int, r: int, k: int) -> None:
    h = Histograms(np.array([[2, n]]), np.array([[1, r]]))
    m = k - 2
    before = Fraction(3, 4)  # the first level: rank 1 or rank 2 at even odds
    first = sum(2 / (2 + i) for i in range(1, m + 1))
    growth = math.fsum((i - 1) / (2 + i) for i in range(1, m + 1))
    exact = []
    for J in range(max(0, m - n + r), min(m, r) + 1):
        probability = Fraction(math.comb(r, J) * math.comb(n - r, m - J), math.comb(n, m))
        in_tie = J / max(m, 1) * (first + ((J - 1) / (m - 1) if m > 1 else 0) * growth)
        exact.append(float(probability) * (float(before) + in_tie) / (1 + J))
    assert average_precision_at(h, k, "hits")[0] == pytest.approx(math.fsum(exact), **EXACT)


def test_hits_of_a_huge_tie_have_the_hypergeometric_moments() -> None:
    n, r, m = 2_000_000, 4_000, 1_000_000  # 0 hits are e**-2700 times as likely as the mode
    hits, probability = metrics._hits_in_tie(n, r, m)
    centre = m * r / n
    assert np.sum(probability) == pytest.approx(1, abs=1e-12)
    assert np.sum(probability * hits) == pytest.approx(centre, rel=1e-12)
    variance = centre * (1 - r / n) * (n - m) / (n - 1)
    assert np.sum(probability * (hits - centre) ** 2) == pytest.approx(variance, rel=1e-9)


@pytest.mark.parametrize("start", [0, 1, 7, 60, 10**4, 10**9])
def test_spans_of_the_harmonic_series(start: int) -> None:
    lengths = [0, 1, 2, 30, 3000]
    spans = metrics._harmonic_span(np.full(5, start), np.array(lengths))
    exact = [math.fsum(1 / (start + i) for i in range(1, m + 1)) for m in lengths]
    np.testing.assert_allclose(spans, exact, rtol=4e-15)


# --- within a radius, by threshold


def test_radius_and_curve_follow_their_definitions() -> None:
    h = histograms(
        [[], [], [], [True, False]],
        [[True], [], [False, False, True], [True]],
        [[False], [False], [], [True]],
        [[False], [], [], []],  # undefined
    )
    np.testing.assert_allclose(precision_within_radius(h, 2), [0, 1 / 2, 0, np.nan])
    np.testing.assert_array_equal(empty_ball(h, 2), [1, 0, 0, np.nan])
    np.testing.assert_allclose(precision_within_radius(h, 99), [1 / 2, 3 / 5, 1 / 3, np.nan])
    curve = pr_curve(h)
    assert curve.precision == pytest.approx([1 / 3, 1 / 3, 1 / 6, (1 / 2 + 3 / 5 + 1 / 3) / 3])
    assert curve.recall == pytest.approx([1 / 9, 1 / 9, 2 / 9, 1])
    assert curve.empty == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    assert curve.precision[2] == pytest.approx(mean(precision_within_radius(h, 2)))
    assert curve.empty[2] == pytest.approx(mean(empty_ball(h, 2)))


# --- counting


def draw(rng: np.random.Generator, rows: int, bits: int, distinct: int) -> tuple[Codes, csr_array]:
    """Draw codes of few distinct values, with 0 to 3 of 5 labels; the two know nothing of each
    other, so one code has several label sets."""
    pool = np.packbits(rng.random((distinct, bits)) < 0.5, axis=1, bitorder="little")
    labels = [rng.choice(5, rng.integers(0, 4), replace=False).tolist() for _ in range(rows)]
    return pool[rng.integers(0, distinct, rows)], label_matrix(labels, 5)


def naive(
    queries: tuple[Codes, csr_array], gallery: tuple[Codes, csr_array], bits: int, skip_self: bool
) -> Histograms:
    bit_rows = [np.unpackbits(c, axis=1, bitorder="little") for c in (queries[0], gallery[0])]
    all_rows, relevant = np.zeros((2, len(queries[0]), bits + 1), np.int64)
    Y_q, Y_g = queries[1].toarray(), gallery[1].toarray()
    for i, code in enumerate(bit_rows[0]):
        for j, other in enumerate(bit_rows[1]):
            if not (skip_self and i == j):
                distance = sum(int(a != b) for a, b in zip(code, other, strict=True))
                all_rows[i, distance] += 1
                relevant[i, distance] += bool(np.any(Y_q[i] & Y_g[j]))
    return Histograms(all_rows, relevant)


def assert_equal(left: Histograms, right: Histograms) -> None:
    np.testing.assert_array_equal(left.all_rows, right.all_rows)
    np.testing.assert_array_equal(left.relevant, right.relevant)
    assert left.all_rows.dtype == left.relevant.dtype == np.int64


@pytest.fixture(params=["whole", "in blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "in blocks":
        monkeypatch.setattr(counting, "_PAIRS_AT_ONCE", 7)
        monkeypatch.setattr(counting, "_RELEVANCE_AT_ONCE", 20)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("bits", [1, 8, 12, 32, 33, 64, 65, 200])
def test_histograms_equal_a_double_loop(bits: int) -> None:
    rng = np.random.default_rng(bits)
    queries, gallery = draw(rng, 12, bits, 8), draw(rng, 40, bits, 10)
    expected = naive(queries, gallery, bits, skip_self=False)
    assert_equal(distance_histograms(*queries, *gallery, bits), expected)
    assert expected.undefined == np.sum(np.diff(queries[1].indptr) == 0) > 0
    assert 0 < expected.relevant.sum() < expected.all_rows.sum()


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("bits", [4, 12, 33])
def test_leaving_oneself_out_equals_a_double_loop(bits: int) -> None:
    rows = draw(np.random.default_rng(bits), 40, bits, 6)
    with_oneself = distance_histograms(*rows, *rows, bits)
    left_out = without_themselves(with_oneself, rows[1])
    assert_equal(left_out, naive(rows, rows, bits, skip_self=True))
    assert np.all(left_out.gallery == 39)
    assert mean(average_precision(with_oneself)) > mean(average_precision(left_out))


def test_512_bits() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = draw(rng, 30, 512, 30), draw(rng, 300, 512, 300)
    h = distance_histograms(*queries, *gallery, 512)
    ones = [np.unpackbits(c, axis=1).astype(np.int64) for c in (queries[0], gallery[0])]
    distances = ones[0] @ (1 - ones[1].T) + (1 - ones[0]) @ ones[1].T
    counted = np.stack([np.bincount(row, minlength=513) for row in distances])
    np.testing.assert_array_equal(h.all_rows, counted)
    assert len(summarise(h).pr_curve.precision) == 513


def test_no_shared_label_is_lost_among_256() -> None:
    labels = label_matrix([range(256)], 256)  # a count of 256 is 0 in a byte
    code = np.zeros((1, 1), np.uint8)
    assert distance_histograms(code, labels, code, labels, 8).relevant[0, 0] == 1


@pytest.mark.parametrize("shards", [1, 2, 5, 45])  # 45 rows in 45 shards, and an empty one
def test_histograms_of_shards_add_up(shards: int) -> None:
    rng = np.random.default_rng(shards)
    queries, (codes, labels) = draw(rng, 10, 24, 8), draw(rng, 45, 24, 9)
    parts = [*np.array_split(rng.permutation(45), shards), np.arange(0)]
    counted = [distance_histograms(*queries, codes[p], labels[p], 24) for p in parts]
    whole = distance_histograms(*queries, codes, labels, 24)
    assert_equal(reduce(operator.add, counted), whole)
    if shards > 1:
        assert counted[0].all_rows.sum() < whole.all_rows.sum()


def test_queries_concatenate() -> None:
    rng = np.random.default_rng(0)
    (codes, labels), gallery = draw(rng, 10, 24, 8), draw(rng, 45, 24, 9)
    parts = [
        distance_histograms(codes[i : i + 4], labels[i : i + 4], *gallery, 24) for i in (0, 4, 8)
    ]
    assert_equal(concatenate(parts), distance_histograms(codes, labels, *gallery, 24))


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), bits=st.integers(1, 70))
def test_gallery_order_and_a_common_mask_change_nothing(seed: int, bits: int) -> None:
    rng = np.random.default_rng(seed)
    queries, (codes, labels) = draw(rng, 5, bits, 4), draw(rng, 30, bits, 6)
    h = distance_histograms(*queries, codes, labels, bits)
    order = rng.permutation(30)
    assert_equal(distance_histograms(*queries, codes[order], labels[order], bits), h)
    mask = np.packbits(rng.random(bits) < 0.5, bitorder="little")
    masked = distance_histograms(queries[0] ^ mask, queries[1], codes ^ mask, labels, bits)
    assert_equal(masked, h)


def test_a_mask_on_one_side_only_does_change_them() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = draw(rng, 5, 16, 4), draw(rng, 30, 16, 6)
    h = distance_histograms(*queries, *gallery, 16)
    flipped = distance_histograms(queries[0] ^ np.uint8(255), queries[1], *gallery, 16)
    np.testing.assert_array_equal(flipped.all_rows, h.all_rows[:, ::-1])
    assert not np.array_equal(flipped.all_rows, h.all_rows)


# --- undefined queries, summary, bad input


def every_metric(h: Histograms) -> list[NDArray[np.float64]]:
    return [
        average_precision(h),
        best_average_precision(h),
        worst_average_precision(h),
        *(average_precision_at(h, 2, d) for d in ("relevant", "min", "hits")),
        precision_at(h, 2),
        recall_at(h, 2),
        precision_within_radius(h, 2),
        empty_ball(h, 2),
    ]


def test_undefined_queries_are_dropped_and_counted() -> None:
    defined = [[True, False], [False], []]
    h = histograms(defined, [[False], [False, False], []])
    assert h.undefined == 1
    for both, alone in zip(every_metric(h), every_metric(histograms(defined)), strict=True):
        assert np.isnan(both[1])
        assert mean(both) == alone[0]
    with_undefined, without = asdict(summarise(h)), asdict(summarise(histograms(defined)))
    assert (with_undefined.pop("queries"), without.pop("queries")) == (2, 1)
    assert (with_undefined.pop("undefined_queries"), without.pop("undefined_queries")) == (1, 0)
    assert with_undefined == without


@pytest.mark.parametrize("queries", [[[[False], []]], [[[], []]]])
def test_nothing_defined_is_none_not_zero(queries: list[Levels]) -> None:
    found = summarise(histograms(*queries))
    assert found.undefined_queries == found.queries == 1
    assert found.map is found.map_best is found.at[0].map_hits is found.empty_balls is None
    json.dumps(asdict(found), allow_nan=False)


def test_no_queries_at_all() -> None:
    empty = np.zeros((0, 9), np.int64)
    found = summarise(Histograms(empty, empty))
    assert (found.queries, found.gallery, found.bits, found.map) == (0, 0, 8, None)


def test_summary_holds_the_means_of_the_metrics() -> None:
    rng = np.random.default_rng(0)
    queries, gallery = draw(rng, 20, 12, 15), draw(rng, 200, 12, 50)
    h = distance_histograms(*queries, *gallery, 12)
    found = summarise(h, ks=(5, 1000))
    assert (found.bits, found.gallery, found.queries) == (12, 200, 20)
    assert found.undefined_queries == h.undefined > 0
    assert found.map == mean(average_precision(h))
    assert found.map_worst < found.map < found.map_best  # type: ignore[operator]
    assert [at.k for at in found.at] == [5, 1000]
    at = found.at[0]
    assert at.map_relevant == mean(average_precision_at(h, 5, "relevant"))
    assert at.map_min == mean(average_precision_at(h, 5, "min"))
    assert at.map_hits == mean(average_precision_at(h, 5, "hits"))
    assert (at.precision, at.recall) == (mean(precision_at(h, 5)), mean(recall_at(h, 5)))
    assert found.at[1].map_hits == pytest.approx(found.map, rel=1e-12)
    assert found.precision_within_radius == mean(precision_within_radius(h, 2))
    assert found.empty_balls == mean(empty_ball(h, 2))
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["at"][1]["recall"] == 1.0


def test_a_summary_needs_one_gallery() -> None:
    with pytest.raises(SchnRayError, match="between 1 and 2 rows"):
        summarise(histograms([[True], []], [[True], [False]]))


def test_bad_codes_and_labels_say_what_was_expected() -> None:
    codes, labels = draw(np.random.default_rng(0), 4, 12, 4)
    for other, bits, message in (
        (codes.astype(np.int64), 12, "expected uint8"),
        (codes[:, :1], 12, r"expected uint8 \[n, 2\]"),
        (codes, 17, r"expected uint8 \[n, 3\]"),
        (codes, 0, "1 or more"),
        (codes | np.uint8(128), 12, "beyond bit 11"),
        (codes[:3], 12, "3 codes and 4 rows of labels"),
    ):
        with pytest.raises(SchnRayError, match=message):
            distance_histograms(other, labels, other, labels, bits)
    with pytest.raises(SchnRayError, match="one vocabulary"):
        distance_histograms(codes, labels, codes, label_matrix([[0]] * 4, 6), 12)


def test_bad_histograms_and_ranks_say_what_was_expected() -> None:
    one, two = np.ones((1, 3), np.int64), np.ones((2, 3), np.int64)
    h = Histograms(one, one)
    for act, message in (
        (lambda: Histograms(one, two), "two of one shape"),
        (lambda: Histograms(one, 2 * one), "more relevant rows than rows"),
        (lambda: h + Histograms(two, two), "same queries and bits"),
        (lambda: concatenate([]), "one or more"),
        (lambda: concatenate([h, Histograms(one[:, :2], one[:, :2])]), "of one length"),
        (lambda: precision_at(h, 0), "1 or more ranks"),
        (lambda: average_precision_at(h, 1, "mine"), "'relevant', 'min' or 'hits'"),  # type: ignore[arg-type]
        (lambda: precision_within_radius(h, -1), "0 or more"),
    ):
        with pytest.raises(SchnRayError, match=message):
            act()
