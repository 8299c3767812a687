"""Nested codes: all code lengths from one training, as any prefix of a code is a code.

The loss is the mean of the method's own losses of the lengths k, each of the first k outputs of
one head. NHL (arXiv 2412.08922) weighs the lengths by how their gradients agree; here they are
equal, and a mean, so that a learning rate and a weight decay mean what they do for one length. Each
length has its own state: proxies, classifiers, a table of codes. What is drawn once, such as class
centres, is drawn so that its first k bits are good centres of k bits (``centres.nested_codes``):
the lengths pull the bits that they share to the same centres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from schn_ray.core.errors import SchnRayError
from schn_ray.methods.base import (
    Batch,
    DeepMethod,
    Method,
    MethodConfig,
    Problem,
    Step,
    Training,
    weighted,
)
from schn_ray.methods.code_table import CodeTable
from schn_ray.models.encoder import Encoder


def require_nestable(method: type[Method[Any]], name: str, lengths: Sequence[int]) -> None:
    """Check that a method can train codes of several lengths at once.

    Args:
        method: its class.
        name: of the method, for the error.
        lengths: of the codes.

    Raises:
        ValueError: it cannot, and why; or ``lengths`` do not ascend.
    """
    if list(lengths) != sorted(set(lengths)) or lengths[0] < 1:
        raise ValueError(f"expected lengths that ascend, such as [16, 32, 64], not {list(lengths)}")
    reason = method.not_nested
    if issubclass(method, DeepMethod) and method.relaxed is not DeepMethod.relaxed and not reason:
        reason = "its codes are not the signs of its outputs"
    if reason:
        raise ValueError(f"{name} has no nested codes: {reason}; train each length by itself")


class Nested(DeepMethod[MethodConfig]):
    """A method whose loss runs over the first k bits, for each length k.

    A step passes the encoder once, and takes one step of the optimiser down the mean. Each length
    is a method of its own, a *member*, which sees k outputs and codes of k bits; its terms are
    exact on any number of workers as they are alone, and so is their mean.

    Args:
        method: class of the method.
        config: its settings.
        problem: with ``lengths``.
        encoder: of the longest codes.

    Raises:
        SchnRayError: the method has several optimisers, so that a step is not one loss.
    """

    def __init__(
        self,
        method: type[DeepMethod[Any]],
        config: MethodConfig,
        problem: Problem,
        encoder: Encoder,
    ) -> None:
        super().__init__(config, problem, encoder)
        self.members = nn.ModuleDict(
            {str(k): _member(method, config, problem, encoder, k) for k in problem.lengths}
        )
        names = sorted(set(self.longest.optimised()) - {"main"})
        if names:
            raise SchnRayError(
                f"{config.name} has no nested codes: its steps have more optimisers than one "
                f"({', '.join(names)}); train each length by itself"
            )
        self._tables = {k: CodeTable(problem.rows, k) for k in problem.lengths[:-1]}

    @property
    def longest(self) -> DeepMethod[Any]:
        """The member of all K bits."""
        return self._member(self.problem.bits)

    def start(self, codes: CodeTable) -> None:
        """Set the codes of all lengths that training rows start from."""
        self.longest.start(codes)
        for k, table in self._tables.items():
            self._member(k).start(table)

    def optimised(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of the one optimiser: the encoder and all members."""
        return {"main": list(self.parameters())}

    def undecayed(self) -> frozenset[str]:
        """Return the names of optimisers whose learning rate stays as it is."""
        return self.longest.undecayed()

    def step(self, batch: Batch, training: Training) -> Step:
        """Descend the mean of the members' losses, once on a global batch."""
        out = self.encoded(batch, training)
        of_length, outputs = list[dict[str, Tensor]](), dict[str, Tensor]()
        each = batch
        for k in self.problem.lengths:
            each = each.with_codes(self._codes(k, batch))  # what one length computed is shared
            terms, own = self._member(k).losses_and_outputs(out.first(k), each)
            of_length.append(terms)
            if k == self.problem.bits:
                outputs |= own
            else:  # the first columns of the longest U are its own
                outputs |= {_of_length(k, name): x for name, x in own.items() if name != "U"}
        terms = {name: torch.stack([each[name] for each in of_length]).mean() for name in terms}
        training.descend(batch.share * weighted(terms, self.config))
        return Step({name: term.detach() for name, term in terms.items()}, outputs)

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """Return new codes of the longest length, and keep those of the shorter ones."""
        gather = self.problem.workers.gather_any
        for k, table in self._tables.items():
            own = {
                name: outputs[key] for name in outputs if (key := _of_length(k, name)) in outputs
            }
            own["U"] = outputs["U"][:, :k]
            solved = self._member(k).update(rows, table.read(rows), own)
            if solved is not None:
                table.write(gather(rows), gather(solved))
        return self.longest.update(rows, B, outputs)

    def get_extra_state(self) -> dict[str, dict[str, Tensor]]:
        """Return the shorter lengths' codes of the training rows, for a checkpoint."""
        return {str(k): table.state_dict() for k, table in self._tables.items()}

    def set_extra_state(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Restore what ``get_extra_state`` returned."""
        for k, table in self._tables.items():
            table.load_state_dict({name: x.cpu() for name, x in state[str(k)].items()})

    def _member(self, bits: int) -> DeepMethod[Any]:
        member: Any = self.members[str(bits)]
        return member

    def _codes(self, bits: int, batch: Batch) -> Tensor:
        """Return the codes of a batch's rows for one length [N, bits]."""
        if bits == self.problem.bits:
            return batch.B
        if not self.longest.solves_codes():
            return batch.B[:, :bits]  # zeros
        return self._tables[bits].read(batch.rows).to(batch.B)


class NestedNetwork(DeepMethod[MethodConfig]):
    """The same for a method with ``one_network``, whose networks serve all lengths.

    Args:
        method: class of the method.
        config: its settings.
        problem: with ``lengths``.
        encoder: of the longest codes.
    """

    def __init__(
        self,
        method: type[DeepMethod[Any]],
        config: MethodConfig,
        problem: Problem,
        encoder: Encoder,
    ) -> None:
        super().__init__(config, problem, encoder)
        self.longest = _member(method, config, problem, encoder, problem.bits)
        # codes of all shorter lengths, each in as many columns as the longest: one look-up for all
        self._shorter = CodeTable(problem.rows, (len(problem.lengths) - 1) * problem.bits)

    def start(self, codes: CodeTable) -> None:
        """Set the codes of all lengths that training rows start from: first bits of the longest."""
        self.longest.start(codes)
        rows = codes.coded.nonzero()[0]
        self._shorter.write(rows, codes.read(rows).repeat(1, len(self.problem.lengths) - 1))

    def optimised(self) -> dict[str, list[nn.Parameter]]:
        """Return the parameters of each optimiser."""
        return self.longest.optimised()

    def undecayed(self) -> frozenset[str]:
        """Return the names of optimisers whose learning rate stays as it is."""
        return self.longest.undecayed()

    def step(self, batch: Batch, training: Training) -> Step:
        """Take the method's step of all lengths, once on a global batch."""
        return self.longest.step_of_lengths(batch, self._codes(batch.rows, batch.B), training)

    def update(self, rows: Tensor, B: Tensor, outputs: Mapping[str, Tensor]) -> Tensor | None:
        """Return new codes of the longest length, and keep those of the shorter ones."""
        codes, bits = self._codes(rows, B), self.problem.bits
        padded = list[Tensor]()
        for i, k in enumerate(self.problem.lengths):
            own = {name: x[:, :k] for name, x in outputs.items()}
            solved = self.longest.update(rows, codes[:, i, :k], own)
            if solved is None:
                return None
            padded.append(pad(solved, (0, bits - k)))
        gather, shorter = self.problem.workers.gather_any, torch.cat(padded, dim=1)[:, :-bits]
        self._shorter.write(gather(rows), gather(shorter))
        return padded[-1]

    def get_extra_state(self) -> dict[str, Tensor]:
        """Return the shorter lengths' codes of the training rows, for a checkpoint."""
        return self._shorter.state_dict()

    def set_extra_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what ``get_extra_state`` returned."""
        self._shorter.load_state_dict({name: x.cpu() for name, x in state.items()})

    def _codes(self, rows: Tensor, B: Tensor) -> Tensor:
        """Return the codes of rows for each length [N, L, K]; B [N, K]: those of the longest."""
        shorter = self._shorter.read(rows).to(B)
        return torch.cat([shorter, B], dim=1).unflatten(1, (-1, self.problem.bits))


def _of_length(bits: int, name: str) -> str:
    return f"{name} of {bits} bits"


def _member(
    method: type[DeepMethod[Any]],
    config: MethodConfig,
    problem: Problem,
    encoder: Encoder,
    bits: int,
) -> DeepMethod[Any]:
    """Return the method of the first bits."""
    member = method(config, replace(problem, bits=bits), encoder)
    del member.encoder
    member.__dict__["encoder"] = encoder  # at hand, but its weights are not the member's
    return member
