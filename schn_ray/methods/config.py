"""Settings that all methods share: the optimiser, and the schedule of training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schn_ray.core.settings import Count, Section, Share, Weight

Rate = Annotated[float, Field(gt=0)]


class OptimiserConfig(Section):
    """How weights descend.

    Attributes:
        kind: ``adam`` with weight decay in the gradient, ``adamw`` with weight decay beside it, or
            ``sgd`` with momentum.
        learning_rate: of the first iteration, see ``ScheduleConfig``.
        backbone_rate: factor of the backbone's learning rate.
        weight_decay: of all weights.
        momentum: of ``sgd``.
    """

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Rate = 4e-5
    backbone_rate: Rate = 1.0
    weight_decay: Weight = 1e-5
    momentum: Share = 0.9


class ScheduleConfig(Section):
    """The schedule of outer iterations; defaults as SCHN was published.

    An outer iteration is ``epochs`` over ``samples`` drawn rows, then the method's update. Training
    ends after ``iterations``, or after ``patience`` validations in a row without a new best one.
    Each iteration number in ``decay_after`` that has passed multiplies the learning rate by
    ``decay_factor``. A method that is fitted in rounds takes all rows until its last round.
    """

    iterations: Count = 50
    epochs: Count = 3
    samples: Count = 5000
    batch_size: Count = 64
    decay_after: tuple[int, ...] = (5, 40)
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.2
    eval_every: Count = 1
    patience: Count | None = None
