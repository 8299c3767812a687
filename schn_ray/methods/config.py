"""Settings that all methods share: the schedule of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schn_ray.core.settings import Count, Section, Weight


class ScheduleConfig(Section):
    """The schedule of outer iterations; defaults as published.

    An outer iteration is ``epochs`` over ``samples`` drawn rows, then one code update. Training
    ends after ``iterations``, or after ``patience`` validations in a row without a new best one.
    Each iteration number in ``decay_after`` that has passed multiplies the learning rate by
    ``decay_factor``.
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
