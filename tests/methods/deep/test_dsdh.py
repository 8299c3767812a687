"""DSDH against its equations; its update never raises the objective."""

import itertools

import pytest
import torch
from support.loss_problem import DRAWS, SEEDS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.core.bits import sign
from schn_ray.methods.code_table import CodeTable
from schn_ray.methods.deep.dsdh import Dsdh


def literal(case: Case) -> dict[str, Tensor]:
    U, N = case.U, len(case.U)
    sums, counts = [0, 0], [0, 0]
    for i in range(N):
        for j in range(N):
            similar = case.similar[i][j]
            theta = (U[i] * U[j]).sum() / 2
            sums[similar] = sums[similar] + torch.log1p(torch.exp(theta)) - similar * theta
            counts[similar] += 1
    balanced = sum(s / max(n, 1) for s, n in zip(sums, counts, strict=True))
    off = sum((u - b) ** 2 for u, b in zip(U.flatten(), case.batch.B.flatten(), strict=True))
    pair = balanced if case.method.config.balance else sum(sums) / N**2
    return {"pair": pair, "quantization": off / U.numel()}


@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool, balance: bool) -> None:
    assert_literal(make_case(Dsdh, seed, several, balance=balance), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Dsdh, 0))


def problem_of(case: Case) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return rows, codes, outputs and labels of all training rows."""
    problem = case.method.problem
    codes = CodeTable(problem.rows, problem.bits)
    case.method.start(codes)
    rows = torch.arange(problem.rows)
    sets = problem.label_sets.sets[problem.label_sets.set_of_row]
    U = torch.rand(problem.rows, problem.bits, dtype=torch.float64) * 2 - 1
    return rows, codes.read(rows), U, torch.from_numpy(sets.toarray()).double()


def objective(case: Case, B: Tensor, U: Tensor, Y: Tensor) -> float:
    """Return the objective with the best classifier."""
    config = case.method.config
    gram = B.T @ B + config.ridge * torch.eye(B.shape[1], dtype=torch.float64)
    W = torch.linalg.inv(gram) @ B.T @ Y
    return float(
        (Y - B @ W).square().sum()
        + config.ridge * W.square().sum()
        + config.outputs * (B - U).square().sum()
    )


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_each_round_descends(seed: int) -> None:
    values = []
    for rounds in range(1, 6):
        case = make_case(Dsdh, seed, rounds=rounds, outputs=0.3)
        torch.manual_seed(seed)
        rows, B, U, Y = problem_of(case)
        if not values:
            values.append(objective(case, B.double(), U, Y))
        values.append(objective(case, case.method.update(rows, B, {"U": U}).double(), U, Y))
    assert all(after <= before + 1e-9 for before, after in itertools.pairwise(values))
    assert values[-1] < values[0]


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_the_last_bit_is_the_best_given_all_others(seed: int) -> None:
    case = make_case(Dsdh, seed, rounds=1, outputs=0.3)
    rows, B, U, Y = problem_of(case)
    solved = case.method.update(rows, B, {"U": U}).double()
    gram = B.double().T @ B.double() + 0.1 * torch.eye(B.shape[1], dtype=torch.float64)
    W = torch.linalg.inv(gram) @ B.double().T @ Y
    for b, u, y in zip(solved, U, Y, strict=True):
        flipped = b.clone()
        flipped[-1] *= -1

        def cost(code: Tensor, u: Tensor = u, y: Tensor = y) -> float:
            return float((y - code @ W).square().sum() + 0.3 * (code - u).square().sum())

        assert cost(b) <= cost(flipped) + 1e-12


def test_outputs_alone_decide_where_their_weight_is_large() -> None:
    case = make_case(Dsdh, 0, outputs=1e6)
    rows, B, U, _ = problem_of(case)
    assert torch.equal(case.method.update(rows, B, {"U": U}), sign(U).float())
