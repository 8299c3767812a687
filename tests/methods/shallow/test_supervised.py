"""ITQ-CCA, SDH, FSDH, COSDISH, KSH, LFH, SSAH, ISCH: objectives, brute force, all pairs formed."""

import itertools

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from support.shallow_rows import Array, clustered, multi_label, sets_of

from schn_ray.core.errors import SchnRayError
from schn_ray.data.labels import LabelSets
from schn_ray.methods.shallow.cosdish import (
    Cosdish,
    CosdishConfig,
    binary_quadratic,
    column_codes,
    soft_similarity,
    spread_columns,
)
from schn_ray.methods.shallow.draws import row_normals
from schn_ray.methods.shallow.feature_rows import FeatureRows, ShardState, array_rows
from schn_ray.methods.shallow.fit import FeatureFit, ShallowFit, fit_all
from schn_ray.methods.shallow.isch import (
    Isch,
    IschConfig,
    column_medians,
    fitted_encoder,
    label_code,
    unit_dictionary,
)
from schn_ray.methods.shallow.itq import ItqCca, ItqCcaConfig, canonical_directions
from schn_ray.methods.shallow.ksh import Ksh, KshConfig, Residual, Similarity, refine
from schn_ray.methods.shallow.label_algebra import feature_set_sums
from schn_ray.methods.shallow.lfh import Lfh, LfhConfig, logistic, raised, raised_by_sums
from schn_ray.methods.shallow.preparation import moments
from schn_ray.methods.shallow.rotations import procrustes
from schn_ray.methods.shallow.sdh import Fsdh, FsdhConfig, Sdh, SdhConfig, solved_bit_by_bit
from schn_ray.methods.shallow.ssah import Ssah, SsahConfig

PROBLEMS = [clustered(), multi_label(seed=1), multi_label(seed=2)]
MANY = clustered(n=240, d=10, classes=6, seed=5)


def rows_of(X: Array) -> FeatureRows:
    return array_rows(X, shard_rows=17)


def all_of(state: ShardState) -> Array:
    return np.concatenate([state.of_shard[first] for first in sorted(state.of_shard)]).astype(float)


def objectives(method: ShallowFit, X: Array, labels: LabelSets) -> list[float]:
    values, round, done = [], 1, False
    while not done:
        done = method.fit(rows_of(X), labels, round)
        values.append(method.objective)
        round += 1
    return values


def assert_falls(values: list[float]) -> None:
    assert np.diff(values).max() <= 1e-7 * abs(values[0])
    assert values[-1] < values[0]


def features_of(method: FeatureFit, X: Array) -> Array:
    """F of the method, float64."""
    return np.asarray(method._features.take(np.arange(len(X))), float)


# ITQ-CCA


def test_canonical_correlations_are_the_eigenvalues_of_discriminant_analysis() -> None:
    X, Y, labels = MANY
    rows = rows_of(X)
    P, correlation = canonical_directions(moments(rows), feature_set_sums(rows, labels), labels, 0)
    theirs = LinearDiscriminantAnalysis(solver="eigen").fit(X.astype(float), Y.argmax(axis=1))
    squares = correlation**2
    ratio = squares / (1 - squares) / theirs.explained_variance_ratio_[:5]
    assert P.shape == (10, 5), "C - 1 directions"
    assert ratio == pytest.approx(ratio[0], rel=1e-4)


def test_itq_cca_gives_more_bits_than_directions() -> None:
    X, _, labels = MANY
    cca = ItqCca(ItqCcaConfig(), 16)
    losses = objectives(cca, X, labels)
    assert_falls(losses)
    scatter, P = cca.moments.scatter, cca.rotation.P
    variances = P.T @ (scatter + 1e-4 * np.trace(scatter) / 10 * np.eye(10)) @ P
    squares = np.diag(variances)  # of a direction, its squared correlation
    assert variances == pytest.approx(np.diag(squares), abs=1e-9)
    assert squares[0] < 1
    assert np.all(np.diff(squares) < 0)
    assert cca.head.codes(X).shape == (240, 16)


# SDH, FSDH


@pytest.mark.parametrize(("X", "Y", "labels"), PROBLEMS)
@pytest.mark.parametrize("method", ["sdh", "fsdh"])
def test_sdh_lowers_its_objective_and_reports_it(
    X: Array, Y: Array, labels: LabelSets, method: str
) -> None:
    config = {"nu": 0.5, "anchors": 20, "rounds": 6}
    fit = Sdh(SdhConfig(**config), 6) if method == "sdh" else Fsdh(FsdhConfig(**config), 6)
    values = objectives(fit, X, labels)
    # the regression's own ridge is not in the objective, so its step may raise it by that much
    assert np.diff(values).max() <= 0.01 * 0.5 * np.sum(fit.P1**2) + 1e-7
    B, F1 = all_of(fit.B), np.hstack([features_of(fit, X), np.ones((len(X), 1))])
    P = np.linalg.solve(F1.T @ F1 + 0.01 * np.eye(21), F1.T @ B)
    assert pytest.approx(P, abs=1e-5) == fit.P1
    residual = fit.config.nu * np.sum((B - F1 @ P) ** 2)
    # the classifier of the last round is that of the codes before; they hardly change any more
    if method == "sdh":
        W = np.linalg.solve(B.T @ B + np.eye(6), B.T @ Y)
        literal = np.sum((Y - B @ W) ** 2) + np.sum(W**2) + residual
    else:
        W = np.linalg.solve(Y.T @ Y + np.eye(Y.shape[1]), Y.T @ B)
        literal = np.sum((B - Y @ W) ** 2) + np.sum(W**2) + residual
    assert values[-1] == pytest.approx(literal, rel=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_the_last_bit_of_sdh_is_the_best_of_all_columns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, K, C, nu = 8, 4, 3, 0.5
    Y, W = rng.random((n, C)) < 0.4, rng.standard_normal((K, C))
    regressed, B = rng.standard_normal((n, K)), rng.choice([-1.0, 1.0], (n, K))

    def objective(B: Array) -> float:
        return float(np.sum((Y - B @ W) ** 2) + nu * np.sum((B - regressed) ** 2))

    after = solved_bit_by_bit(B, nu * regressed + Y @ W.T, W @ W.T, sweeps=1).astype(float)
    assert objective(after) <= objective(B)
    best = min(
        objective(np.column_stack([after[:, :-1], column]))
        for column in itertools.product([-1.0, 1.0], repeat=n)
    )
    assert objective(after) == pytest.approx(best)
    rest = solved_bit_by_bit(B, nu * regressed + Y @ W.T, W @ W.T, sweeps=50)
    assert np.array_equal(rest, solved_bit_by_bit(rest, nu * regressed + Y @ W.T, W @ W.T, 1))


def test_codes_of_fsdh_without_regression_are_those_of_the_class() -> None:
    X, Y, labels = PROBLEMS[0]
    fit = Fsdh(FsdhConfig(nu=0, anchors=20), 8)
    fit_all(fit, rows_of(X), labels)
    B = all_of(fit.B)
    assert all(len(np.unique(B[Y[:, c] > 0], axis=0)) == 1 for c in range(4))


# COSDISH


@pytest.mark.parametrize("seed", range(30))
def test_the_binary_problem_is_solved_as_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    R = rng.standard_normal((8, 8))
    R, p = R + R.T, rng.standard_normal(8)
    best = max(np.array(z) @ R @ z + 2 * p @ z for z in itertools.product([-1.0, 1.0], repeat=8))
    z = binary_quadratic(R, p, rng)
    assert z @ R @ z + 2 * p @ z == pytest.approx(best)


def test_products_of_columns_by_sets_are_those_of_rows() -> None:
    _, Y, labels = PROBLEMS[1]
    rng = np.random.default_rng(0)
    drawn = spread_columns(labels.sizes, 12, rng)
    T = soft_similarity(labels, drawn)
    O, left = [], labels.set_of_row.tolist()  # noqa: E741 - one row of each drawn set
    for g in drawn:
        O.append(left.index(g))
        left[O[-1]] = -1
    S = Y @ Y[O].T > 0
    assert np.array_equal(T[labels.set_of_row], np.where(S, 1, -(S.sum() / (~S).sum())))
    set_codes = rng.choice([-1.0, 1.0], (len(labels.sizes), 4))
    others = labels.sizes - np.bincount(drawn, minlength=len(labels.sizes))
    Gm = np.setdiff1d(np.arange(len(Y)), O)
    rows_T, B = T[labels.set_of_row], set_codes[labels.set_of_row][Gm]
    codes = column_codes(T, drawn, others, set_codes, np.random.default_rng(1))
    again = np.empty_like(codes)
    solver = np.random.default_rng(1)
    for k in range(4):  # the paper's step, with rows
        R = 4 * rows_T[O] - again[:, :k] @ again[:, :k].T
        p = 4 * rows_T[Gm].T @ B[:, k] - again[:, :k] @ (B[:, :k].T @ B[:, k])
        again[:, k] = binary_quadratic(R, p, solver)
    assert np.array_equal(codes, again)


def test_columns_are_spread_over_the_label_sets() -> None:
    sizes = np.array([50, 30, 20])
    for seed in range(5):
        drawn = spread_columns(sizes, 10, np.random.default_rng(seed))
        assert np.bincount(drawn).tolist() == [5, 3, 2]
    assert np.bincount(spread_columns(sizes, 1000, np.random.default_rng(0))).tolist() == [
        50,
        30,
        20,
    ]


def test_cosdish_gives_each_class_a_code() -> None:
    X, _, labels = MANY
    fit = Cosdish(CosdishConfig(anchors=50), 16)
    codes = fit_all(fit, rows_of(X), labels).codes(X)
    assert len(np.unique(fit.set_codes, axis=0)) == 6
    learned = fit.set_codes[labels.set_of_row]
    assert np.mean(codes == learned) > 0.95


# KSH


@pytest.mark.parametrize(("X", "Y", "labels"), PROBLEMS)
def test_bits_of_ksh_lower_the_loss_of_all_pairs(X: Array, Y: Array, labels: LabelSets) -> None:
    S = np.where(Y @ Y.T > 0, 1, -1)
    K = 6
    fit, spectral = (Ksh(KshConfig(anchors=20, iterations=i), K) for i in (500, 0))
    y = np.random.default_rng(0).standard_normal(len(X))
    before = np.sum((K * S) ** 2)
    for round in range(1, K + 1):
        fit.fit(rows_of(X), labels, round)
        drawn = fit.B[:, :round]
        assert np.allclose(Similarity(labels).times(y), S @ y)
        after = np.sum((K * S - drawn @ drawn.T) ** 2)
        assert (after < before) == (fit.objective > 0.5)
        before = after
    F = np.asarray(fit.kernel(fit.prepared(rows_of(X), 2).take(np.arange(len(X)))), float)
    F -= F.mean(axis=0)
    E = K * S - fit.B @ fit.B.T
    assert pytest.approx(F.T @ E @ F, abs=1e-4) == fit.A
    assert np.array_equal(fit.B, np.where(F @ fit.W >= 0, 1, -1))
    spectral.fit(rows_of(X), labels, 1)
    first = Ksh(KshConfig(anchors=20), K)
    first.fit(rows_of(X), labels, 1)
    assert first.objective >= spectral.objective


def test_a_refining_step_of_ksh_follows_the_gradient() -> None:
    X, _, labels = PROBLEMS[1]
    F, a = X - X.mean(axis=0, dtype=float), np.random.default_rng(0).standard_normal(8) / 4
    residual = Residual(Similarity(labels), np.zeros((60, 0)), 6)

    def of(a: Array) -> float:
        return -residual.quadratic(np.tanh(F @ a / 2))

    slope = np.array([(of(a + e) - of(a - e)) / 2e-5 for e in 1e-5 * np.eye(8)])
    after = refine(F, residual, a, iterations=1)
    ratio = (a - after) / slope
    assert ratio == pytest.approx(ratio[0], rel=1e-4)
    assert np.log2(ratio[0]) == pytest.approx(round(np.log2(ratio[0])), abs=1e-4)
    assert of(refine(F, residual, a, iterations=20)) < of(after) < of(a)


# LFH


def likelihood(U: Array, V: Array, s: Array, beta: float) -> float:
    theta = U @ V.T / 2
    pairs = 2 * np.sum(s * theta - np.logaddexp(0, theta))
    return float(pairs - (np.sum(U * U) + np.sum(V * V)) / (2 * beta))


@pytest.mark.parametrize("seed", range(5))
def test_both_half_steps_of_lfh_raise_the_likelihood(seed: int) -> None:
    rng = np.random.default_rng(seed)
    U, V, s = rng.standard_normal((30, 6)), rng.standard_normal((7, 6)), rng.random((30, 7)) < 0.3
    for beta in (3, 30):
        start = likelihood(U, V, s, beta)
        moved = raised(U, V, s.astype(float), beta)
        middle = likelihood(moved, V, s, beta)
        pull = (s - logistic(moved @ V.T / 2)).T @ moved
        end = likelihood(moved, raised_by_sums(V, pull, moved.T @ moved, beta), s, beta)
        assert start < middle < end


def test_steps_of_lfh_go_to_the_top_of_a_lower_bound() -> None:
    rng = np.random.default_rng(0)
    V, s, beta = rng.standard_normal((7, 4)), (rng.random((1, 7)) < 0.4).astype(float), 3.0
    curvature = V.T @ V / 8 + np.eye(4) / beta

    def of(u: Array) -> float:
        return likelihood(u[None], V, s, beta)

    u = rng.standard_normal(4)
    slope = np.array([(of(u + e) - of(u - e)) / 2e-5 for e in 1e-5 * np.eye(4)])
    step = raised(u[None], V, s, beta)[0] - u
    assert curvature @ step == pytest.approx(slope, abs=1e-6)
    for _ in range(1000):
        move = 3 * rng.standard_normal(4)
        assert of(u + move) >= of(u) + slope @ move - move @ curvature @ move / 2 - 1e-6


def test_a_round_of_lfh_moves_every_row() -> None:
    X, _, labels = PROBLEMS[0]
    fit = Lfh(LfhConfig(anchors=20), 6)
    fit.fit(rows_of(X), labels, 1)
    start = row_normals(0, "U", np.arange(60), 6)
    assert np.abs(all_of(fit.U) - start).max(axis=1).min() > 1e-3


def test_learned_codes_of_lfh_separate_the_classes() -> None:
    X, Y, labels = MANY
    fit = Lfh(LfhConfig(anchors=50), 16)
    codes = fit_all(fit, rows_of(X), labels).codes(X)
    learned = np.where(all_of(fit.U) >= 0, 1, -1)
    same = Y @ Y.T > 0
    assert (learned @ learned.T)[same].min() > (learned @ learned.T)[~same].max()
    assert np.mean(codes == learned) > 0.9


# SSAH


def ssah_literal(fit: Ssah, X: Array, Y: Array) -> float:
    n, K, c = len(X), fit.bits, fit.config
    F = fit._scaled(features_of(fit, X))
    B, V, S01 = all_of(fit.B), all_of(fit.V), Y @ Y.T > 0
    E, T = Y @ fit.W_c, V @ fit.R.T

    def rms(x: Array) -> Array:
        return np.sqrt(np.mean(x * x, axis=0))

    return float(
        np.sum((K * S01 - E @ T.T) ** 2) / n
        + c.l1 * n * np.sum(rms(E - B) ** c.p)
        + c.l2 * (n * np.sum(rms(F - V @ fit.U.T) ** c.p) + c.mu * np.sum((B - T) ** 2))
    )


@pytest.mark.parametrize(("X", "Y", "labels"), PROBLEMS)
@pytest.mark.parametrize("p", [1.0, 2.0])
def test_ssah_reports_its_objective_as_with_all_pairs(
    X: Array, Y: Array, labels: LabelSets, p: float
) -> None:
    fit = Ssah(SsahConfig(anchors=20, p=p), 6)
    for round in (1, 2, 3):
        fit.fit(rows_of(X), labels, round)
        assert fit.objective == pytest.approx(ssah_literal(fit, X, Y), rel=1e-8)


@pytest.mark.parametrize(("X", "Y", "labels"), PROBLEMS)
def test_each_step_of_ssah_but_the_rotation_lowers_the_objective(
    X: Array, Y: Array, labels: LabelSets
) -> None:
    fit = Ssah(SsahConfig(anchors=20, p=2), 6)
    fit.fit(rows_of(X), labels, 1)
    raw = fit.features(rows_of(X), 2)
    Phi, pairs = raw.map(fit._scaled, raw.width), int(np.sum(Y @ Y.T > 0))

    def lowered_by(step: str) -> float:
        before = fit._objective(pairs)
        if step == "W":
            fit._fit_classifier()
        elif step == "U":
            fit.U = procrustes(fit.H[:, None] * fit.PV)
        elif step == "V":
            Phi.each(lambda F, at: fit._embed(F, at, labels))
            fit._sum_embedding(Phi, labels)
        elif step == "R":
            fit._rotate()
        else:
            fit._fit_codes(rows_of(X).without_features(), labels)
        return before - fit._objective(pairs)

    fit._reweight()
    for _ in range(3):
        for step in "WUV":
            assert lowered_by(step) >= -1e-8
        assert lowered_by("R") >= -0.05 * fit.objective
        assert lowered_by("B") >= -1e-8


def test_gradients_of_ssah_vanish_after_its_least_squares_steps() -> None:
    X, Y, labels = PROBLEMS[1]
    fit = Ssah(SsahConfig(anchors=20), 6)
    fit.fit(rows_of(X), labels, 1)
    rng, c, n = np.random.default_rng(0), fit.config, len(X)
    fit.D, fit.H = rng.uniform(0.5, 2, 6), rng.uniform(0.5, 2, 20)
    raw = fit.features(rows_of(X), 2)
    Phi = raw.map(fit._scaled, raw.width)
    F, B, S01 = Phi.take(np.arange(n)), all_of(fit.B), Y @ Y.T > 0

    def weighted(W: Array, V: Array) -> float:
        E, T = Y @ W, V @ fit.R.T
        pairs = np.sum((6 * S01 - E @ T.T) ** 2) / n
        left = c.l1 * np.sum(fit.D * (E - B) ** 2)
        right = np.sum(fit.H * (F - V @ fit.U.T) ** 2) + c.mu * np.sum((B - T) ** 2)
        return float(pairs + left + c.l2 * right)

    def slope(f, at: Array) -> float:  # type: ignore[no-untyped-def]
        step = rng.standard_normal(at.shape)  # f is quadratic, so a large step is exact
        return abs(f(at + step) - f(at - step)) / (f(at + step) + f(at - step) - 2 * f(at))

    V = all_of(fit.V)
    fit._fit_classifier()
    assert slope(lambda W: weighted(W, V), fit.W_c) < 1e-5
    Phi.each(lambda X, at: fit._embed(X, at, labels))
    assert slope(lambda V: weighted(fit.W_c, V), all_of(fit.V)) < 1e-8


# ISCH


def isch_literal(fit: Isch, X: Array, Y: Array) -> float:
    F = fit._scaled(features_of(fit, X))
    B, V, c = all_of(fit.B), all_of(fit.V), fit.config
    return float(
        np.sum((F - V @ fit.dictionary.T) ** 2)
        + c.beta * np.sum((B - V @ fit.Q.T) ** 2)
        + c.gamma * np.sum((F - B @ fit.Z.T) ** 2)
        + c.alpha * np.sum((V - label_code(Y, fit.encoder)) ** 2)
    )


@pytest.mark.parametrize(("X", "Y", "labels"), PROBLEMS)
def test_isch_without_balance_lowers_its_objective(X: Array, Y: Array, labels: LabelSets) -> None:
    fit = Isch(IschConfig(anchors=20, balance=False), 6)
    values = objectives(fit, X, labels)
    assert values[-1] == pytest.approx(isch_literal(fit, X, Y), rel=1e-6)
    ridge = fit.config.alpha * fit.config.eta * sum(np.sum(W**2) for W in fit.encoder)
    assert np.diff(values).max() <= ridge  # which the encoder pays for in its own objective
    assert values[-1] < values[0]


def test_codes_of_isch_are_balanced() -> None:
    for n in (60, 61):
        X, _, labels = clustered(n=n)
        fit = Isch(IschConfig(anchors=20), 6)
        fit_all(fit, rows_of(X), labels)
        assert np.abs(all_of(fit.B).sum(axis=0)).max() == n % 2


def test_medians_by_counting_are_those_of_a_sort() -> None:
    values = np.random.default_rng(0).standard_normal((51, 4)).astype(np.float32)
    values[:, 1] -= 9
    values[:, 2] = np.round(values[:, 2])
    values[:, 3] *= 1e-42  # denormal
    rows, state = rows_of(values), ShardState()
    rows.each(lambda X, at: state.__setitem__(at, X))
    assert np.array_equal(column_medians(rows, state, 4), np.median(values, axis=0))


def test_the_dictionary_is_optimal_in_the_unit_ball() -> None:
    rng = np.random.default_rng(0)
    V, F = rng.standard_normal((50, 4)), rng.standard_normal((50, 9))
    F[:, 2] *= 40
    VV, PV = V.T @ V, F.T @ V * [0.1, 1, 5, 1]
    D = unit_dictionary(VV, PV)
    lengths = np.linalg.norm(D, axis=0)
    assert lengths.max() <= 1 + 1e-12
    gradient = 2 * (D @ VV - PV)
    multipliers = -np.sum(gradient * D, axis=0) / lengths**2
    assert gradient + multipliers * D == pytest.approx(0, abs=1e-5 * np.abs(PV).max())
    assert multipliers.min() >= -1e-9
    assert np.all((lengths > 1 - 1e-9) | (np.abs(multipliers) < 1e-5 * np.abs(PV).max()))


def test_the_encoder_meets_the_means_of_one_label_sets() -> None:
    rng = np.random.default_rng(0)
    start = rng.standard_normal((5, 64)), rng.standard_normal((64, 8)) / 8
    targets, sizes = rng.standard_normal((5, 8)), np.array([100, 200, 50, 80, 70])
    encoder = fitted_encoder(np.eye(5), targets, sizes, start, eta=0.01)
    assert label_code(np.eye(5), encoder) == pytest.approx(targets, abs=1e-2)


# all of them

SUPERVISED = [
    (ItqCca, ItqCcaConfig),
    (Sdh, SdhConfig),
    (Fsdh, FsdhConfig),
    (Cosdish, CosdishConfig),
    (Ksh, KshConfig),
    (Lfh, LfhConfig),
    (Ssah, SsahConfig),
    (Isch, IschConfig),
]


@pytest.mark.parametrize(("method", "config"), SUPERVISED)
@pytest.mark.parametrize(("classes", "message"), [(1, "none are dissimilar"), (60, "none are sim")])
def test_labels_that_teach_nothing_are_refused(
    method: type[ShallowFit], config: type, classes: int, message: str
) -> None:
    X = PROBLEMS[0][0]
    labels = sets_of(np.eye(classes)[np.arange(60) % classes])
    with pytest.raises(SchnRayError, match=message):
        method(config(), 4).fit(rows_of(X), labels, 1)


@pytest.mark.parametrize("method", [Ssah(SsahConfig(), 32), Isch(IschConfig(), 32)])
def test_more_bits_than_dimensions_are_refused(method: FeatureFit) -> None:
    X, _, labels = clustered(n=20)
    with pytest.raises(SchnRayError, match="32 bits, and features that differ in"):
        method.fit(rows_of(X), labels, 1)
