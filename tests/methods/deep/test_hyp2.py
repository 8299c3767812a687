"""HyP^2 against its equation, entry by entry and pair by pair."""

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.hyp2 import Hyp2


def cosine(x: Tensor, z: Tensor) -> Tensor:
    return (x * z).sum() / ((x * x).sum() * (z * z).sum()).sqrt()


def literal(case: Case) -> dict[str, Tensor]:
    h, P, Y = case.h, case.method.proxies, case.batch.Y
    zeta = 1 - 2 * 4 / 8  # the best linear code of 8 bits and 8 words has the distance 4
    found: dict[str, list[Tensor]] = {"positive": [], "negative": [], "pair": []}
    for i, y in enumerate(Y):
        for c in range(len(P)):
            if y[c]:
                found["positive"].append(1 - cosine(h[i], P[c]))
            elif y.any():
                found["negative"].append((cosine(h[i], P[c]) - zeta).clamp(min=0))
        for j, z in enumerate(Y):
            if y.sum() > 1 and z.sum() > 1 and not case.similar[i][j]:
                found["pair"].append((cosine(h[i], h[j]) - zeta).clamp(min=0))
    return {name: sum(values, 0 * h.sum()) / max(len(values), 1) for name, values in found.items()}


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Hyp2, seed, several), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Hyp2, 0))


@pytest.mark.parametrize(("bits", "distance"), [(8, 4), (12, 6), (10, 4)])
def test_the_margin_is_that_of_the_best_code(bits: int, distance: int) -> None:
    """Five classes need three bits; no table has codes of 10 bits, where 4 are surely reached."""
    assert make_case(Hyp2, 0, bits=bits).method.zeta == pytest.approx(1 - 2 * distance / bits)


def test_a_far_proxy_does_not_push() -> None:
    case = make_case(Hyp2, 0, several=False)
    with torch.no_grad():
        case.method.proxies.copy_(-torch.ones(5, 8))
    h = torch.ones_like(case.h).requires_grad_()
    term = case._replace(h=h).terms()["negative"]
    assert not torch.autograd.grad(term, h)[0].any()
