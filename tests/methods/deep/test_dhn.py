"""DHN against its equation, pair by pair."""

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.dhn import Dhn


def literal(case: Case) -> dict[str, Tensor]:
    U = case.U
    N = len(U)
    sums, counts = [0, 0], [0, 0]
    for i in range(N):
        for j in range(N):
            similar = case.similar[i][j]
            theta = (U[i] * U[j]).sum() / 2
            sums[similar] = sums[similar] + torch.log1p(torch.exp(theta)) - similar * theta
            counts[similar] += 1
    balanced = sum(s / max(n, 1) for s, n in zip(sums, counts, strict=True))
    corners = sum(torch.log(torch.cosh(u.abs() - 1)) for u in U.flatten()) / U.numel()
    pair = balanced if case.method.config.balance else sum(sums) / N**2
    return {"pair": pair, "quantization": corners}


@pytest.mark.parametrize("balance", [True, False])
@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool, balance: bool) -> None:
    assert_literal(make_case(Dhn, seed, several, balance=balance), literal)


@pytest.mark.parametrize("balance", [True, False])
def test_two_workers_equal_one(balance: bool) -> None:
    assert_shared(make_case(Dhn, 0, balance=balance))
