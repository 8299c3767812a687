"""LSH, PCA, RaBitQ's bits, SH, ITQ, AGH, SGH and OCB against definitions and brute force."""

import numpy as np
import pytest
from scipy.stats import ortho_group
from support.shallow_rows import clustered

from schn_ray.core.errors import SchnRayError
from schn_ray.methods.shallow.agh import Agh, AghConfig, graph_eigenvectors, second_layer
from schn_ray.methods.shallow.feature_rows import array_rows
from schn_ray.methods.shallow.fit import fit_all
from schn_ray.methods.shallow.itq import Itq, ItqConfig
from schn_ray.methods.shallow.kernel_features import AnchorGraph
from schn_ray.methods.shallow.lsh import Lsh, LshConfig
from schn_ray.methods.shallow.ocb import (
    Ocb,
    OcbConfig,
    descended,
    ordinal_gradient,
    ordinal_loss,
)
from schn_ray.methods.shallow.pca_rotation import PcaRotation, PcaRotationConfig
from schn_ray.methods.shallow.preparation import prepared_rows
from schn_ray.methods.shallow.rabitq import Rabitq, RabitqConfig
from schn_ray.methods.shallow.rotations import (
    prepare_features,
    principal_directions,
    random_rotation,
)
from schn_ray.methods.shallow.sgh import Sgh, SghConfig, similarity_features
from schn_ray.methods.shallow.sh import Sh, ShConfig, lowest_frequencies

X, _, _ = clustered(n=200, d=12)
ROWS = array_rows(X, shard_rows=33)


def test_a_bit_of_lsh_differs_with_probability_angle_over_pi() -> None:
    pair = np.array([[1.0, 0.2, 0.0], [0.3, 1.0, 0.5], [-1.3, -1.2, -0.5]], np.float32)  # mean 0
    codes = fit_all(Lsh(LshConfig(), 20_000), array_rows(pair)).codes(pair)
    a, b = pair[:2]
    angle = np.arccos(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert np.mean(codes[0] != codes[1]) == pytest.approx(angle / np.pi, abs=0.01)


def test_codes_of_lsh_do_not_change_with_the_scale() -> None:
    one, other = (fit_all(Lsh(LshConfig(unit=False), 64), array_rows(f * X)) for f in (1, 8))
    assert np.array_equal(one.codes(X), other.codes(8 * X))


def test_pca_rotation_spreads_the_variance_over_orthogonal_bits() -> None:
    head = fit_all(PcaRotation(PcaRotationConfig(unit=False), 5), ROWS)
    assert pytest.approx(np.eye(5)) == head.W.T @ head.W
    assert head(X).mean(axis=0) == pytest.approx(0, abs=1e-6)
    _, singular, _ = np.linalg.svd(X - X.mean(axis=0, dtype=float), full_matrices=False)
    assert np.sum(head(X) ** 2) == pytest.approx(np.sum(singular[:5] ** 2))


@pytest.mark.parametrize("bits", [5, 12, 40])
def test_rabitq_rotates_all_dimensions(bits: int) -> None:
    W = fit_all(Rabitq(RabitqConfig(), bits), ROWS).W
    assert W.shape == (12, bits)
    assert (W.T @ W if bits < 12 else W @ W.T) == pytest.approx(np.eye(min(bits, 12)), abs=1e-12)


def test_the_bits_of_sh_are_those_of_the_product_over_all_axes() -> None:
    bits = 24
    head = fit_all(Sh(ShConfig(), bits), ROWS)
    V = prepare_features(X, head.mean)
    mean = V.mean(axis=0)
    P = principal_directions((V - mean).T @ (V - mean), bits).P
    V = (V - mean) @ P
    low, ranges = V.min(axis=0), np.ptp(V, axis=0)
    # as the authors' code: a table of modes, and the bits with the lowest sums of squares
    most = np.ceil((bits + 1) * ranges / ranges.max()).astype(int)
    modes = np.zeros((np.sum(most - 1) + 1, len(ranges)))
    row = 0
    for j, many in enumerate(most):
        modes[row + 1 : row + many, j] = np.arange(1, many)
        row += many - 1
    omegas = modes * np.pi / ranges
    lowest = np.argsort(np.sum(omegas**2, axis=1), kind="stable")[1 : bits + 1]
    waves = np.sin((V - low)[:, None, :] * omegas[lowest] + np.pi / 2).prod(axis=2)
    clear = np.abs(waves) > 1e-9
    assert np.array_equal(head.codes(X)[clear], np.where(waves >= 0, 1, -1)[clear])
    assert clear.mean() > 0.99


def test_the_lowest_frequencies_are_the_lowest_of_all() -> None:
    ranges = np.array([3.0, 1e-12, 1.0, 3.0])
    axis, omega = lowest_frequencies(ranges, 9)
    every = sorted((q * np.pi / w, j) for j, w in enumerate(ranges) for q in range(1, 99))
    assert omega == pytest.approx([wave for wave, _ in every[:9]])
    assert axis.tolist() == [j for _, j in every[:9]]
    axis, omega = lowest_frequencies(np.array([3.0, 0.1]), 9)  # one axis has enough of its own
    assert axis.tolist() == [0] * 9
    assert omega == pytest.approx(np.arange(1, 10) * np.pi / 3)


def test_itq_lowers_the_loss_at_every_half_step_and_ends_at_a_fixed_point() -> None:
    for bits in (1, 6, 20):  # one bit; fewer and more bits than dimensions
        itq, losses = Itq(ItqConfig(rounds=200), bits), []
        round, done = 1, False
        while not done:
            before = itq.rotation.R.copy() if round > 1 else None
            done = itq.fit(ROWS, None, round)
            head, round = itq.head, round + 1
            losses.append(itq.objective)
            V = (prepare_features(X, head.mean) - itq.rotation.mean) @ itq.rotation.P
            if before is not None and not done:
                B = np.where(V @ before >= 0, 1, -1)
                literal = np.sum((B - V @ before) ** 2), np.sum((B - V @ itq.rotation.R) ** 2)
                assert literal[1] <= literal[0] + 1e-6
                assert losses[-1] == pytest.approx(literal[1], rel=1e-5)
                assert literal[0] <= losses[-2] + 1e-4
        assert round < 200, "the codes come to rest"
        assert pytest.approx(np.eye(min(bits, 12)), abs=1e-9) == itq.rotation.R @ itq.rotation.R.T


def test_codes_of_itq_do_not_change_when_the_features_are_rotated() -> None:
    O = ortho_group.rvs(12, random_state=0)  # noqa: E741
    turned = (X @ O).astype(np.float32)
    one = Itq(ItqConfig(rounds=20), 6)
    codes = fit_all(one, ROWS).codes(X)
    other = Itq(ItqConfig(rounds=20), 6)
    other.fit(array_rows(turned, shard_rows=33), None, 1)
    flips = np.sign(
        np.sum((O @ other.rotation.P) * one.rotation.P, axis=0)
    )  # signs of eigenvectors
    if not np.all(flips == 1):
        other.rotation.P = other.rotation.P * flips
    other.rotation.R = random_rotation(6, 6, 0)
    other.rotation.products = other.rotation._V = None
    for round in range(2, 22):
        other.fit(array_rows(turned, shard_rows=33), None, round)
    assert np.mean(codes != other.head.codes(turned)) < 0.002  # float32 of the turned rows


def anchor_graph(rows: int = 120) -> tuple[AnchorGraph, np.ndarray, np.ndarray]:
    part = X[:rows].astype(np.float64)
    graph = AnchorGraph(part[:25], 8.0, 4)
    Z = graph(part)
    assert (Z.sum(axis=0) > 0).all()
    return graph, part, Z


def test_agh_has_eigenvectors_of_the_graph() -> None:
    _, part, Z = anchor_graph()
    masses, n = Z.sum(axis=0), len(part)
    W = graph_eigenvectors(masses, Z.T @ Z, n, 6)
    Y = Z @ W
    assert pytest.approx(n * np.eye(6), abs=1e-9) == Y.T @ Y
    assert Y.sum(axis=0) == pytest.approx(0, abs=1e-9)
    graph = Z @ np.diag(1 / masses) @ Z.T
    mu = np.sort(np.linalg.eigvalsh(graph))[::-1]
    mu = mu[mu < 1 - 1e-3][:6]  # the first are those of its connected parts
    assert graph @ Y == pytest.approx(Y * mu, abs=1e-9)


def test_the_second_layer_has_the_least_cut_by_brute_force() -> None:
    graph, part, Z = anchor_graph()
    masses, n = Z.sum(axis=0), len(part)
    W = graph_eigenvectors(masses, Z.T @ Z, n, 4)
    thresholds = second_layer(array_rows(part, shard_rows=17), graph, W, masses)
    laplacian = np.eye(n) - Z @ np.diag(1 / masses) @ Z.T
    for k in range(4):
        y = Z @ W[:, k]
        plus = y > 0
        above = thresholds[0, k], thresholds[1, k]

        def second(a: float, b: float, y: np.ndarray = y, plus: np.ndarray = plus) -> np.ndarray:
            return np.where(plus, y - a, -y - b)

        assert second(*above).sum() == pytest.approx(0, abs=1e-8)  # balance
        # along the line of balanced pairs, the cut is least at the thresholds
        n1 = plus.sum()
        cuts = []
        for move in np.linspace(-0.1, 0.1, 21):
            v = second(above[0] + move, above[1] - move * n1 / (n - n1))
            assert v.sum() == pytest.approx(0, abs=1e-8)
            cuts.append(v @ laplacian @ v)
        assert np.argmin(cuts) == 10


def test_agh_of_two_layers_cuts_to_odd_bits_and_one_layer_is_its_first_half() -> None:
    config = {"anchors": 40, "nearest": 4}
    two = fit_all(Agh(AghConfig(**config), 7), ROWS)
    one = fit_all(Agh(AghConfig(layers=1, **config), 4), ROWS)
    assert two.codes(X).shape == (200, 7)
    assert np.array_equal(two.codes(X)[:, :4], one.codes(X))


def test_agh_refuses_more_bits_than_the_graph_has_eigenvectors() -> None:
    with pytest.raises(SchnRayError, match="32 are needed; expected 34 anchors or more"):
        fit_all(Agh(AghConfig(layers=1), 32), array_rows(X[:20]))


def test_features_of_sgh_have_the_products_of_its_similarity() -> None:
    x = prepare_features(X[:40].astype(float), X.mean(axis=0))
    p = similarity_features(x)
    f = np.exp(-np.sum(x * x, axis=1) / 2)
    chord = np.sinh(1) * 2 * (x @ x.T) / 2 + np.cosh(1)
    assert p @ p.T - 1 == pytest.approx(2 * np.outer(f, f) * chord - 1, abs=1e-12)


def test_sgh_starts_from_the_products_of_all_pairs_and_takes_each_bit_out_once() -> None:
    bits = 6
    sgh = Sgh(SghConfig(anchors=30), bits)
    x = prepared_rows(ROWS, X.mean(axis=0, dtype=np.float64))
    fit_all(sgh, ROWS)
    Phi = sgh.kernel(x.take(np.arange(200))).astype(np.float64)
    Phi -= Phi.mean(axis=0)
    p = similarity_features(x.take(np.arange(200)))
    start = bits * Phi.T @ (p @ p.T - 1) @ Phi
    B = sgh.head.codes(X)
    v = Phi.T @ B
    assert sgh.v == pytest.approx(v, abs=1e-4)
    assert pytest.approx(start - v @ v.T, abs=1e-3) == sgh.A
    # on unit rows, A is proportional to (Phi^T X)(Phi^T X)^T
    linear = (Phi.T @ x.take(np.arange(200))) @ (Phi.T @ x.take(np.arange(200))).T
    ratio = start[np.abs(linear) > 1e-3] / linear[np.abs(linear) > 1e-3]
    assert ratio == pytest.approx(ratio[0], rel=1e-6)


def ocb_problem() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((20, 5))
    distances = ((centres[:, None] - centres) ** 2).sum(axis=2)
    return random_rotation(5, 8, 0), centres, distances


def test_the_loss_of_ocb_is_the_mean_over_triples_and_its_gradient_is_right() -> None:
    R, c, distances = ocb_problem()
    batch, tau = np.array([3, 11, 12]), 0.5
    T = np.tanh(c @ R) @ np.tanh(c @ R).T
    literal = [
        1 / (1 + np.exp(-(T[r, i] - T[r, j]) / tau))
        for r in batch
        for i in range(20)
        for j in range(20)
        if r not in (i, j) and distances[r, i] > distances[r, j]
    ]
    assert ordinal_loss(R, c, distances, batch, tau) == pytest.approx(np.mean(literal))
    step = np.random.default_rng(1).standard_normal(R.shape) * 1e-6
    numeric = ordinal_loss(R + step, c, distances, batch, tau) - ordinal_loss(
        R - step, c, distances, batch, tau
    )
    analytic = 2 * np.sum(ordinal_gradient(R, c, distances, batch, tau) * step)
    assert numeric == pytest.approx(analytic, rel=1e-5)


def test_ocb_lowers_the_loss_of_each_batch_and_keeps_orthonormal_rows() -> None:
    R, c, distances = ocb_problem()
    step = 1.0
    for start in (0, 10, 0, 10):
        batch = np.arange(start, start + 10)
        before = ordinal_loss(R, c, distances, batch, 0.5)
        R, step = descended(R, c, distances, batch, 0.5, step)
        assert ordinal_loss(R, c, distances, batch, 0.5) < before
        assert pytest.approx(np.eye(5), abs=1e-9) == R @ R.T


def test_ocb_improves_on_its_start() -> None:
    ocb = Ocb(OcbConfig(centres=40, rounds=3), 6)
    ocb.fit(ROWS, None, 1)
    every, start = np.arange(40), random_rotation(6, 6, 0)
    at_start = ordinal_loss(start, ocb.centres, ocb.distances, every, 6 / 16)
    assert ocb.objective < at_start
    assert fit_all(ocb, ROWS).codes(X).shape == (200, 6)
