"""DLBHC against its equation, row by row."""

import pytest
import torch
from support.loss_problem import (
    DRAWS,
    Case,
    assert_literal,
    assert_shared,
    class_loss,
    make_case,
)
from torch import Tensor

from schn_ray.methods.deep.dlbhc import Dlbhc


def literal(case: Case) -> dict[str, Tensor]:
    P = 1 / (1 + torch.exp(-2 * case.h))
    return {"classification": class_loss(P, case.method.classifier.linear, case)}


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Dlbhc, seed, several), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Dlbhc, 0))
