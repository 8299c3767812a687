"""ADSH against its sums over all pairs."""

import pytest
import torch
from support.loss_problem import DRAWS, SEEDS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.code_table import CodeTable
from schn_ray.methods.deep.adsh import Adsh


def started(seed: int, several: bool = True) -> tuple[Case, CodeTable]:
    """Return a case whose batch has the codes of a table."""
    case = make_case(Adsh, seed, several)
    codes = CodeTable(case.method.problem.rows, case.method.problem.bits)
    case.method.start(codes)
    case.batch.B.copy_(codes.read(case.batch.rows))
    return case, codes


def targets(case: Case) -> Tensor:
    """Return T [n, n] of all training rows, with -N1 / N0 for dissimilar ones."""
    labels = case.method.problem.label_sets
    Y = labels.sets[labels.set_of_row].toarray()
    similar = [[any(a and b for a, b in zip(y, z, strict=True)) for z in Y] for y in Y]
    S = torch.tensor(similar).double()
    return S - S.sum() / (1 - S).sum() * (1 - S)


def literal(case: Case, V: Tensor) -> dict[str, Tensor]:
    T, U = targets(case), case.U
    (n, K), N = V.shape, len(U)
    pair, off = 0, 0
    for i, row in enumerate(case.batch.rows):
        off = off + ((U[i] - V[row]) ** 2).sum() / (N * n)
        for j in range(n):
            pair = pair + ((U[i] * V[j]).sum() - K * T[row, j]) ** 2 / (N * n)
    return {"pair": pair, "quantization": off}


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    case, codes = started(seed, several)
    V = codes.read(range(case.method.problem.rows)).double()
    assert_literal(case, lambda case: literal(case, V))


def test_two_workers_equal_one() -> None:
    assert_shared(started(0)[0])


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_the_update_solves_all_rows_and_the_loss_follows(seed: int) -> None:
    case, codes = started(seed)
    n, K = case.method.problem.rows, case.method.problem.bits
    V, T = codes.read(range(n)).double(), targets(case)
    drawn = torch.randperm(n)[:9]
    U = torch.rand(9, K, dtype=torch.float64) * 2 - 1
    padded = torch.zeros(n, K, dtype=torch.float64)
    padded[drawn] = U
    Q = K * T[drawn].T @ U + case.method.config.quantization * padded
    for k in range(K):
        others = [b for b in range(K) if b != k]
        for j in range(n):
            pull = Q[j, k] - sum(V[j, b] * (U[:, b] * U[:, k]).sum() for b in others)
            V[j, k] = 1 if pull >= 0 else -1
    assert case.method.update(drawn, codes.read(drawn), {"U": U}) is None
    assert torch.equal(codes.read(range(n)).double(), V)
    case.batch.B.copy_(codes.read(case.batch.rows))
    assert_literal(case, lambda case: literal(case, V))
