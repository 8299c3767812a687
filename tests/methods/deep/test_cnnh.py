"""CNNH: its first stage against the matrix of all pairs, its second against the equation."""

import numpy as np
import pytest
import torch
from support.loss_problem import (
    DRAWS,
    Case,
    assert_literal,
    assert_shared,
    class_loss,
    make_case,
)
from torch import Tensor

from schn_ray.methods.code_table import CodeTable
from schn_ray.methods.deep.cnnh import Cnnh, Floats, factorised_similarity


def literal(case: Case) -> dict[str, Tensor]:
    total = 0
    for z, b in zip(case.h.flatten(), case.batch.B.flatten(), strict=True):
        p = 1 / (1 + torch.exp(-2 * z))
        total = total - torch.log(p if b > 0 else 1 - p)
    terms = {"target": total / case.h.numel()}
    if case.method.classifier is not None:
        terms["classification"] = class_loss(case.F, case.method.classifier.linear, case)
    return terms


@pytest.mark.parametrize("classification", [0.0, 1.0])
@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool, classification: float) -> None:
    assert_literal(make_case(Cnnh, seed, several, classification=classification), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Cnnh, 0, classification=1.0))


def swept(H: Floats, S: Floats, rng: np.random.Generator) -> Floats:
    """Do a sweep with the whole matrix of pairs."""
    H, K = H.copy(), H.shape[1]
    for i in rng.permutation(len(H)):
        for j in rng.permutation(K):
            L = H @ H.T - K * S
            first = 4 * (L @ H)[i, j]
            second = 4 * ((H[:, j] ** 2).sum() + H[i, j] ** 2 + L[i, i])
            step = -first / second if second > 0 else -np.sign(first) * 2
            H[i, j] = np.clip(H[i, j] + step, -1, 1)
    return H


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_first_stage_is_that_of_the_matrix_of_pairs(seed: int, several: bool) -> None:
    case = make_case(Cnnh, seed, several)
    labels = case.method.problem.label_sets
    Y = labels.sets[labels.set_of_row].toarray().astype(np.int64)
    S = np.where(Y @ Y.T > 0, 1.0, -1.0)
    rng = np.random.default_rng([seed, 8])
    H = rng.uniform(-1, 1, (len(Y), 8))
    values = [((H @ H.T - 8 * S) ** 2).sum()]
    for sweeps in range(1, 4):
        after = swept(H, S, rng)
        value = ((after @ after.T - 8 * S) ** 2).sum()
        if value >= values[-1]:
            break
        H = after
        values.append(value)
        ours = factorised_similarity(labels, 8, sweeps, seed)
        np.testing.assert_allclose(ours, H, rtol=0, atol=1e-10)
    assert values[-1] < 0.8 * values[0]


def test_rows_start_with_these_codes() -> None:
    case = make_case(Cnnh, 0)
    problem = case.method.problem
    codes = CodeTable(problem.rows, problem.bits)
    case.method.start(codes)
    H = factorised_similarity(problem.label_sets, 8, 5, problem.seed)
    assert torch.equal(codes.read(range(problem.rows)), torch.from_numpy(np.sign(H)).float())
