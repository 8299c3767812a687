"""DSH-GANs: its terms against their equations, the labels it draws, and what it makes."""

import copy
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from support.loss_problem import (
    BATCH,
    DRAWS,
    Case,
    Terms,
    assert_literal,
    assert_shared,
    class_loss,
    make_case,
)
from torch import Tensor, nn

from schn_ray.core.workers import Workers
from schn_ray.data.labels import label_sets
from schn_ray.methods.base import Batch, Outputs
from schn_ray.methods.deep.dsh_gan import DshGan
from schn_ray.methods.generators import ImageGenerator, draw_dissimilar, unremembered


class OfTheEncoder(DshGan):
    """The encoder's terms; made rows are random numbers that gradients do not reach."""

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        made, others = made_rows(batch)
        return self.terms(out, out, made, batch, others)


class OfTheGenerator(DshGan):
    """The generator's terms; gradients reach the made rows."""

    def losses(self, out: Outputs, batch: Batch) -> dict[str, Tensor]:
        real, others = made_rows(batch)
        return self.generator_terms(real[0], [out, real[1]], batch, others)


def made_rows(batch: Batch) -> tuple[list[Outputs], Batch]:
    """Return two sets of outputs of own rows, and labels that rows do not have; one has none."""
    random = torch.Generator().manual_seed(5)
    F, h = (torch.randn(2, BATCH, width, generator=random).double() for width in (6, 8))
    Y = batch.Y.roll(1, dims=1)
    Y[4] = 0
    made = [Outputs(f[batch.own], k[batch.own]) for f, k in zip(F, h, strict=True)]
    return made, replace(batch, Y=Y)


def judged(case: Case, F: Tensor, real: bool) -> Tensor:
    total = 0 * F.sum()
    for row in F:
        z = (case.method.adversary.weight[0] * row).sum() + case.method.adversary.bias[0]
        p = 1 / (1 + torch.exp(-z))
        total = total - torch.log(p if real else 1 - p) / len(F)
    return total


def triplets(case: Case, h: Tensor, near: Tensor, far: Tensor, others: Batch) -> Tensor:
    p, near, far = (1 / (1 + torch.exp(-2 * z)) for z in (h, near, far))
    total, count = 0 * p.sum(), 0
    for i in range(BATCH):
        if case.batch.Y[i].any() and others.Y[i].any():
            D = ((p[i] - near[i]) ** 2).sum() - ((p[i] - far[i]) ** 2).sum()
            total = total + (case.method.config.margin + D).clamp(min=0)
            count += 1
    return total / count


def classified(case: Case, F: Tensor, labels: Batch) -> Tensor:
    of_labels = case._replace(batch=labels)
    return class_loss(F, case.method.classifier.linear, of_labels)


def of_the_encoder(case: Case) -> Terms:
    (near, far), others = made_rows(case.batch)
    by_half = classified(case, near.F, case.batch) + classified(case, far.F, others)
    fake = judged(case, near.F, False) + judged(case, far.F, False)
    return {
        "classification": classified(case, case.F, case.batch) + by_half / 2,
        "adversarial": judged(case, case.F, True) + fake / 2,
        "triplet": triplets(case, case.h, near.h, far.h, others),
    }


def of_the_generator(case: Case) -> Terms:
    (real, far), others = made_rows(case.batch)
    by_half = classified(case, case.F, case.batch) + classified(case, far.F, others)
    return {
        "classification": by_half / 2,
        "adversarial": (judged(case, case.F, True) + judged(case, far.F, True)) / 2,
        "triplet": triplets(case, real.h, case.h, far.h, others),
    }


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_losses_are_the_equations(seed: int, several: bool) -> None:
    assert_literal(make_case(OfTheEncoder, seed, several), of_the_encoder)
    assert_literal(make_case(OfTheGenerator, seed, several), of_the_generator)


@pytest.mark.parametrize("which", [OfTheEncoder, OfTheGenerator])
def test_two_workers_equal_one(which: type[DshGan]) -> None:
    assert_shared(make_case(which, 0))


def test_triplets_have_no_gradient_before_they_count_and_workers_wait_for_none() -> None:
    case = make_case(OfTheEncoder, 0, warm_up=1)
    for counts in (False, True):
        total = case.method._total(case.terms())
        (of_head,) = torch.autograd.grad(total, [case.h])  # an error where it is not connected
        assert bool(of_head.any()) == counts
        case.method.update(case.batch.rows, case.batch.B, {})


def test_labels_are_drawn_among_those_that_share_none() -> None:
    Y = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 0]], np.uint8)
    sets = label_sets(csr_array(Y))
    asked = torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 1, 0], [1, 1, 1]])
    drawn = [draw_dissimilar(asked, sets, torch.full((4,), at)) for at in np.arange(0, 1, 0.01)]
    counts: dict[tuple[float, ...], int] = {}
    for rows in drawn:
        assert rows[1].tolist() == [1, 0, 0]  # the only set without the second label that has any
        assert not rows[2:].any()
        counts[tuple(rows[0].tolist())] = counts.get(tuple(rows[0].tolist()), 0) + 1
    # as often as training rows have them
    assert counts[(0, 1, 0)] == pytest.approx(67, abs=1)
    assert counts[(0, 1, 1)] == pytest.approx(33, abs=1)


@pytest.mark.parametrize("side", [16, 40])
def test_images_are_of_the_size_of_real_ones_and_no_sharper(side: int) -> None:
    torch.manual_seed(0)
    generator = ImageGenerator(3, Workers())
    like = torch.randn(5, 3, side, side)
    made = generator(torch.randn(5, 100), torch.eye(3)[[0, 1, 2, 0, 1]], like)
    assert made.shape == like.shape
    blurred = generator.as_made(like)
    assert (blurred is like) == (side <= 32)
    assert blurred.std() <= like.std()


def test_made_images_leave_the_running_means_alone() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = copy.deepcopy(network.state_dict())
    with unremembered(network):
        network(torch.randn(6, 3, 8, 8))
    after: dict[str, Any] = network.state_dict()
    for name in ("1.running_mean", "1.running_var"):
        assert torch.equal(before[name], after[name])
    network(torch.randn(6, 3, 8, 8))
    assert not torch.equal(before["1.running_mean"], network.state_dict()["1.running_mean"])
