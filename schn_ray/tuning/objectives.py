"""The objectives of a search: figures of a training that need no test queries."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

VALIDATION_MAP, BITS, ENCODING_COST = "validation_map", "bits", "encoding_cost"


@dataclass(frozen=True)
class Objective:
    """One figure of a trial.

    Attributes:
        direction: whether more or less of it is better.
        title: for tables and axes.
        decided_by: prefixes of the settings that it depends on; it is the same in all trials of a
            space that has none of them. Empty: it depends on all settings.
    """

    direction: Literal["maximize", "minimize"]
    title: str
    decided_by: tuple[str, ...] = ()

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.direction == "maximize" else -1


OBJECTIVES: Mapping[str, Objective] = {
    VALIDATION_MAP: Objective("maximize", "validation mAP"),
    BITS: Objective("minimize", "bits of a code", ("bits",)),
    ENCODING_COST: Objective("minimize", "MFLOP an image", ("backbone.", "head.")),
}


def encoding_cost(network: Any, shape: tuple[int, ...]) -> float:
    """Count the floating point operations that encode one image or vector, in millions.

    They are counted and not timed: the figure is the same on every machine and in every trial. As
    torch counts, a multiplication and an addition are two; element-wise operations do not count.

    Args:
        network: backbone and head; it is left in evaluation mode.
        shape: of one input, such as (3, 224, 224).

    >>> from torch import nn
    >>> encoding_cost(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 16)), (3, 8, 8))
    0.006144
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    numbers = itertools.chain(network.parameters(), network.buffers())  # fitted heads have buffers
    device = next(numbers).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, *shape, device=device))
    return float(counter.get_total_flops() / 1e6)
