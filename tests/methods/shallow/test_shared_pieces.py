"""Anchors, kernel features, label-set algebra and the regression against their definitions."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from support.shallow_rows import clustered, multi_label

from schn_ray.methods.shallow.anchors import kmeans_anchors, squared_distances, sums_by_group
from schn_ray.methods.shallow.feature_rows import array_rows
from schn_ray.methods.shallow.kernel_features import AnchorGraph, random_kernel
from schn_ray.methods.shallow.label_algebra import (
    class_matrix,
    set_sums,
    shared_rows,
    signed_quadratic,
)
from schn_ray.methods.shallow.preparation import moments
from schn_ray.methods.shallow.ridge import regress


@pytest.mark.parametrize("seed", range(5))
def test_products_by_label_sets_are_those_of_all_pairs(seed: int) -> None:
    P, Y, labels = multi_label(seed=seed)
    assert not Y.any(axis=1).all(), "some rows have no label"
    S01 = (Y @ Y.T > 0).astype(float)
    M = set_sums(labels, np.arange(len(P)), P)
    P = P.astype(np.float64)
    assert signed_quadratic(labels, M) == pytest.approx(P.T @ (2 * S01 - 1) @ P, rel=1e-12)
    assert np.array_equal(shared_rows(labels)[labels.set_of_row], S01 @ Y)
    assert np.array_equal(class_matrix(labels)[labels.set_of_row], Y)


def test_sums_by_group_leave_empty_groups_at_zero() -> None:
    sums = sums_by_group(np.array([2, 0, 2]), 4, np.array([[1.0], [2.0], [3.0]]))
    assert sums.tolist() == [[2], [0], [4], [0]]


def test_distances_and_the_kernel_follow_their_formulas() -> None:
    X, _, _ = clustered()
    rows = array_rows(X, shard_rows=7)
    kernel = random_kernel(rows, 10, seed=1)
    between = ((X[:, None].astype(float) - kernel.anchors) ** 2).sum(axis=2)
    assert squared_distances(X, kernel.anchors) == pytest.approx(between, rel=1e-6, abs=1e-4)
    exact = squared_distances(X.astype(float), kernel.anchors)
    assert exact == pytest.approx(between, abs=1e-10)
    assert kernel.width == pytest.approx(2 * between.mean())
    phi = np.exp(-between / kernel.width)
    assert kernel(X) == pytest.approx(phi, rel=1e-5)
    assert kernel(X.astype(float)) == pytest.approx(phi, rel=1e-7)  # the result is float32
    assert random_kernel(rows, 1000, seed=1).anchors.shape == X.shape, "at most n anchors"


def test_kmeans_lowers_the_distances_and_an_empty_cluster_keeps_its_centre() -> None:
    X, _, _ = clustered(n=200)
    rows = array_rows(X, shard_rows=30)
    inertia = [
        squared_distances(X, kmeans_anchors(rows, 9, 0, rounds)).min(axis=1).sum()
        for rounds in range(6)
    ]
    assert inertia == sorted(inertia, reverse=True)
    assert inertia[5] < inertia[0] - 1
    doubled = np.repeat(X[:4], 5, axis=0)  # 20 centres at 4 points: ties go to the first
    centres = kmeans_anchors(array_rows(doubled), 20, 0)
    assert np.isfinite(centres).all()
    assert squared_distances(centres, doubled).min(axis=1).max() < 1e-5  # float32 rows


def test_the_anchor_graph_has_s_nearest_weights_that_sum_to_one() -> None:
    X, _, _ = clustered()
    far = X * 1e4  # exp would underflow
    for rows in (X, far):
        graph = AnchorGraph(rows[:12].astype(float), 3.0, nearest=4)
        Z = graph(rows)
        assert (Z > 0).sum(axis=1).max() <= 4
        assert Z.sum(axis=1) == pytest.approx(1)
    distances = ((X[:, None] - X[:12].astype(float)) ** 2).sum(axis=2)
    weights = np.exp(-distances / 3.0)
    weights[distances > np.sort(distances, axis=1)[:, 3:4]] = 0
    expected = weights / weights.sum(axis=1, keepdims=True)
    graph = AnchorGraph(X[:12].astype(float), 3.0, 4)
    assert graph(X.astype(float)) == pytest.approx(expected)
    assert graph(X) == pytest.approx(expected, abs=1e-5)


def test_the_regression_is_ridge_with_an_intercept() -> None:
    F, B, _ = clustered()
    theirs = Ridge(alpha=0.7).fit(F.astype(float), B)
    ours = regress(moments(array_rows(F)), F.astype(float).T @ B, B.sum(axis=0), 0.7)
    assert pytest.approx(theirs.coef_.T) == ours.W
    assert -ours.t == pytest.approx(theirs.intercept_)
