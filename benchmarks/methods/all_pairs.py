"""KSH, SDH and COSDISH against literal versions: the same codes, and how much longer those take.

    OMP_NUM_THREADS=1 python -m benchmarks.methods.all_pairs --rows 5000 --iterations 20

The literal ones follow the papers row by row on arrays in memory. KSH and COSDISH form the
similarity of all pairs [n, n]; SDH has none in the paper, so its literal form only knows no label
sets and no shards. Both sides draw the same anchors, columns and first codes. Rows lie around ten
centres, a class each. CPU seconds of one core.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_array

from schn_ray.data.labels import LabelSets, label_sets
from schn_ray.methods.shallow.cosdish import (
    Cosdish,
    CosdishConfig,
    binary_quadratic,
    spread_columns,
)
from schn_ray.methods.shallow.draws import generator, row_signs
from schn_ray.methods.shallow.feature_rows import Array, array_rows
from schn_ray.methods.shallow.fit import ShallowFit, fit_all
from schn_ray.methods.shallow.kernel_features import random_kernel
from schn_ray.methods.shallow.ksh import Ksh, KshConfig, refine
from schn_ray.methods.shallow.preparation import mean_of_rows, prepared_rows
from schn_ray.methods.shallow.sdh import Sdh, SdhConfig
from schn_ray.methods.shallow.sgh import top_eigenvector


class Problem(NamedTuple):
    """Features X [n, d], labels Y [n, C] of 0 and 1, and the same labels as sets."""

    X: Array
    Y: Array
    labels: LabelSets


def drawn_problem(rows: int, classes: int = 10, width: int = 64) -> Problem:
    """Draw rows around the centres of classes."""
    rng = np.random.default_rng(0)
    Y = np.eye(classes)[rng.integers(0, classes, rows)]
    X = Y @ rng.standard_normal((classes, width)) + rng.standard_normal((rows, width))
    return Problem(X.astype(np.float32), Y, label_sets(csr_array(Y.astype(np.uint8))))


def kernel_matrix(X: Array, anchors: int, seed: int) -> Array:
    """Return Phi [n, m]."""
    rows = array_rows(X)
    prepared = prepared_rows(rows, mean_of_rows(rows))
    return random_kernel(prepared, anchors, seed)(prepared.take(np.arange(len(X)))).astype(float)


def ridge_solve(A: Array, B: Array, ridge: float) -> Array:
    """Return (A + ridge I)^-1 B."""
    return np.linalg.solve(A + ridge * np.eye(len(A)), B)


class Pairs:
    """The residual E [n, n] of KSH, formed."""

    def __init__(self, E: Array) -> None:
        self.E = E

    def times(self, y: Array) -> Array:
        """Return E y."""
        return self.E @ y


def literal_ksh(problem: Problem, config: KshConfig, bits: int) -> Array:
    """Return B [n, K] = sign(F W), bits one by one on E = K S - B B^T."""
    F = kernel_matrix(problem.X, config.anchors, 0)
    F -= F.mean(axis=0)
    n, FF = len(F), F.T @ F
    residual = Pairs(bits * np.where(problem.Y @ problem.Y.T > 0, 1.0, -1.0))
    regular = FF + 1e-9 * np.trace(FF) / len(FF) * np.eye(len(FF))
    B = np.empty((n, bits))
    for k in range(bits):
        a = top_eigenvector(F.T @ residual.E @ F, regular)
        a *= np.sqrt(n / (a @ FF @ a))
        refined = refine(F, residual, a, config.iterations)  # type: ignore[arg-type]
        signs = [np.where(F @ w >= 0, 1.0, -1.0) for w in (a, refined)]
        B[:, k] = max(signs, key=lambda b: b @ residual.times(b))
        residual.E -= np.outer(B[:, k], B[:, k])
    return B


def literal_sdh(problem: Problem, config: SdhConfig, bits: int) -> Array:
    """Return B [n, K] after T rounds of classifier, codes bit by bit, and regression."""
    Phi, Y = kernel_matrix(problem.X, config.anchors, 0), problem.Y
    Phi1 = np.hstack([Phi, np.ones((len(Phi), 1))])
    B = row_signs(0, "codes", np.arange(len(Phi)), bits).astype(float)
    for _ in range(config.rounds):
        P = ridge_solve(Phi1.T @ Phi1, Phi1.T @ B, config.ridge)
        W = ridge_solve(B.T @ B, B.T @ Y, config.classifier)
        Q, G = config.nu * Phi1 @ P + Y @ W.T, W @ W.T
        for _ in range(config.sweeps):
            before = B.copy()
            for k in range(bits):
                others = np.arange(bits) != k
                B[:, k] = np.where(Q[:, k] - B[:, others] @ G[others, k] >= 0, 1, -1)
            if np.array_equal(before, B):
                break
    return B


def literal_cosdish(problem: Problem, config: CosdishConfig, bits: int) -> Array:
    """Return B [n, K] after T rounds on columns O of the similarity of all pairs."""
    Y, labels = problem.Y, problem.labels
    S, set_of_row = Y @ Y.T > 0, labels.set_of_row
    shape = (labels.sets.shape[0], bits)
    B = generator(0, "codes").choice([-1.0, 1.0], shape)[set_of_row]
    columns = config.columns or max(bits, 10 * Y.shape[1])
    for round in range(1, config.rounds + 1):
        rng = generator(0, f"columns of round {round}")
        O = rows_of_sets(set_of_row, spread_columns(labels.sizes, columns, rng))  # noqa: E741
        others = np.setdiff1d(np.arange(len(Y)), O)
        similar = S[:, O]
        T = np.where(similar, 1.0, -similar.sum() / (~similar).sum())
        for _ in range(config.steps):
            codes = np.empty((len(O), bits))
            for k in range(bits):
                before = codes[:, :k]
                R = bits * T[O] - before @ before.T
                p = bits * T[others].T @ B[others, k] - before @ (B[others, :k].T @ B[others, k])
                codes[:, k] = binary_quadratic(R, p, rng)
            pull = T @ codes
            B = np.where(pull == 0, B, np.sign(pull))  # columns have codes of their sets after
    return B


def rows_of_sets(set_of_row: Array, drawn: Array) -> Array:
    """Return a different row for each drawn label set."""
    left = {g: list(np.flatnonzero(set_of_row == g)) for g in np.unique(drawn)}
    return np.array([left[g].pop(0) for g in drawn])


Literal = Callable[[Problem, Any, int], Array]


def learned_codes(fit: ShallowFit[Any], problem: Problem) -> Array:
    """Return the codes that a fit ends with [n, K]."""
    rows = array_rows(problem.X)
    fit_all(fit, rows, problem.labels)
    if isinstance(fit, Ksh):
        return fit.B
    return rows.gather(lambda _, numbers: fit.row_codes(numbers, problem.labels))


def methods(
    rows: int, anchors: int, iterations: int = 500
) -> dict[str, tuple[type[ShallowFit[Any]], Any, Literal]]:
    """Return each method with its settings, and its literal form."""
    return {
        "KSH": (Ksh, KshConfig(anchors=anchors, rows=rows, iterations=iterations), literal_ksh),
        "SDH": (Sdh, SdhConfig(anchors=anchors), literal_sdh),
        "COSDISH": (Cosdish, CosdishConfig(anchors=anchors), literal_cosdish),
    }


def main() -> None:
    """Compare codes and times of each method."""
    parser = argparse.ArgumentParser(description="Fits against literal ones.")
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--anchors", type=int, default=300)
    parser.add_argument("--bits", type=int, default=16)
    parser.add_argument("--iterations", type=int, default=20, help="of KSH a bit, at most")
    asked = parser.parse_args()
    problem = drawn_problem(asked.rows)
    for name, (method, config, literal) in methods(
        asked.rows, asked.anchors, asked.iterations
    ).items():
        started = time.process_time()
        ours = learned_codes(method(config, asked.bits, 0), problem)
        middle = time.process_time()
        theirs = literal(problem, config, asked.bits)
        ours_s, theirs_s = middle - started, time.process_time() - middle
        print(
            f"{name:8} {ours_s:7.2f} s, literal {theirs_s:7.2f} s: {theirs_s / ours_s:.1f} times; "
            f"{int(np.sum(ours != theirs))} of {ours.size:,} bits differ",
            flush=True,
        )


if __name__ == "__main__":
    main()
