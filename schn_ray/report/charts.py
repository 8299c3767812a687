"""Which curves a report shows: history and metrics turned into charts, with no drawing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from schn_ray.report.contents import number

Rows = Sequence[Mapping[str, Any]]

_LOSSES = (
    (
        "Hash losses",
        {"hash_image": "image", "hash_semantic": "semantic", "hash_latent": "latent"},
        "How far products of codes are from the similarity of their labels, a network each.",
    ),
    (
        "Cycle losses",
        {"cycle_image": "image", "cycle_semantic": "semantic"},
        "How far each code is from its reconstruction out of the latent space.",
    ),
    (
        "Adversarial losses",
        {"adversarial": "reconstruction", "discriminator": "discriminator"},
        "Reconstruction against discriminator: a balance is the aim, not zero.",
    ),
)


_PLAIN = (  # title, name in the history, y axis, whether from 0 to 1, caption
    (
        "Distance between class codes",
        "code_distance",
        "bits",
        False,
        "Smallest Hamming distance between the majority codes of two classes; at 0 two are one.",
    ),
    ("Speed", "images_per_second", "images/s", False, "Of all workers together, while training."),
    (
        "Waiting for images",
        "data_wait",
        "share of the time",
        True,
        "Where this is large, more CPUs (--cpus) or smaller files would help; more GPUs would not.",
    ),
    ("Learning rate", "learning_rate", "learning rate", False, "The highest of all optimisers."),
)


@dataclass(frozen=True)
class Curve:
    """Points joined by a line; ``label`` is for the legend, ``errors`` half a bar's length each."""

    label: str
    points: tuple[tuple[float, float], ...]
    errors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chart:
    """One pair of axes. ``shares``: both ends of the y axis are fixed at 0 and 1.

    ``whole_x``: x counts something; otherwise it goes from 0 to 1. ``log_x``: it counts far.
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
    """Return the charts of a run: what it learns first, then how fast."""
    charts = [*loss_charts(history), _validation(history), _unique_share(history)]
    charts += [_plain(history, *named) for named in _PLAIN]
    return [chart for chart in charts if chart is not None]


def loss_charts(history: Rows) -> list[Chart]:
    """Return one chart a family of losses; a term that is in no family is shown by its own name."""
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


def precision_recall(
    metrics: Mapping[str, Any], named: Mapping[str, Mapping[str, Any]] | None = None
) -> Chart | None:
    """Return precision over recall, a point a distance threshold; of several runs by name."""
    runs = named or {"": metrics}
    curves = [
        _curve(each.get("pr_curve") or (), "precision", name, x="recall")
        for name, each in runs.items()
    ]
    known = tuple(curve for curve in curves if curve is not None)
    if not known:
        return None
    caption = (
        "A point a distance threshold, from 0 bits on: of all gallery images within it, the share "
        "that is right, over the share of all right ones that it finds."
    )
    title = "Precision and recall"
    return Chart(title, caption, "recall", "precision", known, shares=True, whole_x=False)


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


def _curve(rows: Rows, name: str, label: str, x: str = "iteration") -> Curve | None:
    """Return the points of rows that have both numbers, or None where no row has."""
    pairs = [(number(row.get(x)), number(row.get(name))) for row in rows]
    points = tuple((a, b) for a, b in pairs if a is not None and b is not None)
    return Curve(label, points) if points else None
