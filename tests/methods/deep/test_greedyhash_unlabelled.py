"""GreedyHash without labels against its equation, pair by pair."""

import pytest
import torch
from support.loss_problem import SEEDS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.greedyhash_unlabelled import GreedyhashUnlabelled


class Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: object, h: Tensor) -> Tensor:
        return torch.tensor([1.0 if x >= 0 else -1.0 for x in h], dtype=h.dtype)

    @staticmethod
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        return gradient


def cosine(x: Tensor, z: Tensor) -> Tensor:
    return (x * z).sum() / ((x * x).sum() * (z * z).sum()).sqrt()


def literal(case: Case) -> dict[str, Tensor]:
    F, h = case.F.detach(), case.h
    if case.method.config.centre:
        F = F - sum(F) / len(F)
    half, total = len(h) // 2, 0
    for i in range(half):
        of_codes = cosine(Through.apply(h[i]), Through.apply(h[i + half]))
        total = total + (of_codes - cosine(F[i], F[i + half])) ** 2
    cubes = sum((x.abs() - 1).abs() ** 3 for x in h.flatten()) / h.numel()
    return {"similarity": total / half, "quantization": cubes}


@pytest.mark.parametrize("centre", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_is_the_equation(seed: int, centre: bool) -> None:
    assert_literal(make_case(GreedyhashUnlabelled, seed, centre=centre), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(GreedyhashUnlabelled, 0))
