"""SuBiC against its equations, block by block."""

import math

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

from schn_ray.core.errors import SchnRayError
from schn_ray.methods.deep.subic import Subic
from schn_ray.models.config import HeadConfig
from schn_ray.models.heads.build import build_head


def literal(case: Case) -> dict[str, Tensor]:
    k, h = case.method.config.block, case.h
    N, K = h.shape
    several = bool((case.method.problem.label_sets.sets.sum(axis=1) > 1).any())
    rows = []
    for z in h:
        blocks = [z[start : start + k].clamp(min=0).exp() for start in range(0, K, k)]
        rows.append(torch.cat([block / block.sum() for block in blocks]))
    q = torch.stack(rows)

    def entropy(p: Tensor) -> Tensor:
        return -sum(x * torch.log(x) for x in p) / ((K // k) * math.log(k))

    scale = 1 if several else math.log(case.batch.Y.shape[1])
    return {
        "classification": class_loss(q, case.method.classifier.linear, case) / scale,
        "entropy": sum(entropy(row) for row in q) / N,
        "batch_entropy": -entropy(sum(q) / N),
    }


@pytest.mark.parametrize("block", [2, 4])
@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool, block: int) -> None:
    assert_literal(make_case(Subic, seed, several, block=block), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Subic, 0))


def test_codes_while_training_are_those_of_the_released_head() -> None:
    case = make_case(Subic, 0)
    head, F = case.method.encoder.head, case.F.detach()
    codes = case.method.relaxed(head.train()(F))
    assert torch.equal(codes, head.eval()(F).sign())
    assert (codes == 1).sum(dim=1).tolist() == [2] * len(F)


def test_entropies_have_their_bounds() -> None:
    case = make_case(Subic, 0)
    sure = torch.zeros(9, 8, dtype=torch.float64)
    for i in range(8):
        sure[i, [i % 4, 4 + i % 4]] = 200
    terms = case._replace(h=sure).terms()  # the ninth row is undecided in both blocks
    assert float(terms["entropy"].detach()) == pytest.approx(1 / 9)
    assert float(terms["batch_entropy"].detach()) == pytest.approx(-1)


def test_bits_that_do_not_divide_are_refused() -> None:
    spec = Subic.choose_head(Subic.Config(block=3), HeadConfig())
    with pytest.raises(SchnRayError, match="do not divide"):
        build_head(spec, 6, 8)
