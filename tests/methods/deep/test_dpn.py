"""DPN against its equation; its centres move only where they stay apart."""

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.centres import guaranteed_distance, least_distance
from schn_ray.methods.deep.dpn import Dpn


def literal(case: Case) -> dict[str, Tensor]:
    T, m = case.method.centres, case.method.config.margin
    hinge, size, labelled = 0, 0, 0
    for h, y in zip(case.h, case.batch.Y, strict=True):
        labelled += bool(y.any())
        size = size + (h * h).sum()
        for c in torch.nonzero(y)[:, 0]:
            hinge = hinge + sum(max(m - x * t, 0 * x) for x, t in zip(h, T[c], strict=True))
    return {"polarization": hinge / labelled, "size": size / case.h.numel()}


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Dpn, seed, several, size=0.1), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Dpn, 0, size=0.1))


def test_nothing_is_left_beyond_the_margin() -> None:
    case = make_case(Dpn, 1, several=False)
    h = (1.5 * case.batch.Y @ case.method.centres).requires_grad_()
    term = case._replace(h=h).terms()["polarization"]
    assert float(term.detach()) == 0
    assert not torch.autograd.grad(term, h)[0].any()


def updated(case: Case, U: Tensor) -> Tensor:
    rows = torch.arange(case.method.problem.rows)
    assert case.method.update(rows, torch.zeros(len(rows), 8), {"U": U}) is None
    return case.method.centres


def test_centres_become_the_majorities_of_their_classes() -> None:
    case = make_case(Dpn, 0, several=False, adaptive=True, centres="separated")
    problem = case.method.problem
    Y = torch.from_numpy(problem.label_sets.sets.toarray())[problem.label_sets.set_of_row].double()
    flipped = -case.method.centres.clone()
    U = Y @ flipped * 0.3
    expected = torch.where(Y.any(dim=0)[:, None], flipped, -flipped)
    if least_distance(expected) >= guaranteed_distance(5, 8):
        assert torch.equal(updated(case, U), expected)
    before = case.method.centres.clone()
    assert torch.equal(updated(case, torch.ones_like(U)), before)  # all centres would be one
