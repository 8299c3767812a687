"""An outer iteration of a shallow method: one round of its fit to the features of all rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from schn_ray.core.errors import SchnRayError
from schn_ray.methods.base import ShallowMethod
from schn_ray.methods.config import ScheduleConfig
from schn_ray.methods.shallow.feature_rows import FeatureRows
from schn_ray.training.batches import TrainingVectors, sampled_rows
from schn_ray.training.state import Learned, Run


class Fitting:
    """Fits a shallow method, a round at a time.

    What a fit has learned of each row may be large and lies on all workers. So a checkpoint has
    none of it: a run that goes on repeats the rounds that it had done, with the same result.

    Args:
        method: at its beginning.
    """

    repeats = True

    def __init__(self, method: ShallowMethod[Any]) -> None:
        self.method = method

    def most_iterations(self, schedule: ScheduleConfig) -> int | None:
        """Return None: the method's own settings say how many rounds there are."""
        return None

    def releasable(self, run: Run) -> bool:
        """Tell whether the fit has ended: earlier rounds are not released."""
        return run.converged

    def validation_due(self, run: Run) -> bool:
        """Tell whether the fit has ended."""
        return run.converged

    def state_dict(self) -> dict[str, Any]:
        """Return nothing: rounds are repeated."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore nothing."""

    def iterate(self, run: Run) -> Learned:
        """Do one round over the features of all training rows."""
        data = run.data
        if not isinstance(data, TrainingVectors):
            raise SchnRayError(
                "this method is fitted to features, and the store has images: leave out "
                "--set backbone.frozen=false, so that the backbone computes features first"
            )
        rows = FeatureRows(
            lambda numbers: data.vectors(data.store_rows[numbers]),
            len(data),
            data.width,
            workers=run.workers,
            threads=run.decoder.threads,
        )
        fit = self.method.fit(rows, run.iteration)
        if self.method.solves_codes():
            run.table.packed[:] = self.method.solved_codes(rows)
            run.table.coded[:] = True
        shown = sampled_rows(len(data), run.schedule.samples, run.seed, run.iteration)
        if fit.encodes:
            own = shown[run.workers.own(len(shown))]
            encoded = torch.from_numpy(run.encode(data.vectors(data.store_rows[own])))
            codes = run.workers.gather_any(encoded).numpy()
        else:
            codes = run.table.packed[shown]
        return Learned(
            loss=fit.terms,
            rows=shown,
            codes=codes,
            passes=1,
            learning_rate=0.0,
            converged=fit.converged,
        )
