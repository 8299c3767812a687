"""Settings that all trained methods share: the schedule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schn_ray.core.settings import Count, Section, Weight


class ScheduleConfig(Section):
    """An outer iteration is ``epochs`` over ``samples`` drawn rows, then one code update.

    Training ends after ``iterations``, or after ``patience`` validations without a better one.
    """

    iterations: Count = 50
    epochs: Count = 3
    samples: Count = 5000
    batch_size: Count = 64
    learning_rate: Annotated[float, Field(gt=0)] = 4e-5
    weight_decay: Weight = 1e-5
    decay_after: tuple[int, ...] = (5, 40)
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.2
    decay: Literal["all", "adversarial"] = "all"
    eval_every: Count = 1
    patience: Count | None = None
