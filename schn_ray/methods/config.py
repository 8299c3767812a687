"""Settings that all methods share: the optimiser, and the schedule of training."""

from __future__ import annotations

from math import cos, pi
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
        warm_up: share of the iterations over which the learning rate rises evenly from 0.
        decay_kind: how it falls then: by ``steps``, or along half a ``cosine`` towards 0 at the end
            of training (SGDR, arXiv 1608.03983, eq. 5).
        decay_after: of ``steps``, numbers of iterations after which the learning rate falls.
        decay_factor: of ``steps``, what the learning rate is multiplied by then.
        eval_every: iterations from one validation to the next.
        patience: validations in a row without a new best one, after which training ends; null:
            never.
    """

    iterations: Count = 50
    epochs: Count = 3
    samples: Count = 5000
    batch_size: Count = 64
    warm_up: Share = 0.0
    decay_kind: Literal["steps", "cosine"] = "steps"
    decay_after: tuple[int, ...] = (5, 40)
    decay_factor: Annotated[float, Field(gt=0, le=1)] = 0.2
    eval_every: Count = 1
    patience: Count | None = None

    def rate(self, done: float) -> float:
        """Return what the learning rate is multiplied by.

        Args:
            done: iterations so far, with the part of the present one.

        Example:
            >>> [ScheduleConfig(decay_after=(2,)).rate(done) for done in (0.5, 1.5, 2.5)]
            [1.0, 1.0, 0.2]
            >>> risen = ScheduleConfig(warm_up=0.2, decay_kind="cosine", iterations=5)
            >>> [round(risen.rate(done), 2) for done in (0.1, 0.5, 1, 3, 5)]
            [0.1, 0.5, 1.0, 0.5, 0.0]
        """
        rising = self.warm_up * self.iterations
        if done < rising:
            return done / rising
        if self.decay_kind == "cosine":
            return (1 + cos(pi * (done - rising) / (self.iterations - rising))) / 2
        passed = sum(done >= after for after in self.decay_after)
        return self.decay_factor**passed
