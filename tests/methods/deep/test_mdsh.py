"""MDSH against its equations; its bank fills with the steps."""

import math

import pytest
import torch
from support.loss_problem import SEEDS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.mdsh import Mdsh


def cosine(x: Tensor, z: Tensor) -> Tensor:
    return (x * z).sum() / ((x * x).sum() * (z * z).sum()).sqrt()


def literal(case: Case) -> dict[str, Tensor]:
    method, U, Y = case.method, case.U, case.batch.Y
    K, C = U.shape[1], Y.shape[1]
    central, bank, labelled, pairs = 0, 0 * U.sum(), 0, 0
    labels = method.problem.label_sets
    all_Y = torch.from_numpy(labels.sets[labels.set_of_row].toarray())
    for u, y in zip(U, Y, strict=True):
        if not y.any():
            continue
        labelled += 1
        z = torch.stack([math.sqrt(K) * cosine(u, t) for t in method.centres])
        p = z.exp() / z.exp().sum()
        for c in range(C):
            central = central - torch.log(p[c] if y[c] else 1 - p[c]) / C
        if int(method.iterations) < method.config.first_iterations:
            continue
        for j in range(len(all_Y)):
            if method.codes[j].any() and (all_Y[j] * y).any():
                bank = bank + torch.log(1 + torch.exp((1 - cosine(u, method.codes[j])) / 2))
                pairs += 1
    corners = ((U.abs() - 1) ** 2).sum() / U.numel()
    return {
        "central": central / labelled,
        "bank": bank / max(pairs, 1),
        "quantization": corners,
    }


def with_bank(seed: int) -> Case:
    """Return a case of a later iteration, with some rows in the bank."""
    case = make_case(Mdsh, seed, several=False)
    n = case.method.problem.rows
    case.method.codes[: n // 2] = torch.randn(n // 2, 8)
    case.method.iterations += 3
    return case


@pytest.mark.parametrize("seed", SEEDS)
def test_the_loss_is_the_equation(seed: int) -> None:
    assert_literal(with_bank(seed), literal)
    assert_literal(make_case(Mdsh, seed, several=False), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(with_bank(0))


def test_a_step_puts_its_codes_into_the_bank() -> None:
    case = make_case(Mdsh, 0, several=False)
    assert float(case.terms()["bank"].detach()) == 0
    assert torch.equal(case.method.codes[case.batch.rows], case.U.detach())
    seen = case.method.codes.any(dim=1).nonzero()[:, 0]
    assert seen.tolist() == sorted(case.batch.rows.tolist())
    for _ in range(3):
        case.method.update(case.batch.rows, case.batch.B, {})
    assert float(case.terms()["bank"].detach()) > 0
