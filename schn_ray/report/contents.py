"""What a report is made of: plain values, read by the functions that draw and write."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Picture:
    """An image as its file's bytes, any format that Pillow reads; ``caption`` is shown below it."""

    id: str
    image: bytes = field(repr=False)
    caption: str = ""

    @property
    def label(self) -> str:
        """The caption, or else the last part of the id, which may be a long path."""
        return self.caption or self.id.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Neighbour:
    """A found image, ``distance`` bits away; ``relevant`` is None where labels are not known."""

    picture: Picture
    distance: int
    relevant: bool | None = None


@dataclass(frozen=True)
class Example:
    """A query and what was found for it, nearest first; ``kind``: why it is shown."""

    query: Picture
    neighbours: Sequence[Neighbour]
    kind: str = ""

    @property
    def verdict(self) -> str:
        """How many neighbours share a label with the query, in words; empty if none is judged."""
        judged = [n.relevant for n in self.neighbours if n.relevant is not None]
        return f"{sum(judged)} of {len(judged)} right" if judged else ""


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows; what is missing is left out of the page.

    Attributes:
        title: the headline.
        command: the command line that made the result.
        summary_rows: (label, value, note), the few figures to see first.
        metrics: what ``evaluate`` wrote: ``gallery_codes``, ``map``, ``pr_curve`` ...
        diagrams: what it wrote for pictures: ``distances``, ``bits``, ``confusion`` ...
        history: one mapping an outer iteration: ``iteration``, ``loss``, ``validation_map`` ...
        examples: queries with their nearest gallery images.
        provenance: name -> value of what made the result; may be nested.
    """

    title: str
    command: str | None = None
    summary_rows: Sequence[tuple[str, str, str]] = ()
    metrics: Mapping[str, Any] = field(default_factory=dict)
    diagrams: Mapping[str, Any] = field(default_factory=dict)
    history: Sequence[Mapping[str, Any]] = ()
    examples: Sequence[Example] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


def number(value: object) -> float | None:
    """Return a finite number as it is, anything else as None.

    >>> number(0.5), number(None), number(float("nan"))
    (0.5, None, None)
    """
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return None
