"""DRLIH against its equations, triplet by triplet and bit by bit."""

import math

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.drlih import Drlih
from schn_ray.models.config import HeadSpec
from schn_ray.models.heads.build import build_head


def literal(case: Case) -> dict[str, Tensor]:
    p = 1 / (1 + torch.exp(-2 * case.h))
    n = range(len(p))
    D = [[(((p[i] - p[j]) ** 2).sum() + 1e-12) ** 0.5 for j in n] for i in n]
    total, count = 0 * p.sum(), 0
    for i in n:
        for s in n:
            for d in n:
                if s != i and case.similar[i][s] and not case.similar[i][d]:
                    total = total + (case.method.config.margin + D[i][s] - D[i][d]).clamp(min=0)
                    count += 1
    R = total / max(count, 1)
    likely = 0 * p.sum()
    for row in p:
        for of_bit in row:
            likely = likely + torch.log(of_bit if of_bit > 0.5 else 1 - of_bit) / p.numel()
    return {"triplet": R, "policy": -likely * R.detach()}


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Drlih, seed, several, hidden=7), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Drlih, 0, hidden=7, policy=0.5))


@pytest.mark.parametrize("shared", [False, True])
def test_the_head_decides_bit_after_bit(shared: bool) -> None:
    torch.manual_seed(0)
    spec = HeadSpec(kind="recurrent", hidden=3, shared=shared)
    head = build_head(spec, 5, 4).double()
    X = torch.randn(6, 5, dtype=torch.float64)
    weights = {name: value.tolist() for name, value in head.state_dict().items()}

    def linear(layer: str, x: list[float]) -> list[float]:
        W = weights[f"{layer}.weight"]
        b = weights.get(f"{layer}.bias", [0.0] * len(W))
        return [
            sum(w * v for w, v in zip(row, x, strict=True)) + c for row, c in zip(W, b, strict=True)
        ]

    for x, h in zip(X.tolist(), head(X).tolist(), strict=True):
        f = state = linear("feature", x)
        for k in range(4):
            pushed = zip(linear("into", f), linear("again", state), strict=True)
            state = [math.tanh(a + b) for a, b in pushed]
            assert h[k] == pytest.approx(linear("out", state)[0 if shared else k], abs=1e-12)
