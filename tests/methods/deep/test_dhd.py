"""DHD against its equation, row by row and bit by bit."""

import math

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.dhd import Dhd


def cosine(x: Tensor, z: Tensor) -> Tensor:
    return (x * z).sum() / ((x * x).sum() * (z * z).sum()).sqrt()


def literal(case: Case) -> dict[str, Tensor]:
    P, rows, apart, unlikely = case.method.proxies, [], [], []
    for h, g, y in zip(case.h, case.second.h, case.batch.Y, strict=True):
        u, v = torch.tanh(h), torch.tanh(g)
        apart.append(1 - cosine(v, u.detach()))
        for x in u:
            up, down = (torch.exp(-((x - s) ** 2) / (2 * 0.5**2)) for s in (1, -1))
            p, q = (near.clamp(1e-6, 1 - 1e-6) for near in (up, down))
            right, wrong = (p, q) if x >= 0 else (q, p)
            unlikely.append(-torch.log(right) - torch.log(1 - wrong))
        if y.any():
            powers = [torch.exp(cosine(u, proxy) / 0.2) for proxy in P]
            own = [powers[c] / sum(powers) for c in range(len(P)) if y[c]]
            rows.append(-sum(torch.log(p) for p in own) / len(own))
    return {
        "classification": sum(rows) / len(rows),
        "distillation": sum(apart) / len(apart),
        "quantization": sum(unlikely) / len(unlikely),
    }


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Dhd, seed, several), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Dhd, 0))


def test_the_distorted_view_does_not_pull_the_plain_one() -> None:
    case = make_case(Dhd, 0)
    term = case.terms()["distillation"]
    of_plain, of_distorted = torch.autograd.grad(term, [case.h, case.second.h], allow_unused=True)
    assert of_plain is None
    assert of_distorted.any()


def test_codes_are_the_signs_about_the_mean_of_a_row() -> None:
    """What a layer normalisation without weights decides."""
    case = make_case(Dhd, 0)
    head, F = case.method.encoder.head.eval(), case.F.detach()
    linear = head[0].linear(F)
    assert torch.equal(head(F).sign(), (linear - linear.mean(dim=1, keepdim=True)).sign())
    assert math.isclose(float(head(F).square().mean().detach()), 1, rel_tol=1e-2)
