"""The contents of a report: values that the drawing and writing functions read."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schn_ray.core.settings import flattened
from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.plot_data import PlotData

BEST_QUERIES, WORST_QUERIES, OTHER_QUERIES = "The best queries", "The worst queries", "Others"
_DIGEST = re.compile(r"[0-9a-f]{32,}")


@dataclass(frozen=True)
class Picture:
    """An image on a page.

    Attributes:
        id: of its row, or the path of its file.
        image: the file's bytes, in any format that Pillow reads.
        caption: shown below it.
    """

    id: str
    image: bytes = field(repr=False)
    caption: str = ""

    @property
    def label(self) -> str:
        """The caption, or else the last part of the id, which may be a long path."""
        return self.caption or self.id.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class Neighbour:
    """A result image, ``distance`` bits from the query.

    ``relevant`` is None without labels, ``score`` where distances alone make the order.
    """

    picture: Picture
    distance: int
    relevant: bool | None = None
    score: float | None = None


@dataclass(frozen=True)
class Example:
    """A query and its results, nearest first; ``kind`` is the heading under which it is shown.

    ``note`` says how its results were chosen.
    """

    query: Picture
    neighbours: Sequence[Neighbour]
    kind: str = ""
    note: str = ""

    @property
    def verdict(self) -> str:
        """How many neighbours share a label with the query, in words; empty without labels."""
        judged = [n.relevant for n in self.neighbours if n.relevant is not None]
        return f"{sum(judged)} of {len(judged)} right" if judged else ""


@dataclass(frozen=True)
class ReportData:
    """Everything that a report of one run shows; the page leaves out what is missing.

    Attributes:
        title: the heading.
        command: the command line that wrote the result.
        summary_rows: (label, value, note) of the few figures at the top.
        figures: of the run's evaluation; None without one.
        plots: the numbers of the evaluation's diagrams.
        history: one mapping an outer iteration: ``iteration``, ``loss``, ``validation_map`` ...
        examples: queries with their nearest gallery images.
        provenance: name -> value: model, versions, settings; may be nested.
    """

    title: str
    command: str | None = None
    summary_rows: Sequence[tuple[str, str, str]] = ()
    figures: Figures | None = None
    plots: PlotData = field(default_factory=PlotData)
    history: Sequence[Mapping[str, Any]] = ()
    examples: Sequence[Example] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Fact:
    """A setting, a version or a digest that a page names.

    Attributes:
        name: dotted.
        value: all of it.
    """

    name: str
    value: str

    @property
    def short(self) -> str:
        """The first digits of a long digest; otherwise empty."""
        return self.value[:12] if _DIGEST.fullmatch(self.value) else ""


def facts(nested: Mapping[str, Any]) -> list[tuple[str, list[Fact]]]:
    """Return (heading, facts) of nested values; plain values at the top come first.

    Args:
        nested: name -> value, or a mapping, whose name becomes a heading.

    Example:
        >>> facts({"seed": 0, "made_from": {"model": "1b4f"}})[1]
        ('Made from', [Fact(name='model', value='1b4f')])
    """
    plain = {name: value for name, value in nested.items() if not isinstance(value, Mapping)}
    groups: list[tuple[str, Mapping[str, Any]]] = [("", plain)]
    groups += [(name, value) for name, value in nested.items() if isinstance(value, Mapping)]
    return [
        (
            name.replace("_", " ").capitalize(),
            [Fact(key, str(value)) for key, value in flattened(values).items()],
        )
        for name, values in groups
        if values
    ]


def number(value: object) -> float | None:
    """Return a finite number unchanged, anything else as None.

    Args:
        value: such as an entry of a run's history.

    >>> number(0.5), number(None), number(float("nan"))
    (0.5, None, None)
    """
    if isinstance(value, int | float) and math.isfinite(value):
        return value
    return None
