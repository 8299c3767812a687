"""CIBHash against its equation, view by view and bit by bit."""

import pytest
import torch
from support.loss_problem import SEEDS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.cibhash import Cibhash


class Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, p: Tensor) -> Tensor:
        return torch.tensor([1.0 if x >= 0.5 else -1.0 for x in p], dtype=p.dtype)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def cosine(x: Tensor, z: Tensor) -> Tensor:
    return (x * z).sum() / ((x * x).sum() * (z * z).sum()).sqrt()


def divergence(p: Tensor, q: Tensor) -> Tensor:
    q = q.detach()
    pairs = zip(p, q, strict=True)
    return sum(a * torch.log(a / b) + (1 - a) * torch.log((1 - a) / (1 - b)) for a, b in pairs)


def literal(case: Case) -> dict[str, Tensor]:
    N = len(case.h)
    P = [1 / (1 + torch.exp(-h)) for h in (*case.h, *case.second.h)]
    Z = [Through.apply(p) for p in P]
    contrast = 0
    for a in range(2 * N):
        powers = {b: torch.exp(cosine(Z[a], Z[b]) / 0.3) for b in range(2 * N) if b != a}
        contrast = contrast - torch.log(powers[(a + N) % (2 * N)] / sum(powers.values()))
    both = sum(divergence(P[i], P[i + N]) + divergence(P[i + N], P[i]) for i in range(N))
    return {"contrast": contrast / (2 * N), "bottleneck": both / (2 * N)}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_is_the_equation(seed: int) -> None:
    assert_literal(make_case(Cibhash, seed), literal)


@pytest.mark.parametrize("size", [2, 3])
def test_workers_equal_one(size: int) -> None:
    assert_shared(make_case(Cibhash, 0), size)


def test_equal_views_of_rows_that_differ_are_told_at_once() -> None:
    case = make_case(Cibhash, 0, bits=16, temperature=0.01)
    corners = torch.randn(9, 16, dtype=torch.float64) * 5
    same = case._replace(h=corners, second=case.second._replace(h=corners))
    terms = {name: float(term.detach()) for name, term in same.terms().items()}
    assert terms["contrast"] < 1e-3
    assert terms["bottleneck"] == 0
