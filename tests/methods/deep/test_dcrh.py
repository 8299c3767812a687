"""DCRH against its equations, triplet by triplet."""

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

from schn_ray.methods.deep.dcrh import Dcrh
from schn_ray.methods.deep.dnnh import Dnnh


def cosine(x: Tensor, z: Tensor) -> Tensor:
    return (x * z).sum() / ((x * x).sum() * (z * z).sum()).sqrt()


def literal(case: Case) -> dict[str, Tensor]:
    U, F, config = case.U, case.F, case.method.config
    N, K = U.shape
    codes, features, count = 0 * U.sum(), 0 * F.sum(), 0
    for i in range(N):
        for p in range(N):
            for n in range(N):
                if p == i or not case.similar[i][p] or case.similar[i][n]:
                    continue
                near, far = (((U[i] - U[x]) ** 2).sum() / 4 for x in (p, n))
                violation = config.margin + near - far
                if violation > 0:
                    closer = cosine(F[i], F[n]) - cosine(F[i], F[p])
                    codes = codes + violation / K
                    features = features + (0.5 + closer).clamp(min=0)
                    count += 1
    return {
        "hash": codes / max(count, 1),
        "feature": features / max(count, 1),
        "classification": class_loss(U, case.method.classifier.linear, case, mean=True),
        "quantization": ((U.abs() - 1) ** 2).sum() / U.numel(),
    }


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Dcrh, seed, several, margin=1.0), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Dcrh, 0))


def test_where_all_triplets_are_violated_its_hash_term_is_dnnh() -> None:
    ours, other = make_case(Dcrh, 0, margin=8.0), make_case(Dnnh, 0, margin=8.0)
    other = other._replace(batch=ours.batch, h=ours.h)
    torch.testing.assert_close(8 * ours.terms()["hash"], other.terms()["triplet"])
