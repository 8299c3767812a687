"""OrthoHash against its equation, row by row."""

import math

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.orthohash import Orthohash


def literal(case: Case) -> dict[str, Tensor]:
    T, m, s = case.method.centres, case.method.config.margin, math.sqrt(case.h.shape[1])
    rows = []
    for h, y in zip(case.h, case.batch.Y, strict=True):
        if not y.any():
            continue
        logits = [
            s * ((h * t).sum() / (h * h).sum().sqrt() / (t * t).sum().sqrt() - m * y_c)
            for t, y_c in zip(T, y, strict=True)
        ]
        total = sum(torch.exp(z) for z in logits)
        rows.append(
            sum(
                -y_c / y.sum() * torch.log(torch.exp(z) / total)
                for z, y_c in zip(logits, y, strict=True)
            )
        )
    return {"classification": sum(rows) / len(rows)}


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Orthohash, seed, several), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Orthohash, 0))


def test_only_the_direction_of_an_output_counts() -> None:
    case = make_case(Orthohash, 0)
    longer = case._replace(h=5 * case.h)
    torch.testing.assert_close(case.terms(), longer.terms())


def test_a_row_at_its_centre_among_orthogonal_ones() -> None:
    case = make_case(Orthohash, 0, several=False, centres="separated")
    case.method.centres = torch.eye(8, dtype=torch.float64)[:5]
    labelled = case.batch.Y.any(dim=1)
    Y = case.batch.Y
    at_centre = case._replace(h=torch.where(labelled[:, None], Y @ case.method.centres, 1.0))
    s = math.sqrt(8)
    expected = math.log(math.exp(s * 0.8) + 4) - s * 0.8
    assert float(at_centre.terms()["classification"]) == pytest.approx(expected)
