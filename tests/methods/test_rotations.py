"""Projections and rotations against their definitions, by brute force on tiny problems."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schn_ray.core.errors import SchnRayError
from schn_ray.methods.shallow.rotations import (
    Floats,
    prepare_features,
    principal_directions,
    procrustes,
    quantisation_loss,
    random_projection,
    random_rotation,
    scatter,
    sign_products,
)


def centred(rows: int, width: int, seed: int) -> Floats:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(rows, width)) * np.linspace(3, 0.5, width)
    return X - X.mean(axis=0)


class Turned:
    """ITQ on rows V: B = sign(V R), R = procrustes(V^T B); ``halves``: the loss after each step."""

    def __init__(self, V: Floats, bits: int, seed: int = 0, rounds: int = 50) -> None:
        energy = float(np.sum(V**2))
        self.R = random_rotation(V.shape[1], bits, seed)
        self.halves: list[float] = []
        for _ in range(rounds):
            products = sign_products(V, self.R)
            self.halves.append(quantisation_loss(len(V), energy, products, self.R))
            self.R = procrustes(products)
            self.halves.append(quantisation_loss(len(V), energy, products, self.R))


def test_prepared_rows_are_centred_and_of_length_one() -> None:
    rows = np.array([[1, 2], [4, 6], [1, 2.5]], np.float32)
    mean = np.array([1.0, 2.0])
    np.testing.assert_allclose(prepare_features(rows, mean), [[0, 0], [0.6, 0.8], [0, 1]])
    np.testing.assert_allclose(prepare_features(rows, mean, unit=False), [[0, 0], [3, 4], [0, 0.5]])


def test_a_bit_of_lsh_differs_as_often_as_the_angle_says() -> None:
    pair = np.array([[1.0, 0, 0], [0.3, 0.9, -0.2]])
    cosine = pair[1, 0] / np.linalg.norm(pair[1])
    positive = pair @ random_projection(3, 20_000, seed=0) >= 0
    differ = np.mean(positive[0] != positive[1])
    assert differ == pytest.approx(np.arccos(cosine) / np.pi, abs=0.01)
    scaled = 7 * pair @ random_projection(3, 20_000, seed=0) >= 0
    np.testing.assert_array_equal(positive, scaled)
    assert not np.array_equal(random_projection(3, 4, 0), random_projection(3, 4, 1))


@pytest.mark.parametrize(("rank", "bits"), [(1, 1), (4, 4), (3, 8)])
def test_a_random_rotation_has_orthonormal_rows(rank: int, bits: int) -> None:
    R = random_rotation(rank, bits, seed=3)
    assert R.shape == (rank, bits)
    np.testing.assert_allclose(R @ R.T, np.eye(rank), atol=1e-12)


def test_a_random_rotation_prefers_no_direction() -> None:
    drawn = np.array([random_rotation(2, 2, seed) for seed in range(2_000)])
    np.testing.assert_allclose(drawn.mean(axis=0), 0, atol=0.06)  # 1 if QR's own signs stayed
    np.testing.assert_allclose((drawn**2).mean(axis=0), 0.5, atol=0.04)


def test_sums_of_shards_give_the_scatter() -> None:
    X = np.random.default_rng(0).normal(3, 1, (50, 6))
    total, products = X.sum(axis=0), X.T @ X
    expected = (X - X.mean(axis=0)).T @ (X - X.mean(axis=0))
    np.testing.assert_allclose(scatter(50, total, products), expected, atol=1e-9)


def test_principal_directions_are_those_of_the_singular_values() -> None:
    V = centred(60, 8, 0)
    known = principal_directions(V.T @ V, 5)
    _, s, right = np.linalg.svd(V, full_matrices=False)
    np.testing.assert_allclose(known.energy, s[:5] ** 2, rtol=1e-9)
    np.testing.assert_allclose(np.abs(np.sum(known.P * right[:5].T, axis=0)), 1, atol=1e-9)
    largest = np.abs(known.P).argmax(axis=0)
    assert np.all(known.P[largest, range(5)] > 0)
    assert np.sum((V @ known.P) ** 2) == pytest.approx(known.energy.sum())


def test_there_are_no_more_directions_than_the_rank() -> None:
    V = centred(60, 3, 1) @ np.random.default_rng(2).normal(size=(3, 8))
    assert principal_directions(V.T @ V, 5).P.shape == (8, 3)
    with pytest.raises(SchnRayError, match="equal"):
        principal_directions(np.zeros((4, 4)), 2)


@pytest.mark.parametrize("seed", range(10))
def test_procrustes_is_the_best_rotation_of_the_plane(seed: int) -> None:
    M = np.random.default_rng(seed).normal(size=(2, 2))
    angles = np.linspace(0, 2 * np.pi, 20_001)
    cos, sin = np.cos(angles), np.sin(angles)
    turned = cos * (M[0, 0] + M[1, 1]) + sin * (M[1, 0] - M[0, 1])
    mirrored = cos * (M[0, 0] - M[1, 1]) + sin * (M[1, 0] + M[0, 1])
    best = max(turned.max(), mirrored.max())
    R = procrustes(M)
    np.testing.assert_allclose(R @ R.T, np.eye(2), atol=1e-12)
    assert np.sum(R * M) == pytest.approx(best, rel=1e-6)


def test_a_wide_procrustes_beats_random_orthonormal_rows() -> None:
    M = np.random.default_rng(0).normal(size=(2, 5))
    R = procrustes(M)
    np.testing.assert_allclose(R @ R.T, np.eye(2), atol=1e-12)
    others = max(float(np.sum(random_rotation(2, 5, seed) * M)) for seed in range(2_000))
    assert others < np.sum(R * M) == pytest.approx(np.linalg.svd(M, compute_uv=False).sum())


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9))
def test_the_loss_falls_at_every_half_step(seed: int, rank: int, bits: int) -> None:
    rank = min(rank, bits)
    V = centred(40, rank, seed)
    result = Turned(V, bits, seed)
    halves = result.halves
    assert all(b <= a + 1e-9 * a for a, b in itertools.pairwise(halves))
    np.testing.assert_allclose(result.R @ result.R.T, np.eye(rank), atol=1e-9)
    B = np.where(V @ result.R >= 0, 1.0, -1.0)
    direct = float(np.sum((B - V @ result.R) ** 2))
    from_sums = quantisation_loss(len(V), float(np.sum(V**2)), V.T @ B, result.R)
    assert from_sums == pytest.approx(direct, rel=1e-9)
    assert direct <= halves[-1] + 1e-9 * direct


def test_it_ends_at_a_fixed_point() -> None:
    V = centred(30, 3, 0)
    R = Turned(V, 3, rounds=200).R
    np.testing.assert_allclose(procrustes(sign_products(V, R)), R, atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_many_starts_is_the_best_of_all_codes(seed: int) -> None:
    """Five rows of the plane have 2^10 codes: try every one, with its own best rotation."""
    V = centred(5, 2, seed)
    energy = float(np.sum(V**2))
    best = np.inf
    for bits in itertools.product([-1.0, 1.0], repeat=10):
        products = V.T @ np.array(bits).reshape(5, 2)
        best = min(best, quantisation_loss(5, energy, products, procrustes(products)))
    ours = min(Turned(V, 2, start).halves[-1] for start in range(40))
    assert ours == pytest.approx(best, rel=1e-9)


def test_one_bit_is_the_sign_of_the_first_direction() -> None:
    V = centred(20, 1, 0)
    assert abs(Turned(V, 1).R[0, 0]) == pytest.approx(1)


def test_turned_features_have_the_same_codes() -> None:
    X = centred(80, 6, 0)
    turn = random_rotation(6, 6, seed=9)
    codes = []
    for rows, basis in ((X, np.eye(6)), (X @ turn, turn)):
        P = principal_directions(rows.T @ rows, 4).P
        # the sign rule depends on the basis: take the same signs in both
        P = P * np.where((basis @ P)[0] >= 0, 1, -1)
        R = Turned(rows @ P, 4).R
        codes.append(rows @ P @ R >= 0)
    np.testing.assert_array_equal(*codes)


def test_products_of_shards_add_up() -> None:
    V, R = centred(50, 4, 0), random_rotation(4, 4, 1)
    parts = sum(sign_products(part, R) for part in (V[:7], V[7:30], V[30:]))
    np.testing.assert_allclose(parts, sign_products(V, R), atol=1e-10)


def test_a_row_of_zeros_has_the_bits_of_plus_one() -> None:
    np.testing.assert_array_equal(sign_products(np.zeros((1, 2)), np.eye(2)), np.zeros((2, 2)))
    V = np.array([[0.0, 2.0]])
    np.testing.assert_array_equal(sign_products(V, np.eye(2)), [[0, 0], [2, 2]])
