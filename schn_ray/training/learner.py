"""What the loop asks of a learner: an outer iteration, and a state for the checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from schn_ray.methods.config import ScheduleConfig
    from schn_ray.training.batches import Rows
    from schn_ray.training.state import Run


class Learned(NamedTuple):
    """Results of one outer iteration, the same on all workers.

    Attributes:
        loss: mean of each term, unweighted.
        rows: [m] training rows that it went over.
        codes: [m, ceil(K/8)] packed codes that the encoder gave them.
        passes: how often it went over them.
        learning_rate: the highest of all optimisers; 0 where nothing is descended.
        converged: whether a further iteration would change nothing.
    """

    loss: dict[str, float]
    rows: Rows
    codes: NDArray[np.uint8]
    passes: int
    learning_rate: float
    converged: bool = False


class Learner(Protocol):
    """Changes a run's method and codes, an outer iteration at a time."""

    def iterate(self, run: Run) -> Learned:
        """Do the outer iteration ``run.iteration``.

        Raises:
            SchnRayError: the training rows do not suit the method.
        """

    def most_iterations(self, schedule: ScheduleConfig) -> int | None:
        """Return after how many iterations a run ends; None: when it has converged."""

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint needs of method and learner."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
