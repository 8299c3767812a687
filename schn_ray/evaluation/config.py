"""Settings of ``evaluate``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from schn_ray.core.settings import Count, Section


class ControlsConfig(Section):
    """The controls of an evaluation; 0 training rows leave them out.

    ``gallery_rows``: at most so many gallery rows, drawn at random, are ranked for the controls and
    for the model beside them, since unquantised features cost a thousand times what codes do.
    """

    train_rows: Annotated[int, Field(ge=0)] = 5_000
    gallery_rows: Count = 20_000
    queries: Count = 2_000
    seed: Annotated[int, Field(ge=0)] = 0


class EvaluateConfig(Section):
    """What ``evaluate`` ranks, and at which ranks it measures.

    ``audit``: whether a split that would spoil the figures is refused, or only reported.
    ``legacy``: tie rules of others, measured beside the exact figures. ``part_rows``: gallery rows
    that are counted at once, on one worker.
    """

    gallery: Literal["encoded", "learned", "both"] = "encoded"
    ks: tuple[Count, ...] = (10, 100, 1000, 5000)
    radius: Annotated[int, Field(ge=0)] = 2
    examples: Annotated[int, Field(ge=0)] = 12
    batch_size: Count = 64
    audit: Literal["refuse", "report"] = "refuse"
    legacy: tuple[Literal["stable", "reversed", "unstable"], ...] = ()
    part_rows: Count = 250_000
    controls: ControlsConfig = ControlsConfig()
