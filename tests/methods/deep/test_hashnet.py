"""HashNet against its equation, pair by pair; beta grows with the steps."""

import math

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.dpsh import Dpsh
from schn_ray.methods.deep.hashnet import Hashnet


def literal(case: Case) -> dict[str, Tensor]:
    config = case.method.config
    beta = math.sqrt(1 + config.growth * int(case.method.steps))
    U = torch.tanh(beta * case.h)
    N, K = U.shape
    sums, counts = [0, 0], [0, 0]
    for i in range(N):
        for j in range(N):
            y_i, y_j, similar = case.batch.Y[i], case.batch.Y[j], case.similar[i][j]
            theta = config.alpha / K * (U[i] * U[j]).sum()
            c = (y_i * y_j).sum() / torch.maximum(y_i, y_j).sum() if similar else 1.0
            sums[similar] = sums[similar] + c * (torch.log1p(torch.exp(theta)) - similar * theta)
            counts[similar] += 1
    return {"pair": sum(s / max(n, 1) for s, n in zip(sums, counts, strict=True))}


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    case = make_case(Hashnet, seed, several)
    case.method.steps += 100 * seed
    assert_literal(case, literal)
    assert int(case.method.steps) == 100 * seed + 1


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Hashnet, 0))


def test_without_its_own_parts_it_is_dpsh() -> None:
    ours = make_case(Hashnet, 0, alpha=4.0, growth=0, overlap=False)  # alpha / K = 1/2
    other = make_case(Dpsh, 0)
    torch.testing.assert_close(ours.terms()["pair"], other.terms()["pair"])


def test_the_steps_are_part_of_the_state() -> None:
    assert "steps" in make_case(Hashnet, 0).method.state_dict()
