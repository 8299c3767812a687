"""TSDH against its equation, pair by pair."""

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.tsdh import Tsdh


def literal(case: Case) -> dict[str, Tensor]:
    U, (first, second) = case.U, case.method.label_network
    labels = case.method.problem.label_sets
    Y = torch.from_numpy(labels.sets[labels.set_of_row].toarray()).double()
    similar = sum(bool((y * z).any()) for y in Y for z in Y)
    soft = -similar / (len(Y) ** 2 - similar)
    negative = {"soft": soft, "zero": 0, "minus_one": -1}[case.method.config.negative]
    N, K = U.shape
    total = 0
    for j in range(N):
        hidden = [
            (w * case.batch.Y[j]).sum() + b for w, b in zip(first.weight, first.bias, strict=True)
        ]
        centre = torch.tanh(second.weight @ torch.stack(hidden) + second.bias)
        for i in range(N):
            T = 1 if case.similar[i][j] else negative
            total = total + ((U[i] * centre).sum() / K - T) ** 2
    return {"centre": total / N**2}


@pytest.mark.parametrize("negative", ["soft", "zero", "minus_one"])
@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool, negative: str) -> None:
    assert_literal(make_case(Tsdh, seed, several, negative=negative), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Tsdh, 0))
