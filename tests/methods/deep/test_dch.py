"""DCH against its equation, pair by pair."""

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.dch import Dch


def cosine(x: Tensor, z: Tensor) -> Tensor:
    return (x * z).sum() / ((x * x).sum() * (z * z).sum()).sqrt()


def literal(case: Case) -> dict[str, Tensor]:
    U, gamma = case.U, case.method.config.gamma
    N, K = U.shape
    sums, counts = [0, 0], [0, 0]
    for i in range(N):
        for j in range(N):
            if i == j:
                continue
            D = K / 2 * (1 - cosine(U[i], U[j]))
            similar = case.similar[i][j]
            p = gamma / (gamma + D)
            sums[similar] = sums[similar] - torch.log(p if similar else 1 - p)
            counts[similar] += 1
    corner = sum(
        torch.log(1 + K / 2 * (1 - cosine(u.abs(), torch.ones_like(u))) / gamma) for u in U
    )
    pair = sum(s / max(c, 1) for s, c in zip(sums, counts, strict=True))
    return {"pair": pair, "quantization": corner / N}


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Dch, seed, several, gamma=3.0), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Dch, 0))


def test_equal_dissimilar_codes_have_a_finite_loss() -> None:
    case = make_case(Dch, 0)
    h = case.h[:1].detach().expand_as(case.h).clone().requires_grad_()
    term = case._replace(h=h).terms()["pair"]
    assert term.isfinite()
    assert torch.autograd.grad(term, h)[0].isfinite().all()
