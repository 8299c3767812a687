"""A method's networks on several workers: forward passes and descents that equal one process's."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from schn_ray.core.workers import Workers
from schn_ray.methods.base import Batch, DeepMethod, Step
from schn_ray.methods.config import OptimiserConfig, ScheduleConfig
from schn_ray.models.global_dropout import share_dropout
from schn_ray.models.parallel import (
    FactoredLinear,
    average_gradients,
    complete_gradients,
    data_parallel,
    factor_gradients,
)


class Trainer:
    """Optimisers, learning rates and shared gradients of a deep method.

    Args:
        method: on the device where it stays; layers are replaced in place, parameters stay.
        optimiser: kind, learning rate, weight decay.
        schedule: of the learning rate.
        compiled: let torch compile the encoder.

    Attributes:
        optimisers: by the names of ``DeepMethod.optimised``.
    """

    def __init__(
        self,
        method: DeepMethod[Any],
        optimiser: OptimiserConfig,
        schedule: ScheduleConfig,
        compiled: bool = False,
    ) -> None:
        self.method, self.optimiser, self.schedule = method, optimiser, schedule
        self.workers: Workers = method.problem.workers
        for network in method.children():
            if network is not method.encoder:
                factor_gradients(network, self.workers)
        self._dropout = share_dropout(method, self.workers)
        method.encoder.to(memory_format=torch.channels_last)
        encoder = data_parallel(method.encoder, self.workers)
        self._encoder = torch.compile(encoder) if compiled else encoder
        self.optimisers = {
            name: self._optimiser_of(parameters) for name, parameters in method.optimised().items()
        }

    def set_rates(self, done: float) -> None:
        """Set the learning rates of the next step, by the schedule.

        Args:
            done: iterations so far, with the part of the present one.
        """
        rate = self.schedule.rate(done)
        steady = self.method.undecayed()
        for name, optimiser in self.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * (1.0 if name in steady else rate)

    @property
    def learning_rate(self) -> float:
        """The highest present learning rate of all optimisers."""
        return max(group["lr"] for o in self.optimisers.values() for group in o.param_groups)

    def step(self, batch: Batch) -> Step:
        """Take one step of the method on a global batch.

        Args:
            batch: the global batch.
        """
        for layer in self._dropout:
            layer.rows = len(batch.Y)
        return self.method.step(batch, self)

    def encode(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Run the encoder forward, in the number format of the run.

        Args:
            inputs: [b, ...] of this worker's rows.

        Returns:
            F [b, d] and h [b, K].
        """
        with self.method.problem.precision.for_networks():
            F, h = self._encoder(inputs)
        return F, h

    def descend(self, loss: Tensor, name: str = "main") -> None:
        """Take one step of an optimiser down a loss.

        Args:
            loss: scalar; its mean over the workers is the loss of the global batch.
            name: of the optimiser. The encoder's gradients are shared for ``main`` only.
        """
        optimiser = self.optimisers[name]
        optimiser.zero_grad()
        moved = [p for group in optimiser.param_groups for p in group["params"]]
        # DDP's hooks on the encoder run only when backward is given no inputs
        loss.backward(inputs=None if name == "main" else moved)
        complete_gradients(self.method, self.workers, moved)
        average_gradients(self._averaged(moved), self.workers)
        optimiser.step()

    def _averaged(self, moved: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        """Return the parameters that neither DDP nor a factored layer takes care of."""
        factored = [m for m in self.method.modules() if isinstance(m, FactoredLinear)]
        shared = {id(p) for m in (self.method.encoder, *factored) for p in m.parameters()}
        return [p for p in moved if id(p) not in shared]

    def _optimiser_of(self, parameters: list[nn.Parameter]) -> Optimizer:
        settings = self.optimiser
        backbone = {id(p) for p in self.method.encoder.backbone.parameters()}
        groups = [
            {"params": group, "lr": rate, "initial_lr": rate}
            for group, rate in (
                ([p for p in parameters if id(p) not in backbone], settings.learning_rate),
                (
                    [p for p in parameters if id(p) in backbone],
                    settings.learning_rate * settings.backbone_rate,
                ),
            )
            if group
        ]
        if settings.kind == "sgd":
            return SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)
        adam = Adam if settings.kind == "adam" else AdamW
        # fused: one pass over memory, which limits the speed of a step on a CPU
        return adam(groups, weight_decay=settings.weight_decay, fused=True)
