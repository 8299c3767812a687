from pathlib import Path

import numpy as np
import pytest
from support.gloo import run_on_workers
from support.shallow_rows import on_threads

from schn_ray.core.errors import SchnRayError
from schn_ray.core.workers import Workers
from schn_ray.methods.shallow.draws import chosen_rows, row_normals, row_signs
from schn_ray.methods.shallow.feature_rows import FeatureRows, ShardState, array_rows
from schn_ray.methods.shallow.preparation import (
    mean_of_rows,
    moments,
    prepared_rows,
    principal_axes,
)
from schn_ray.methods.shallow.rotations import principal_directions

X = np.random.default_rng(0).standard_normal((53, 4)).astype(np.float32)


def sums(rows: FeatureRows) -> list[str]:
    totals = rows.sum(lambda X, at: (X.astype(float).T @ np.exp(X), at.sum(), np.zeros((0, 3))))
    return [total.tobytes().hex() for total in totals]


@pytest.mark.parametrize("workers", [1, 2, 3, 11])  # 11: more workers than shards in a wave
def test_a_sum_has_the_same_bits_on_any_number_of_workers(workers: int) -> None:
    expected = sums(array_rows(X, shard_rows=6))
    assert on_threads(workers, X, 6, sums) == [expected] * workers


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sum_has_the_same_bits_with_any_number_of_threads(workers: int) -> None:
    def threaded(rows: FeatureRows) -> list[str]:
        rows.threads = 3
        state = ShardState()
        doubled = rows.map(lambda X: X * 2, 4, retain=True)
        doubled.each(lambda X, at: state.__setitem__(at, X))
        halves = doubled.without_features().gather(lambda _, at: state[at] / 2)
        assert np.array_equal(halves, X)
        return sums(rows)

    expected = sums(array_rows(X, shard_rows=6))
    assert on_threads(workers, X, 6, threaded) == [expected] * workers


def gathered_and_summed(workers: Workers) -> tuple[list[str], list[float]]:
    rows = FeatureRows(lambda at: X[at], len(X), 4, workers=workers, shard_rows=6)
    return sums(rows), rows.gather(lambda X, _: X[:, 0]).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("workers", [2, 3])
def test_processes_sum_and_gather_as_one_does(tmp_path: Path, workers: int) -> None:
    expected = sums(array_rows(X, shard_rows=6)), X[:, 0].tolist()
    assert run_on_workers(gathered_and_summed, tmp_path / "run", workers) == [expected] * workers


def test_sums_are_right_and_reduce_takes_other_ufuncs() -> None:
    rows = array_rows(X, shard_rows=6)
    low, high, total = rows.reduce(
        lambda X, _: (X.min(axis=0), X.max(axis=0), X.sum(axis=0)), np.minimum, np.maximum
    )
    assert np.array_equal(low, X.min(axis=0))
    assert np.array_equal(high, X.max(axis=0))
    assert total == pytest.approx(X.sum(axis=0), rel=1e-5)


def test_the_shards_do_not_depend_on_where_rows_lie() -> None:
    """Fifty files or one: rows are read by number, and shards follow from n and d alone."""
    files = np.array_split(X, 50)
    starts = np.cumsum([0, *map(len, files)])

    def read(numbers: np.ndarray) -> np.ndarray:
        file = np.searchsorted(starts, numbers, side="right") - 1
        return np.stack([files[f][i - starts[f]] for f, i in zip(file, numbers, strict=True)])

    assert sums(FeatureRows(read, len(X), 4, shard_rows=6)) == sums(array_rows(X, shard_rows=6))


@pytest.mark.parametrize("workers", [1, 3])
def test_state_stays_with_its_shard_and_a_few_rows_are_picked(workers: int) -> None:
    chosen = np.array([0, 5, 6, 52])

    def run(rows: FeatureRows) -> tuple[np.ndarray, np.ndarray, int]:
        state = ShardState()
        rows.each(lambda X, at: state.__setitem__(at, X * 2))
        table = rows.without_features().gather(lambda _, at: state[at])
        return state.pick(rows, chosen, 4), table, len(state.of_shard)

    results = on_threads(workers, X, 6, run)
    assert sum(shards for _, _, shards in results) == 9
    for picked, table, _ in results:
        assert np.array_equal(picked, X[chosen] * 2)
        assert np.array_equal(table, X * 2)


def test_retained_features_are_computed_once_and_change_nothing() -> None:
    calls = []

    def double(X: np.ndarray) -> np.ndarray:
        calls.append(len(X))
        return X * 2

    rows = array_rows(X, shard_rows=6)
    retained, computed = rows.map(double, 4, retain=True), rows.map(double, 4)
    first = sums(retained)
    assert first == sums(retained) == sums(computed)
    assert len(calls) == 9 + 9
    assert np.array_equal(retained.take(np.array([3, 20])), X[[3, 20]] * 2)
    rows.memory = 8
    unretained = rows.map(double, 4, retain=True)
    assert sums(unretained) == sums(unretained) == first
    assert len(calls) == 18 + 1 + 18


def test_draws_of_a_row_are_the_same_in_any_shard() -> None:
    whole, part = np.arange(50), np.arange(17, 31)
    for draw in (row_signs, row_normals):
        assert np.array_equal(draw(3, "U", whole, 70)[part], draw(3, "U", part, 70))
        assert not np.array_equal(draw(3, "U", whole, 70), draw(3, "V", whole, 70))
    signs, normals = row_signs(0, "B", np.arange(4000), 9), row_normals(0, "B", np.arange(4000), 9)
    assert set(np.unique(signs)) == {-1, 1}
    assert np.abs(signs.mean(axis=0)).max() < 0.07
    assert normals.std() == pytest.approx(1, abs=0.02)
    assert abs(np.corrcoef(normals.T) - np.eye(9)).max() < 0.07


def test_chosen_rows_are_different_and_at_most_all() -> None:
    assert chosen_rows(0, "anchors", 5, 9).tolist() == [0, 1, 2, 3, 4]
    assert len(np.unique(chosen_rows(0, "anchors", 10**9, 1000))) == 1000


def test_the_mean_refuses_what_cannot_be_hashed() -> None:
    bad = X.copy()
    bad[17, 2], bad[40, 1] = np.inf, np.nan
    with pytest.raises(SchnRayError, match="row 17 has a feature"):
        mean_of_rows(array_rows(bad, shard_rows=6))
    with pytest.raises(SchnRayError, match="all 9 rows of features are equal"):
        mean_of_rows(array_rows(np.ones((9, 3), np.float32)))


@pytest.mark.parametrize(("dtype", "apart"), [(np.float64, 1e-12), (np.float32, 1e-6)])
def test_moments_are_those_of_prepared_rows(dtype: type, apart: float) -> None:
    rows = array_rows(X.astype(dtype), shard_rows=6)
    mean = mean_of_rows(rows)
    assert mean == pytest.approx(X.mean(axis=0, dtype=float), abs=1e-12)
    unit = X - mean
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    scatter = (unit - unit.mean(0)).T @ (unit - unit.mean(0))
    prepared = prepared_rows(rows, mean)
    axes, P = principal_axes(prepared, 2)
    for measured in (moments(prepared), axes):
        assert measured.scatter == pytest.approx(scatter, abs=50 * apart)
        assert measured.mean == pytest.approx(unit.mean(axis=0), abs=apart)
    energy = np.linalg.eigvalsh(scatter)[::-1][:2]
    assert P.T @ scatter @ P == pytest.approx(np.diag(energy), abs=50 * apart)


def test_rows_in_float32_have_no_more_axes_than_dimensions() -> None:
    """Rounding of float32 is no direction; in float64 it would be one at 1e-10 of the first."""
    rng = np.random.default_rng(0)
    flat = rng.standard_normal((3000, 5)) @ rng.standard_normal((5, 40)) + 3
    rows = array_rows(flat.astype(np.float32))
    prepared = prepared_rows(rows, mean_of_rows(rows))
    first, P = principal_axes(prepared, 16)
    assert P.shape == (40, 5)
    assert principal_directions(first.scatter, 16).P.shape[1] > 5
