"""TSSDH against its equations, pair by pair, and its predictions of labels."""

import numpy as np
import pytest
import torch
from support.loss_problem import (
    BATCH,
    CLASSES,
    DRAWS,
    Case,
    assert_literal,
    assert_shared,
    make_case,
)
from torch import Tensor

from schn_ray.methods.deep.tssdh import Tssdh


def predicted(seed: int, several: bool = True) -> Case:
    """Return a case in which a row without a label has a predicted one, and little confidence."""
    case = make_case(Tssdh, seed, several, feature_margin=2.0)
    if not several:
        case.method.classes[0] = int(case.batch.Y[1].argmax())
        case.method.confidence[0] = 0.3
    return case


def literal(case: Case) -> dict[str, Tensor]:
    method, config, K = case.method, case.method.config, case.h.shape[1]
    n = range(BATCH)
    Y = [set(torch.nonzero(y)[:, 0].tolist()) for y in case.batch.Y]
    r = []
    for i, row in enumerate(case.batch.rows.tolist()):
        r.append(float(method.confidence[row]) if not Y[i] else 1.0)
        if int(method.classes[row]) >= 0:
            Y[i] = {int(method.classes[row])}
    f = [F / (F**2).sum() ** 0.5 for F in case.F]
    pair, feature, weights = 0 * case.h.sum(), 0 * case.F.sum(), 0.0
    for i in n:
        for j in n:
            if i == j or not r[i] * r[j]:
                continue
            x = 4 / K * ((case.U[i] - case.U[j]) ** 2).sum() / 4
            d = ((f[i] - f[j]) ** 2).sum()
            if Y[i] & Y[j]:
                pair, feature = pair + r[i] * r[j] * x, feature + r[i] * r[j] * d
            else:
                pair = pair - r[i] * r[j] * torch.log(1 - torch.exp(-x))
                feature = feature + r[i] * r[j] * (config.feature_margin - d).clamp(min=0)
            weights += r[i] * r[j]
    classes, known = 0 * case.F.sum(), 0.0
    several = bool((method.problem.label_sets.sets.sum(axis=1) > 1).any())
    for i in n:
        if not r[i]:
            continue
        logits = torch.stack([(w * case.F[i]).sum() for w in method.classifier.linear.weight])
        logits = logits + method.classifier.linear.bias
        known += r[i]
        if several:
            p = 1 / (1 + torch.exp(-logits))
            for c in range(CLASSES):
                classes = classes - r[i] * torch.log(p[c] if c in Y[i] else 1 - p[c])
        else:
            (c,) = Y[i]
            classes = classes - r[i] * torch.log(logits[c].exp() / logits.exp().sum())
    return {
        "pair": pair / weights,
        "classification": classes / known,
        "feature": feature / weights,
        "quantization": ((case.U.abs() - 1) ** 2).sum() / case.U.numel(),
    }


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(predicted(seed, several), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(predicted(0, several=False))


def test_a_row_without_confidence_has_no_gradient_but_of_the_corners() -> None:
    case = make_case(Tssdh, 0, quantization=0.0)
    terms = case.terms()
    (sum(terms.values()) - terms["quantization"]).backward()
    unlabelled = case.batch.rows.tolist().index(0)
    assert case.h.grad is not None
    assert case.F.grad is not None
    assert not case.h.grad[unlabelled].any()
    assert not case.F.grad[unlabelled].any()
    assert case.h.grad.any(dim=1).sum() == BATCH - 1


def test_rows_get_the_likeliest_class_and_less_confidence_where_others_are_far() -> None:
    case = make_case(Tssdh, 1, several=False, supervised_iterations=2, neighbours=2)
    method, rows = case.method, torch.arange(6)
    method._known[:] = torch.arange(len(method._known)) >= 3  # rows 0, 1 and 2 have no label
    f = torch.tensor([[0.0], [0.1], [0.7], [0.2], [1.0], [1.1]])
    outputs = {"U": torch.zeros(6, 8), "f": f, "class": torch.tensor([4.0, 3, 2, 0, 0, 0])}
    before = method.confidence.clone()
    method.update(rows, torch.zeros(6, 8), outputs)
    assert torch.equal(method.confidence, before)
    assert (method.classes == -1).all()
    method.update(rows, torch.zeros(6, 8), outputs)
    assert method.classes[:4].tolist() == [4, 3, 2, -1]
    sums = np.array([0.1 + 0.2, 0.1 + 0.1, 0.3 + 0.4])
    np.testing.assert_allclose(method.confidence[:3], 1 - sums / sums.max(), atol=1e-6)
    assert torch.equal(method.confidence[3:], before[3:])


def test_where_rows_have_several_labels_none_is_predicted() -> None:
    case = make_case(Tssdh, 1, several=True, supervised_iterations=1)
    outputs = {"U": torch.zeros(2, 8), "f": torch.randn(2, 3), "class": torch.zeros(2)}
    case.method.update(torch.arange(2), torch.zeros(2, 8), outputs)
    assert (case.method.classes == -1).all()
