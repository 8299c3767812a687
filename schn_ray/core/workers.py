"""Collective operations of the workers of one run: all use of torch.distributed is here.

The global batch is the batch: W workers compute what one process would compute on all their rows.
A loss that is a mean over a worker's own rows is multiplied by ``Workers.share``. Then *averaging*
gradients over the workers, as DDP does, gives the gradient of the mean over the global batch, even
if the workers have different numbers of rows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
import torch.distributed as dist

# Imported before a process group exists. DistributedDataParallel imports it later, and its default
# arguments would then hold the group for good: destroy_process_group could not end gloo's threads,
# and one that lets go of a tensor while the interpreter shuts down aborts the process.
import torch.distributed.nn.functional
from torch import Tensor

Gather = Callable[[Tensor], Tensor]
"""This worker's rows [b, ...] -> the rows of all workers [N, ...], in the order of the batch."""


def identity(own: Tensor) -> Tensor:
    """Return the argument: gather and sum of a single process.

    Args:
        own: rows [b, ...].
    """
    return own


@dataclass(frozen=True)
class Workers:
    """The processes that share each global batch.

    Attributes:
        rank: number of this process, in [0, size).
        size: how many there are; with one, nothing is sent.
    """

    rank: int = 0
    size: int = 1

    def rows_of_each(self, total: int) -> list[int]:
        """Return how many rows of a global batch each worker has; they differ by at most one.

        Args:
            total: rows of the global batch.

        Example:
            >>> Workers(size=3).rows_of_each(8)
            [3, 3, 2]
        """
        each, rest = divmod(total, self.size)
        return [each + (rank < rest) for rank in range(self.size)]

    def own(self, total: int) -> slice:
        """Return this worker's slice of a global batch.

        Args:
            total: rows of the global batch.
        """
        ends = list(accumulate(self.rows_of_each(total), initial=0))
        return slice(ends[self.rank], ends[self.rank + 1])

    def share(self, total: int) -> float:
        """Return the factor for a mean over this worker's rows.

        The average over workers of (share x own mean) is the mean over the global batch.

        Args:
            total: rows of the global batch.
        """
        return self.rows_of_each(total)[self.rank] * self.size / total

    def gather(self, total: int) -> Gather:
        """Return the differentiable gather for one global batch.

        Args:
            total: rows of the global batch.
        """
        if self.size == 1:
            return identity
        sizes = self.rows_of_each(total)
        return lambda own: _GatherRows.apply(own, sizes, self.rank)

    def gather_any(self, own: Tensor) -> Tensor:
        """Concatenate rows of all workers, in order of rank; without a gradient.

        Args:
            own: this worker's rows [b, ...]; b may differ between workers.
        """
        if self.size == 1:
            return own
        counts = [torch.zeros(1, dtype=torch.int64, device=own.device) for _ in range(self.size)]
        dist.all_gather(counts, torch.tensor([len(own)], device=own.device))
        return _gather_rows(own, [int(count) for count in counts])

    def sum(self, own: Tensor) -> Tensor:
        """Return the sum of a tensor over all workers; without a gradient.

        Args:
            own: this worker's summand, of the same shape on every worker.
        """
        if self.size == 1:
            return own
        total = own.clone()
        dist.all_reduce(total)
        return total

    def any(self, own: bool) -> bool:
        """Tell whether something is true of any worker; all of them get the same answer.

        Args:
            own: whether it is true of this worker.
        """
        return bool(self.sum(torch.tensor([float(own)])).item())

    def meet(self) -> None:
        """Wait until all workers have called this."""
        self.sum(torch.zeros(()))

    def sum_with_gradient(self, own: Tensor) -> Tensor:
        """Return the sum of a tensor over all workers; gradients flow through it.

        Args:
            own: this worker's summand, of the same shape on every worker.
        """
        return own if self.size == 1 else _Sum.apply(own)


def current_workers() -> Workers:
    """Return the workers of the initialised process group, or a single one."""
    if not dist.is_initialized():
        return Workers()
    return Workers(dist.get_rank(), dist.get_world_size())


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        total = own.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # every worker's loss depends on the sum: its gradient is the sum of their gradients
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _gather_rows(own: Tensor, sizes: list[int]) -> Tensor:
    padded = own.new_zeros(max(sizes), *own.shape[1:])  # all_gather needs equal shapes
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, own: Tensor, sizes: list[int], rank: int) -> Tensor:
        start = sum(sizes[:rank])
        ctx.own = slice(start, start + sizes[rank])
        return _gather_rows(own, sizes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        # every worker's loss may depend on every row: a row's gradient is the sum over all of them
        total = gradient.contiguous().clone()
        dist.all_reduce(total)
        return total[ctx.own], None, None
