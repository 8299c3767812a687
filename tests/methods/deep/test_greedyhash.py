"""GreedyHash against its equation, row by row."""

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.greedyhash import Greedyhash, straight_through_sign


class Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, h: Tensor) -> Tensor:
        return torch.tensor([1.0 if x >= 0 else -1.0 for x in h], dtype=h.dtype)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def literal(case: Case) -> dict[str, Tensor]:
    W, K = case.method.classifier.weight, case.h.shape[1]
    ce, cubes, labelled = 0, 0, 0
    for h, y in zip(case.h, case.batch.Y, strict=True):
        if not y.any():
            continue
        labelled += 1
        logits = [(w * Through.apply(h)).sum() for w in W]
        total = torch.stack(logits).logsumexp(0)
        ce = ce + sum(y_c / y.sum() * (total - z) for z, y_c in zip(logits, y, strict=True))
        cubes = cubes + sum((x.abs() - 1).abs() ** 3 for x in h) / K
    return {"classification": ce / labelled, "quantization": cubes / labelled}


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Greedyhash, seed, several), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Greedyhash, 0))


def test_only_signs_reach_the_classifier_and_gradients_pass() -> None:
    h = torch.tensor([-3.0, -1e-20, 0.0, 1e-7, 5.0], requires_grad=True)
    b = straight_through_sign(h)
    assert b.tolist() == [-1, -1, 1, 1, 1]
    b.sum().backward()
    assert h.grad is not None
    assert h.grad.tolist() == [1] * 5
    case = make_case(Greedyhash, 0)
    same = case._replace(h=3 * case.h).terms()["classification"]
    torch.testing.assert_close(case.terms()["classification"], same)
