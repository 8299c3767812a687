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
        learning_rate: in the first iteration; ``schedule`` says when it falls.
        backbone_rate: factor of the backbone's learning rate.
        weight_decay: its strength, on all weights.
        momentum: of ``sgd``; the others have none.
    """

    kind: Literal["adam", "adamw", "sgd"] = "adam"
    learning_rate: Rate = 4e-5
    backbone_rate: Rate = 1.0
    weight_decay: Weight = 1e-5
    momentum: Share = 0.9


class ScheduleConfig(Section):
    """The schedule of outer iterations; defaults as SCHN was published.

    An outer iteration is some epochs over drawn rows, then the method's update. A method that is
    fitted in rounds takes all rows until its last round.

    Attributes:
        iterations: outer iterations, at most.
        epochs: how often each iteration goes over the rows that it drew.
        samples: rows that are drawn for each iteration, at most.
        batch_size: rows of a batch, of all workers together.
        decay_after: numbers of iterations after which the learning rate falls.
        decay_factor: what the learning rate is multiplied by then.
        eval_every: iterations from one validation to the next.
        patience: validations in a row without a new best one, after which training ends; null:
            never.
    """

    iterations: Count = 50
    epochs: Count = 3
    samples: Count = 5000
    batch_size: Count = 64
    decay_after: tuple[int, ...] = (5, 40)
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.2
    eval_every: Count = 1
    patience: Count | None = None
