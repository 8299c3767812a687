"""The classifier through a bottleneck, row by row."""

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

from schn_ray.methods.deep.bottleneck import Bottleneck


def literal(case: Case) -> dict[str, Tensor]:
    labelled = [i for i, y in enumerate(case.batch.Y) if y.any()]
    corners = sum(((case.U[i].abs() - 1) ** 2).sum() for i in labelled)
    return {
        "classification": class_loss(case.U, case.method.classifier.linear, case),
        "quantization": torch.as_tensor(corners) / (len(labelled) * case.h.shape[1]),
    }


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Bottleneck, seed, several, quantization=0.1), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Bottleneck, 0, quantization=0.1))
