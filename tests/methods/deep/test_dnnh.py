"""DNNH against its equation, triplet by triplet."""

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.dnnh import Dnnh


def literal(case: Case) -> dict[str, Tensor]:
    config = case.method.config
    p = 1 / (1 + torch.exp(-2 * case.h))
    g = torch.stack(
        [x if (x - 0.5).abs() <= config.threshold else torch.round(x.detach()) for x in p.flatten()]
    ).reshape(p.shape)
    total, count = 0 * p.sum(), 0
    for i in range(len(g)):
        for s in range(len(g)):
            for d in range(len(g)):
                if s != i and case.similar[i][s] and not case.similar[i][d]:
                    near, far = ((g[i] - g[s]) ** 2).sum(), ((g[i] - g[d]) ** 2).sum()
                    total = total + (config.margin + near - far).clamp(min=0)
                    count += 1
    return {"triplet": total / max(count, 1)}


@pytest.mark.parametrize("threshold", [0.5, 0.2])
@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool, threshold: float) -> None:
    assert_literal(make_case(Dnnh, seed, several, threshold=threshold), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Dnnh, 0))
