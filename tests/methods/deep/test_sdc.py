"""SDC against its equation, pair by pair."""

import pytest
from scipy.stats import beta
from support.loss_problem import SEEDS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.sdc import Sdc


def cosine(x: Tensor, z: Tensor) -> Tensor:
    return (x * z).sum() / ((x * x).sum() * (z * z).sum()).sqrt()


def literal(case: Case) -> dict[str, Tensor]:
    F, h = case.F.detach(), case.h
    pairs = [(i, i + len(h) // 2) for i in range(len(h) // 2)]
    pairs.sort(key=lambda pair: float(cosine(F[pair[0]], F[pair[1]])))
    total = 0
    for j, (i, k) in enumerate(pairs, start=1):
        target = 2 * beta.ppf((2 * j - 1) / (2 * len(pairs)), 5, 5) - 1
        total = total + (cosine(h[i], h[k]) - target).abs()
    corners = sum(1 - cosine(x, x.detach().sign()) for x in h) / len(h)
    return {"calibration": total / len(pairs), "quantization": corners}


@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_is_the_equation(seed: int) -> None:
    assert_literal(make_case(Sdc, seed), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Sdc, 0))
