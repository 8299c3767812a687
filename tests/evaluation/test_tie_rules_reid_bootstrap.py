"""Tie rules of others, re-identification, and how sure a mean is."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.stats import bootstrap as scipy_bootstrap

from schn_ray.core.errors import SchnRayError
from schn_ray.data.labels import label_matrix
from schn_ray.evaluation.metrics.average_precision import (
    average_precision,
    average_precision_at,
    best_average_precision,
    mean,
    worst_average_precision,
)
from schn_ray.evaluation.metrics.bootstrap import by_class, interval, paired_difference
from schn_ray.evaluation.metrics.first_hit import hit_rate_at
from schn_ray.evaluation.metrics.histograms import distance_histograms
from schn_ray.evaluation.metrics.reid import Sightings, reid_figures, reid_histograms
from schn_ray.evaluation.metrics.tie_rules import legacy_average_precision

Side = tuple[NDArray[np.uint8], csr_array]


def draw(rng: np.random.Generator, rows: int, bits: int, distinct: int) -> Side:
    pool = np.packbits(rng.random((distinct, bits)) < 0.5, axis=1, bitorder="little")
    return pool[rng.integers(0, distinct, rows)], label_matrix(
        rng.integers(0, 4, (rows, 1)).tolist(), 4
    )


# --- legacy rules


@pytest.mark.parametrize("rule", ["stable", "reversed", "unstable"])
def test_a_legacy_rule_lies_between_the_bounds_and_hangs_on_the_order(rule: str) -> None:
    rng = np.random.default_rng(1)
    queries, (codes, labels) = draw(rng, 15, 16, 6), draw(rng, 200, 16, 12)
    h = distance_histograms(*queries, codes, labels, 16)
    found = legacy_average_precision(*queries, codes, labels, rule)
    assert np.all(found >= worst_average_precision(h) - 1e-12)
    assert np.all(found <= best_average_precision(h) + 1e-12)
    order = rng.permutation(200)
    # the negative control: what is exact does not move, what sorts does
    shuffled = distance_histograms(*queries, codes[order], labels[order], 16)
    np.testing.assert_array_equal(average_precision(shuffled), average_precision(h))
    moved = legacy_average_precision(*queries, codes[order], labels[order], rule)
    assert np.abs(moved - found).max() > 0.01


def test_shuffled_legacy_figures_average_to_the_exact_one() -> None:
    rng = np.random.default_rng(2)
    queries, (codes, labels) = draw(rng, 3, 8, 3), draw(rng, 40, 8, 5)
    figures = []
    for _ in range(400):
        order = rng.permutation(40)
        ap = legacy_average_precision(*queries, codes[order], labels[order], "stable", 10, "min")
        figures.append(mean(ap))
    h = distance_histograms(*queries, codes, labels, 8)
    assert np.mean(figures) == pytest.approx(mean(average_precision_at(h, 10, "min")), abs=0.02)


def test_without_ties_every_rule_is_exact() -> None:
    codes = np.packbits(np.tri(16, 17, -1, dtype=np.uint8), axis=1, bitorder="little")
    labels = label_matrix([[i % 3] if i else [] for i in range(16)], 3)
    query = (np.zeros((2, 3), np.uint8), label_matrix([[1], []], 3))
    h = distance_histograms(*query, codes, labels, 17)
    for rule in ("stable", "reversed", "unstable"):
        for k, denominator in ((None, "hits"), (7, "hits"), (7, "min"), (7, "relevant")):
            found = legacy_average_precision(*query, codes, labels, rule, k, denominator)
            exact = average_precision_at(h, k or 16, denominator)
            np.testing.assert_allclose(found, exact, rtol=1e-12)
            assert np.isnan(found[1])


def test_the_rules_are_what_they_say() -> None:
    codes, labels = np.zeros((3, 1), np.uint8), label_matrix([[0], [1], [1]], 2)
    query = (codes[:1], label_matrix([[0]], 2))
    assert legacy_average_precision(*query, codes, labels, "stable")[0] == 1.0
    assert legacy_average_precision(*query, codes, labels, "reversed")[0] == pytest.approx(1 / 3)
    with pytest.raises(SchnRayError, match="stable, reversed, unstable"):
        legacy_average_precision(*query, codes, labels, "random")
    with pytest.raises(SchnRayError, match="1 or more"):
        legacy_average_precision(*query, codes, labels, "stable", k=0)


# --- re-identification


def sightings(rng: np.random.Generator, rows: int, lowest: int) -> Sightings:
    codes = rng.integers(0, 256, (6, 2), dtype=np.uint8)[rng.integers(0, 6, rows)]
    return Sightings(codes, rng.integers(lowest, 5, rows), rng.integers(1, 4, rows))


@pytest.mark.parametrize("seed", range(6))
def test_reid_leaves_out_what_its_rules_say(seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries, gallery = sightings(rng, 12, 1), sightings(rng, 60, -1)
    h = reid_histograms(queries, gallery, 16)
    for q in range(12):
        kept = [
            g
            for g in range(60)
            if gallery.identities[g] != -1
            and not (
                gallery.identities[g] == queries.identities[q]
                and gallery.cameras[g] == queries.cameras[q]
            )
        ]
        codes = gallery.codes[kept]
        right = gallery.identities[kept] == queries.identities[q]
        alone = distance_histograms(
            queries.codes[[q]],
            label_matrix([[0]], 1),
            codes,
            label_matrix([[0] if r else [] for r in right], 1),
            16,
        )
        np.testing.assert_array_equal(h.all_rows[q], alone.all_rows[0])
        np.testing.assert_array_equal(h.relevant[q], alone.relevant[0])
    assert np.any(gallery.identities == 0)
    assert len(np.unique(h.gallery)) > 1  # each drops rows of its own
    found = reid_figures(h, (1, 5))
    assert found.map == mean(average_precision(h))
    assert found.cmc == {k: mean(hit_rate_at(h, k)) for k in (1, 5)}


def test_reid_counts_whom_no_other_camera_saw() -> None:
    code = np.zeros((1, 1), np.uint8)
    query = Sightings(code, np.array([7]), np.array([2]))
    h = reid_histograms(query, Sightings(code, np.array([7]), np.array([2])), 8)
    assert (reid_figures(h).undefined_queries, reid_figures(h).map) == (1, None)
    elsewhere = reid_histograms(query, Sightings(code, np.array([7]), np.array([3])), 8)
    assert reid_figures(elsewhere).map == 1.0


def test_reid_refuses_what_it_cannot_mean() -> None:
    code = np.zeros((1, 1), np.uint8)
    one = Sightings(code, np.array([1]), np.array([1]))
    for identity in (-1, 0):
        nobody = Sightings(code, np.array([identity]), np.array([1]))
        with pytest.raises(SchnRayError, match="junk or distractors"):
            reid_histograms(nobody, one, 8)
    with pytest.raises(SchnRayError, match="as many of each"):
        Sightings(code, np.array([1, 2]), np.array([1]))


# --- bootstrap


def test_the_interval_is_scipys() -> None:
    values = np.random.default_rng(0).beta(2, 1, 300)
    found = interval(values, resamples=20_000)
    theirs = scipy_bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert found is not None
    assert found.mean == pytest.approx(values.mean(), rel=1e-12)
    width = theirs.high - theirs.low
    assert found.low == pytest.approx(theirs.low, abs=width * 0.05)
    assert found.high == pytest.approx(theirs.high, abs=width * 0.05)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(200):
        found = interval(rng.random(60), seed, resamples=400, level=0.9)
        assert found is not None
        covered += found.low <= 0.5 <= found.high
    assert 165 <= covered <= 194  # 180 expected, the ends 3.5 deviations away


def test_undefined_queries_do_not_count() -> None:
    values = np.array([0.25, np.nan, 0.75, np.nan])
    found = interval(values)
    assert found == interval(values[[0, 2]])
    assert found is not None
    assert (found.mean, found.queries) == (0.5, 2)
    assert interval(np.array([np.nan])) is None
    assert interval(values, seed=1) != interval(np.array([0.2, 0.9, 0.1]), seed=1)


def test_pairing_sees_what_two_intervals_cannot() -> None:
    rng = np.random.default_rng(3)
    first = rng.random(200)
    second = first + 0.01 + rng.normal(0, 0.01, 200)
    alone, other = interval(first), interval(second)
    assert alone is not None
    assert other is not None
    assert alone.high > other.low  # they overlap
    found = paired_difference(first, second)
    assert found is not None
    assert 0 < found.interval.low < found.interval.mean < found.interval.high
    assert found.p_value < 0.01
    unpaired = paired_difference(first, rng.permutation(second))
    assert unpaired is not None
    assert unpaired.p_value > 0.05


def test_no_difference_is_no_finding() -> None:
    rng = np.random.default_rng(4)
    first = rng.random(100)
    same = paired_difference(first, first)
    assert same is not None
    assert (same.interval.mean, same.p_value) == (0.0, 1.0)
    small = 0
    for seed in range(100):
        found = paired_difference(first, first + rng.normal(0, 0.1, 100), seed, resamples=400)
        assert found is not None
        small += found.p_value < 0.1
    assert 1 <= small <= 22  # 10 expected under the null hypothesis


def test_by_class_takes_each_class_s_queries() -> None:
    values = np.array([0.0, 1.0, 0.5, np.nan])
    found = by_class(values, [np.array([0, 1]), np.array([1, 2]), np.array([3])])
    assert [i and i.mean for i in found] == [0.5, 0.75, None]


def test_a_bootstrap_says_what_it_wants() -> None:
    values = np.ones(3)
    for act in (lambda: interval(values, resamples=0), lambda: interval(values, level=1.0)):
        with pytest.raises(SchnRayError, match="1 or more"):
            act()
    with pytest.raises(SchnRayError, match="same queries in the same order"):
        paired_difference(values, np.ones(4))
