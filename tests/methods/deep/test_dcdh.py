"""DCDH against its equations; its update is that of SCHN, with two more codes."""

import pytest
import torch
from support.loss_problem import DRAWS, Case, assert_literal, assert_shared, make_case
from torch import Tensor

from schn_ray.methods.deep.dcdh import Dcdh

SMALL = {"hidden": 7, "dropout": 0.0}


def three_layers(network: torch.nn.Sequential, x: Tensor) -> Tensor:
    first, second, third = (layer for layer in network if isinstance(layer, torch.nn.Linear))
    x = (first.weight @ x + first.bias).clamp(min=0)
    x = (second.weight @ x + second.bias).clamp(min=0)
    return torch.tanh(third.weight @ x + third.bias)


def literal(case: Case) -> dict[str, Tensor]:
    method, U, B, Y = case.method, case.U, case.batch.B, case.batch.Y
    N, K = U.shape
    labels = method.problem.label_sets
    all_Y = torch.from_numpy(labels.sets[labels.set_of_row].toarray()).double()
    similar = sum(bool((y * z).any()) for y in all_Y for z in all_Y)
    negative = -similar / (len(all_Y) ** 2 - similar)
    L = torch.stack([three_layers(method.label_network, y) for y in Y])
    fused = []
    for u, of_labels in zip(U, L, strict=True):
        product = torch.stack([of_labels[a] * u[b] for a in range(K) for b in range(K)])
        fused.append(three_layers(method.fusion_network, product))

    def hashed(X: Tensor) -> Tensor:
        pairs = 0
        for i in range(N):
            for j in range(N):
                T = 1 if case.similar[i][j] else negative
                pairs = pairs + (K * T - (X[i] * B[j]).sum()) ** 2
        off = ((X - B) ** 2).sum() / (N * K)
        return 12 / K * pairs / N**2 + method.config.quantization * off

    focal = 0
    for f, y in zip(fused, Y, strict=True):
        for z, y_c in zip(method.classifier.weight @ f + method.classifier.bias, y, strict=True):
            p = 1 / (1 + torch.exp(-z))
            focal = focal - (
                0.25 * (1 - p) ** 2 * torch.log(p) if y_c else 0.75 * p**2 * torch.log(1 - p)
            )
    return {
        "hash_image": hashed(U),
        "hash_label": hashed(L),
        "hash_fused": hashed(torch.stack(fused)),
        "focal": focal / Y.numel(),
        "agree": ((U - L) ** 2).sum() / N,
    }


@pytest.mark.parametrize(("seed", "several"), DRAWS)
def test_the_loss_is_the_equation(seed: int, several: bool) -> None:
    assert_literal(make_case(Dcdh, seed, several, **SMALL), literal)


def test_two_workers_equal_one() -> None:
    assert_shared(make_case(Dcdh, 0, **SMALL))


def test_each_network_pulls_at_the_codes() -> None:
    case = make_case(Dcdh, 0, **SMALL)
    n = case.method.problem.rows
    rows, B = torch.arange(n), torch.ones(n, 8)
    outputs = {name: torch.rand(n, 8) * 2 - 1 for name in ("U", "U_label", "U_fused")}
    solved = case.method.update(rows, B, outputs)
    assert solved.abs().eq(1).all()
    for name in outputs:
        target = torch.rand(n, 8) * 2 - 1
        strong = {**outputs, name: 1e6 * target} if name != "U" else None
        if strong is not None:
            assert torch.equal(case.method.update(rows, B, strong) > 0, target > 0)
