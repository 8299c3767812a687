"""An outer iteration of a shallow method: one round of its fit to the features of all rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from schn_ray.core.errors import SchnRayError
from schn_ray.methods.base import ShallowMethod
from schn_ray.training.batches import TrainingVectors, sampled_rows
from schn_ray.training.learner import Learned

if TYPE_CHECKING:
    from schn_ray.training.state import Run


class Fitting:
    """Fits a shallow method, a round at a time.

    Args:
        method: its state is in its buffers, so the checkpoint has it.
    """

    def __init__(self, method: ShallowMethod[Any]) -> None:
        self.method = method

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: all state is the method's."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""

    def iterate(self, run: Run) -> Learned:
        """Do one round over the features of all training rows."""
        data = run.data
        if not isinstance(data, TrainingVectors):
            raise SchnRayError(
                "this method is fitted to features, and the store has images: add "
                "--set backbone.frozen=true, so that the backbone computes features first"
            )
        from schn_ray.methods.shallow.feature_rows import FeatureRows

        rows = FeatureRows(
            lambda numbers: data.vectors(data.store_rows[numbers]),
            len(data),
            data.width,
            workers=run.workers,
        )
        fit = self.method.fit(rows, run.iteration)
        shown = sampled_rows(len(data), run.schedule.samples, run.seed, run.iteration)
        own = shown[run.workers.own(len(shown))]
        codes = run.encode(data.vectors(data.store_rows[own]))
        return Learned(
            loss=fit.terms,
            rows=shown,
            codes=run.workers.gather_any(torch.from_numpy(codes)).numpy(),
            passes=1,
            learning_rate=0.0,
            converged=fit.converged,
        )
