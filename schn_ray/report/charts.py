"""Charts of a report: a run's history and precision over recall as curves, not yet drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schn_ray.evaluation.figures import PRPoint
from schn_ray.report.contents import number

Rows = Sequence[Mapping[str, Any]]
MOST_CURVES = 12  # as many as colours and line styles can tell apart

_LOSSES = (
    (
        "Hash losses",
        {"hash_image": "image", "hash_semantic": "semantic", "hash_latent": "latent"},
        "How far products of codes are from the similarity of their labels, one curve a network.",
    ),
    (
        "Cycle losses",
        {"cycle_image": "image", "cycle_semantic": "semantic"},
        "How far each code is from its reconstruction out of the latent space.",
    ),
    (
        "Adversarial losses",
        {"adversarial": "reconstruction", "discriminator": "discriminator"},
        "Reconstruction against discriminator: the aim is a balance, not zero.",
    ),
)


_PLAIN = (  # title, name in the history, y axis, whether from 0 to 1, caption
    (
        "Distance between class codes",
        "code_distance",
        "bits",
        False,
        "Smallest Hamming distance between the majority codes of two classes; 0: they are equal.",
    ),
    ("Speed", "images_per_second", "images/s", False, "All workers together, while training."),
    (
        "Waiting for images",
        "data_wait",
        "share of the time",
        True,
        "If this is large, more CPUs (--cpus) or smaller files help; more GPUs do not.",
    ),
    (
        "Learning rate",
        "learning_rate",
        "learning rate",
        False,
        "The highest of all optimisers, in the last step.",
    ),
)


@dataclass(frozen=True)
class Curve:
    """Points joined by a line.

    Attributes:
        label: for the legend; empty for none.
        points: (x, y).
        errors: half the length of each point's error bar; empty for none.
    """

    label: str
    points: tuple[tuple[float, float], ...]
    errors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """One pair of axes with its curves.

    Attributes:
        title: shown above it.
        caption: shown below it.
        x_label: of the x axis.
        y_label: of the y axis.
        curves: at least one.
        shares: the y axis goes from 0 to 1.
        whole_x: x values are counts; otherwise the x axis goes from 0 to 1.
        log_x: the x axis is logarithmic.
    """

    title: str
    caption: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    shares: bool = False
    whole_x: bool = True
    log_x: bool = False


def training_charts(history: Rows) -> list[Chart]:
    """Return the charts of a run: losses and validation first, then speed.

    Args:
        history: a row an outer iteration.
    """
    charts = [*loss_charts(history), _validation(history), _unique_share(history)]
    charts += [_plain(history, *named) for named in _PLAIN]
    return [chart for chart in charts if chart is not None]


def loss_charts(history: Rows) -> list[Chart]:
    """Return one chart a family of losses; terms of no family share the last chart.

    Args:
        history: a row an outer iteration; ``loss`` maps a term to its value.
    """
    losses = [{"iteration": row.get("iteration"), **(row.get("loss") or {})} for row in history]
    known = {name for _, names, _ in _LOSSES for name in names}
    other = {name: name for row in losses for name in row if name not in known | {"iteration"}}
    families = [*_LOSSES, ("Other losses", other, "Further terms of the objective.")]
    charts = []
    for title, names, caption in families:
        curves = tuple(c for name, label in names.items() if (c := _curve(losses, name, label)))
        if curves:
            charts.append(Chart(title, caption, "outer iteration", "loss", curves))
    return charts


def precision_recall(runs: Mapping[str, Sequence[PRPoint]]) -> Chart | None:
    """Return precision over recall, a curve a run and a point a distance threshold.

    Args:
        runs: name for the legend -> points.

    Returns:
        None where no run has points.
    """
    curves = []
    for name, points in runs.items():
        drawn = tuple((at.recall, at.precision) for at in points if at.precision is not None)
        if drawn:
            curves.append(Curve(name, drawn))
    if not curves:
        return None
    caption = (
        "One point a distance threshold, from 0 bits on: the share of right images among all "
        "within the threshold, over the share of all right images that lie within it."
    )
    title = "Precision and recall"
    return Chart(title, caption, "recall", "precision", tuple(curves), shares=True, whole_x=False)


def _validation(history: Rows) -> Chart | None:
    curve = _curve(history, "validation_map", "")
    if curve is None:
        return None
    best, at = max((y, -x) for x, y in curve.points)
    caption = f"On rows held out of training; best {best:.3f}, after iteration {-at:g}."
    title = "Validation mAP"
    return Chart(title, caption, "outer iteration", "mAP", (curve,), shares=True)


def _unique_share(history: Rows) -> Chart | None:
    curve = _curve(history, "unique_share", "")
    if curve is None:
        return None
    caption = (
        f"Distinct codes among all codes of the training rows, {curve.points[-1][1]:.1%} at the "
        "end. Few are usual with labels; a single one would be a collapsed training."
    )
    title = "Share of distinct codes"
    return Chart(title, caption, "outer iteration", "share", (curve,), shares=True)


def _plain(
    history: Rows, title: str, name: str, y_label: str, shares: bool, caption: str
) -> Chart | None:
    curve = _curve(history, name, "")
    return Chart(title, caption, "outer iteration", y_label, (curve,), shares) if curve else None


def _curve(rows: Rows, name: str, label: str) -> Curve | None:
    """Return a value over the iteration, of the rows that have both; None where no row has."""
    pairs = [(number(row.get("iteration")), number(row.get(name))) for row in rows]
    points = tuple((a, b) for a, b in pairs if a is not None and b is not None)
    return Curve(label, points) if points else None
