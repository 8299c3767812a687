"""Heads as shallow methods and block codes need them, against their definitions in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.models.config import HeadSpec
from schn_ray.models.heads.build import build_head
from schn_ray.models.heads.fitted import FittedHead

N, D, K, M, S = 300, 20, 9, 30, 3
Floats = NDArray[np.float64]


def fitted(seed: int, **settings: Any) -> tuple[FittedHead, dict[str, Any], Floats]:
    """Return a head with random numbers in it, these numbers, and features."""
    rng = np.random.default_rng(seed)
    spec = HeadSpec(kind="fitted", **settings)
    columns = 5 if spec.output == "two_layer" else K
    numbers: dict[str, Any] = {
        "mean": rng.normal(size=D),
        "W": rng.normal(size=(spec.anchors or D, columns)),
        "t": rng.normal(size=columns) / 10,
    }
    if spec.map != "identity":
        anchors = rng.normal(size=(M, D))
        numbers["anchors"] = anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
        numbers["kernel_width"] = 1.3
    if spec.output == "two_layer":
        numbers["thresholds"] = rng.normal(size=(2, columns))
    head = build_head(spec, D, K)
    assert isinstance(head, FittedHead)
    head.fill(**numbers)
    return head, numbers, rng.normal(size=(N, D)) + numbers["mean"]


def prepared(numbers: dict[str, Any], X: Floats) -> Floats:
    X = X - numbers["mean"]
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def distances(numbers: dict[str, Any], X: Floats) -> Floats:
    x = prepared(numbers, X)
    return ((x[:, None] - numbers["anchors"][None]) ** 2).sum(axis=2)


def kernel(numbers: dict[str, Any], X: Floats) -> Floats:
    return np.exp(-distances(numbers, X) / numbers["kernel_width"])


def anchor_graph(numbers: dict[str, Any], X: Floats) -> Floats:
    z = np.zeros((N, M))
    for row, of_row in zip(z, distances(numbers, X), strict=True):
        near = np.argsort(of_row)[:S]
        row[near] = np.exp(-of_row[near] / numbers["kernel_width"])
        row /= row.sum()
    return z


def two_layers(u: Floats, thresholds: Floats) -> Floats:
    out = np.zeros((N, 2 * u.shape[1]))
    for row in range(N):
        for column, value in enumerate(u[row]):
            out[row, column] = value
            out[row, u.shape[1] + column] = abs(value) - thresholds[0 if value > 0 else 1, column]
    return out[:, :K]


CASES: list[tuple[dict[str, Any], Any]] = [
    ({}, prepared),
    ({"output": "cos"}, prepared),
    ({"map": "kernel", "anchors": M}, kernel),
    ({"map": "anchor_graph", "anchors": M, "nearest": S}, anchor_graph),
    ({"map": "anchor_graph", "anchors": M, "nearest": S, "output": "two_layer"}, anchor_graph),
]


@pytest.mark.parametrize(("settings", "mapped"), CASES)
@pytest.mark.parametrize("seed", range(5))
def test_a_fitted_head_is_its_definition(settings: dict[str, Any], mapped: Any, seed: int) -> None:
    head, numbers, X = fitted(seed, **settings)
    u = mapped(numbers, X) @ numbers["W"] - numbers["t"]
    expected = u
    if settings.get("output") == "cos":
        expected = np.cos(u)
    elif settings.get("output") == "two_layer":
        expected = two_layers(u, numbers["thresholds"])
    h = head(torch.from_numpy(X.astype(np.float32))).numpy()
    assert h.shape == (N, K)
    np.testing.assert_allclose(h, expected, atol=2e-5)
    differ = (h >= 0) != (expected >= 0)
    assert np.abs(expected[differ]).max(initial=0) < 2e-5
    assert differ.mean() < 1e-3


def test_without_unit_length_and_with_a_row_that_equals_the_mean() -> None:
    head, numbers, X = fitted(0, unit=False)
    expected = (X - numbers["mean"]) @ numbers["W"] - numbers["t"]
    h = head(torch.from_numpy(X.astype(np.float32))).numpy()
    np.testing.assert_allclose(h, expected, atol=1e-4)
    head, numbers, _ = fitted(0)
    mean = torch.from_numpy(numbers["mean"].astype(np.float32))
    np.testing.assert_allclose(head(mean[None])[0].numpy(), -numbers["t"], rtol=1e-5)


def test_nothing_of_a_fitted_head_is_descended_and_all_of_it_is_saved() -> None:
    head, _, X = fitted(0, map="kernel", anchors=M)
    assert not list(head.parameters())
    again = build_head(HeadSpec(kind="fitted", map="kernel", anchors=M), D, K)
    again.load_state_dict(head.state_dict())
    x = torch.from_numpy(X.astype(np.float32))
    assert torch.equal(again(x), head(x))


def test_bfloat16_does_not_reach_distances() -> None:
    head, _, X = fitted(0, map="kernel", anchors=M)
    x = torch.from_numpy(X.astype(np.float32))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(head(x), head(x.clone()))
        h = head(x)
    assert h.dtype == torch.float32
    assert torch.equal(h, head(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"W": np.zeros((D, K + 1))}, r"W: expected the shape \(20, 9\), got \(20, 10\)"),
        ({"anchors": np.zeros((M, D))}, r"expected \['W', 'mean', 't'\]"),
    ],
)
def test_numbers_that_do_not_fit(change: dict[str, Any], message: str) -> None:
    head, numbers, _ = fitted(0)
    with pytest.raises(ValueError, match=message):
        head.fill(**(numbers | change))


@pytest.mark.parametrize(
    "spec",
    [
        HeadSpec(kind="mlp"),
        HeadSpec(kind="blocks"),
        HeadSpec(kind="blocks", block=4),
        HeadSpec(kind="fitted", map="kernel"),
        HeadSpec(kind="fitted", map="anchor_graph", anchors=5),
    ],
)
def test_a_size_that_is_missing_or_does_not_fit(spec: HeadSpec) -> None:
    with pytest.raises(SchnRayError, match=r"needs '|do not divide into blocks of 4"):
        build_head(spec, D, K)


def test_blocks_have_a_one_at_the_largest_output_and_train_on_the_outputs() -> None:
    torch.manual_seed(0)
    head = build_head(HeadSpec(kind="blocks", block=3), D, K)
    x = torch.randn(50, D)
    assert head.train()(x).requires_grad
    z, codes = head(x).detach(), head.eval()(x).detach()
    ties = 0
    for row, code in zip(z.view(50, 3, 3), codes.view(50, 3, 3), strict=True):
        for block, bits in zip(row, code, strict=True):
            positive = [max(float(value), 0.0) for value in block]
            ties += positive.count(max(positive)) > 1
            expected = [-1.0] * 3
            expected[positive.index(max(positive))] = 1.0  # the first of equal ones
            assert bits.sign().tolist() == expected
    assert ties > 0


def test_products_with_codes_are_the_scores_of_look_up_tables() -> None:
    torch.manual_seed(0)
    head = build_head(HeadSpec(kind="blocks", block=3), D, K).double()
    x = torch.randn(50, D, dtype=torch.float64)
    z, h = head.train()(x), head.eval()(x)
    tables, ones = z.relu().view(50, 3, 3), h.view(50, 3, 3).argmax(dim=2)
    scores = torch.zeros(50, 50, dtype=torch.float64)
    for query in range(50):
        for row in range(50):
            scores[query, row] = sum(tables[query, m, ones[row, m]] for m in range(3))
    products = h @ h.sign().T / 2
    of_query = (products - scores)[:, :1]  # the constant of each query
    torch.testing.assert_close(products, scores + of_query, atol=1e-5, rtol=0)
