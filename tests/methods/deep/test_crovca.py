"""CroVCA against its equation: bit by bit, and by the matrix of rows in place of that of bits."""

import pytest
import torch
from support.loss_problem import DRAWS, SEEDS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.crovca import Crovca, CrovcaLabelled, coding_rate


def volume(h: Tensor) -> Tensor:
    """Return the rate by Sylvester's identity: det(I + c Z^T Z) = det(I + c Z Z^T)."""
    N, K = h.shape
    Z = [row / (row * row).sum().sqrt() for row in h]
    gram = torch.stack([torch.stack([(x * z).sum() for z in Z]) for x in Z])
    matrix = torch.eye(N, dtype=h.dtype) + K / (N * 0.05) * gram
    return (K + N) / (K * N) * torch.log(torch.linalg.det(matrix)) / 2


def loss_of(case: Case, targets: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Return the terms, given the target bits of both views of each row."""
    views, total = (case.h, case.second.h), 0
    for h, g, (t, s) in zip(*views, targets, strict=True):
        for x, bit in [*zip(h, t, strict=True), *zip(g, s, strict=True)]:
            p = 1 / (1 + torch.exp(-x))
            total = total - torch.log(p if bit else 1 - p)
    return {
        "alignment": total / (2 * case.h.numel()),
        "coding_rate": -sum(volume(h) for h in views) / 2,
    }


def literal(case: Case) -> dict[str, Tensor]:
    pairs = zip(case.h, case.second.h, strict=True)
    return loss_of(case, [(g > 0, h > 0) for h, g in pairs])


def literal_labelled(case: Case) -> dict[str, Tensor]:
    Y, h, g = case.batch.Y, case.h, case.second.h
    targets = []
    for i, y in enumerate(Y):
        means = []
        for c in range(len(y)):
            if y[c]:
                rows = [j for j in range(len(Y)) if Y[j, c]]
                means.append(sum(h[j] + g[j] for j in rows) / (2 * len(rows)))
        own = sum(means) / len(means) > 0 if means else None
        targets.append((g[i] > 0, h[i] > 0) if own is None else (own, own))
    return loss_of(case, targets)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_is_the_equation(seed: int) -> None:
    assert_literal(make_case(Crovca, seed), literal)


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_with_labels_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(CrovcaLabelled, seed, several), literal_labelled)


@pytest.mark.parametrize("method", [Crovca, CrovcaLabelled])
@pytest.mark.parametrize("size", [2, 3])
def test_workers_equal_one(method: type[Crovca], size: int) -> None:
    assert_shared(make_case(method, 0), size)


def test_outputs_in_all_directions_fill_more_than_those_in_one() -> None:
    spread = torch.eye(8, dtype=torch.float64)
    assert coding_rate(spread, 0.05) > 3 * coding_rate(torch.ones_like(spread), 0.05)
