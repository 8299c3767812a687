"""A small problem for a deep method's loss: in float64, compared with a literal version of it."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from torch import Tensor, nn

from schn_ray.core.workers import Gather, Workers
from schn_ray.data.labels import label_sets
from schn_ray.methods.base import Batch, DeepMethod, Outputs, Problem, weighted
from schn_ray.models.config import HeadConfig
from schn_ray.models.encoder import Encoder
from schn_ray.models.heads.build import build_head
from schn_ray.models.precision import Precision

BITS, WIDTH, CLASSES, ROWS, BATCH = 8, 6, 5, 14, 9
SEEDS = range(20)
# of each loss: half of the draws have rows of several labels, and each has a row without any
DRAWS = [
    pytest.param(seed, seed % 2 > 0, id=f"{seed}-{'several labels' if seed % 2 else 'one label'}")
    for seed in SEEDS
]

Terms = Mapping[str, Tensor]


class Case(NamedTuple):
    """A method and a global batch of it.

    Attributes:
        method: in float64.
        batch: of all workers' rows.
        F: [N, d] features, which gradients reach.
        h: [N, K] output of the head, which gradients reach.
        second: both of a second view; None for a method of one view.
    """

    method: Any
    batch: Batch
    F: Tensor
    h: Tensor
    second: Outputs | None = None

    @property
    def U(self) -> Tensor:  # noqa: N802
        """[N, K] tanh h."""
        return torch.tanh(self.h)

    @property
    def similar(self) -> list[list[bool]]:
        """[N, N]: whether two rows share a label."""
        sets = [set(torch.nonzero(y)[:, 0].tolist()) for y in self.batch.Y]
        return [[bool(a & b) for b in sets] for a in sets]

    @property
    def inputs(self) -> list[Tensor]:
        """What gradients reach beside the method's parameters."""
        return [self.F, self.h] + ([] if self.second is None else list(self.second[:2]))

    def outputs(self, rows: slice = slice(None)) -> Outputs:
        """Return what the encoder gives for rows of the batch."""
        out = Outputs(self.F[rows], self.h[rows])
        if self.second is None:
            return out
        return out._replace(second=Outputs(self.second.F[rows], self.second.h[rows]))

    def terms(self) -> dict[str, Tensor]:
        """Return the method's terms."""
        return self.method.losses(self.outputs(), self.batch)


def make_case(
    method: type[DeepMethod[Any]],
    seed: int,
    several: bool = True,
    bits: int = BITS,
    **settings: Any,
) -> Case:
    """Return a method with random weights and a batch; a row of it has no label."""
    torch.manual_seed(seed)
    Y = labels_of(seed, several)
    problem = Problem(bits, WIDTH, label_sets(csr_array(Y)), Workers(), _precision(), seed)
    config = method.Config.model_validate(settings)
    spec = method.choose_head(config, HeadConfig())
    head = build_head(spec, WIDTH, bits)
    built = method(config, problem, Encoder(nn.Linear(WIDTH, WIDTH), head)).double().train()
    rows = np.random.default_rng([seed, 1]).permutation(ROWS)[:BATCH]
    if 0 not in rows:
        rows[0] = 0  # the row without a label
    B = torch.randint(0, 2, (BATCH, bits)).double() * 2 - 1
    labels = torch.from_numpy(Y[rows]).double()
    batch = Batch(torch.randn(BATCH, WIDTH), torch.from_numpy(rows), labels, B)
    columns = spec.hidden if spec.kind == "words" else bits
    F, h, *second = [
        torch.randn(BATCH, width, dtype=torch.float64, requires_grad=True)
        for width in [WIDTH, columns] * len(method.views)
    ]
    return Case(built, batch, F, h, Outputs(*second) if second else None)


def class_loss(x: Tensor, linear: nn.Linear, case: Case, mean: bool = False) -> Tensor:
    """Return by loops the loss of a classifier on x [N, D], a mean over rows with a label."""
    several = bool((case.method.problem.label_sets.sets.sum(axis=1) > 1).any())
    rows = []
    for row, y in zip(x, case.batch.Y, strict=True):
        logits = torch.stack([(w * row).sum() for w in linear.weight])
        logits = logits if linear.bias is None else logits + linear.bias
        if not y.any():
            continue
        if several:
            p = 1 / (1 + torch.exp(-logits))
            entries = [-torch.log(q if y_c else 1 - q) for q, y_c in zip(p, y, strict=True)]
            rows.append(sum(entries, torch.zeros(())) / (len(entries) if mean else 1))
        else:
            rows.append(-torch.log(logits[int(y.argmax())].exp() / logits.exp().sum()))
    return torch.stack(rows).sum() / len(rows)


def assert_literal(case: Case, literal: Callable[[Case], Terms]) -> None:
    """Check that terms, and their gradients, are those of a literal version."""
    fresh = copy.deepcopy(case.method)  # of a method with state, both start from the same
    ours, expected = case.terms(), literal(case._replace(method=fresh))
    assert ours.keys() == expected.keys()
    inputs = [*case.inputs, *case.method.parameters()]
    copies = [*case.inputs, *fresh.parameters()]
    for name, term in ours.items():
        torch.testing.assert_close(term, expected[name], rtol=1e-10, atol=1e-10, msg=_in(name))
        gradients = zip(_gradients(term, inputs), _gradients(expected[name], copies), strict=True)
        for gradient, other in gradients:
            torch.testing.assert_close(gradient, other, rtol=1e-8, atol=1e-10, msg=_in(name))


def assert_shared(case: Case, size: int = 2) -> None:
    """Check that workers with unequal shares of a batch have its loss and its gradients."""
    copies = [copy.deepcopy(case.method) for _ in range(size)]
    room = _Room(threading.Barrier(size), [torch.empty(0)] * size)

    def of_worker(rank: int) -> Tensor:
        batch = replace(case.batch, workers=_Thread(rank, size, room))
        try:
            terms = copies[rank].losses(case.outputs(batch.own), batch)
        except BaseException:
            room.barrier.abort()
            raise
        return batch.share * weighted(terms, case.method.config) / size

    with ThreadPoolExecutor(size) as pool:
        shared = torch.stack(list(pool.map(of_worker, range(size)))).sum()
    alone = weighted(case.terms(), case.method.config)
    torch.testing.assert_close(shared, alone, rtol=1e-10, atol=1e-12)
    mine = _gradients(shared, case.inputs)
    for gradient, other in zip(mine, _gradients(alone, case.inputs), strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-8, atol=1e-12)
    of_copies = [_gradients(shared, list(c.parameters())) for c in copies]
    for parts, other in zip(
        zip(*of_copies, strict=True),
        _gradients(alone, list(case.method.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(sum(parts), other, rtol=1e-8, atol=1e-12)
    for copied in copies:
        for buffer, other in zip(copied.buffers(), case.method.buffers(), strict=True):
            torch.testing.assert_close(buffer, other)


@dataclass
class _Room:
    """Where threads that stand for workers put what they exchange."""

    barrier: threading.Barrier
    slots: list[Tensor]

    def exchange(self, rank: int, own: Tensor) -> list[Tensor]:
        self.slots[rank] = own
        self.barrier.wait(30)
        parts = list(self.slots)
        self.barrier.wait(30)
        return parts


@dataclass(frozen=True)
class _Thread(Workers):
    """A worker in a thread: gathered rows stay in one graph, so gradients are exact."""

    room: _Room = field(default_factory=lambda: _Room(threading.Barrier(1), []))

    def gather(self, total: int) -> Gather:
        return lambda own: torch.cat(self.room.exchange(self.rank, own))

    def gather_any(self, own: Tensor) -> Tensor:
        return torch.cat(self.room.exchange(self.rank, own)).detach()

    def sum(self, own: Tensor) -> Tensor:
        return self.sum_with_gradient(own).detach()

    def sum_with_gradient(self, own: Tensor) -> Tensor:
        return torch.stack(self.room.exchange(self.rank, own)).sum(dim=0)


def labels_of(seed: int, several: bool) -> np.ndarray[Any, Any]:
    rng = np.random.default_rng([seed, 0])
    Y = np.zeros((ROWS, CLASSES), np.uint8)
    Y[np.arange(ROWS), rng.integers(0, CLASSES, ROWS)] = 1
    if several:
        Y |= (rng.random((ROWS, CLASSES)) < 0.25).astype(np.uint8)
        Y[1, :2] = 1
    Y[0] = 0
    return Y


def _precision() -> Precision:
    return Precision("float32", torch.device("cpu"))


def _gradients(term: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    if not term.requires_grad:
        return [torch.zeros_like(x) for x in inputs]
    moved = [x for x in inputs if x.requires_grad]
    found = torch.autograd.grad(term, moved, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(moved, found, strict=True)]


def _in(name: str) -> Callable[[str], str]:
    return lambda message: f"{name}: {message}"
