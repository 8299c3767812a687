"""What an evaluation has for pictures, as charts, heatmaps and scatter plots; no drawing here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from schn_ray.report.charts import Chart, Curve
from schn_ray.report.contents import number

_GROUPS = 24  # as many as colours and markers tell apart
_OTHERS = "others"


@dataclass(frozen=True)
class Heatmap:
    """A colour a cell, from ``low`` to ``high``; None has no colour. Labels hold for both sides."""

    title: str
    caption: str
    x_label: str
    y_label: str
    values: tuple[tuple[float | None, ...], ...]
    low: float
    high: float
    row_labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scatter:
    """Points of a plane (x, y, how much lies there), by group; the axes mean nothing."""

    title: str
    caption: str
    groups: tuple[tuple[str, tuple[tuple[float, float, float], ...]], ...]
    x_label: str = ""
    y_label: str = "places of codes"


Diagram = Chart | Heatmap | Scatter
Found = Mapping[str, Any]


def evaluation_diagrams(found: Found) -> list[Diagram]:
    """Return every picture that the numbers of ``diagrams.json`` have something for."""
    made = [
        curves_at_ranks({"": found}),
        _distances(found.get("distances")),
        _confusion(found.get("confusion")),
        _map(found.get("map")),
        _balance(found.get("bits")),
        _correlation(found.get("bits")),
    ]
    return [diagram for diagram in made if diagram is not None]


def curves_at_ranks(runs: Mapping[str, Found]) -> Chart | None:
    """Return precision of the first k images over k, a curve a run."""
    curves = []
    for name, found in runs.items():
        pairs = [(number(at.get("k")), number(at.get("precision"))) for at in found.get("at") or ()]
        points = tuple((k, share) for k, share in pairs if k is not None and share is not None)
        if points:
            curves.append(Curve(name, points))
    if not curves:
        return None
    caption = (
        "Of the k nearest images, the share that is right; images at one distance count by their "
        "chance to be among the k."
    )
    title = "Precision of the first k"
    return Chart(title, caption, "k", "precision", tuple(curves), shares=True, log_x=True)


def map_by_bits(methods: Mapping[str, Mapping[int, tuple[float, float]]]) -> Chart | None:
    """Return mAP over bits; method -> bits -> mean and deviation. None unless bits differ."""
    if len({bits for scores in methods.values() for bits in scores}) < 2:
        return None
    curves = []
    for name, scores in methods.items():
        ordered = sorted(scores.items())
        curves.append(
            Curve(
                name,
                tuple((float(bits), mean) for bits, (mean, _) in ordered),
                tuple(deviation for _, (_, deviation) in ordered),
            )
        )
    caption = "Means over seeds; bars are a deviation each way, of methods with several seeds."
    return Chart("mAP by length of code", caption, "bits", "mAP", tuple(curves), shares=True)


def _distances(found: Found | None) -> Chart | None:
    if not found:
        return None
    curves = []
    for name in ("similar", "dissimilar"):
        counts = found.get(name) or []
        total = sum(counts)
        if total:
            points = tuple((float(d), n / total) for d, n in enumerate(counts))
            curves.append(Curve(name, points))
    caption = (
        "How far the codes of similar pairs (a query and an image that share a label) and of "
        "dissimilar pairs lie apart: the less the two overlap, the better distances tell which is "
        "which."
    )
    title = "Distances of similar and dissimilar pairs"
    return Chart(title, caption, "Hamming distance", "share of pairs", tuple(curves))


def _confusion(found: Found | None) -> Heatmap | None:
    if not found or not found.get("classes"):
        return None
    caption = (
        f"Of the {found['neighbours']} nearest images to a query of the class on the left, the "
        "percentage that is of the class below. Bright cells off the diagonal are mixed up."
    )
    return Heatmap(
        "Which classes are mixed up",
        caption,
        "class of the found image",
        "class of the query",
        tuple(tuple(row) for row in found["share"]),
        0.0,
        1.0,
        tuple(found["classes"]),
    )


def _map(found: Found | None) -> Scatter | None:
    if not found:
        return None
    groups: dict[str, list[tuple[float, float, float]]] = {}
    points = zip(found["x"], found["y"], found["rows"], found["class"], strict=True)
    for x, y, rows, name in points:
        groups.setdefault(name, []).append((x, y, rows))
    # the largest groups, the rest of them together
    names = sorted(groups, key=lambda name: -sum(rows for _, _, rows in groups[name]))
    shown = sorted(names[: _GROUPS - 1] if len(names) > _GROUPS else names)
    rest = [point for name in names if name not in shown for point in groups[name]]
    drawn = [(name, tuple(groups[name])) for name in shown]
    others = [(_OTHERS, tuple(rest))] if rest else []
    caption = (
        f"The codes of {sum(found['rows']):,} gallery images, placed by t-SNE so that near codes "
        "lie near; a larger point is a code that more of them share. The gaps between islands mean "
        "little."
    )
    return Scatter("Map of the codes", caption, (*drawn, *others))


def _balance(found: Found | None) -> Chart | None:
    if not found or not found.get("balance"):
        return None
    points = tuple((float(bit), share) for bit, share in enumerate(found["balance"]))
    caption = (
        "The share of gallery codes that have a bit set. At a half a bit says most; at 0 or 1 it "
        "says nothing."
    )
    return Chart("Balance of the bits", caption, "bit", "share set", (Curve("", points),), True)


def _correlation(found: Found | None) -> Heatmap | None:
    if not found or not found.get("correlation"):
        return None
    caption = (
        "Two bits that go together (1) or against each other (-1) say the same thing twice. With "
        "labels some of that is usual: there are more bits than classes."
    )
    values = tuple(tuple(row) for row in found["correlation"])
    return Heatmap("Correlation of the bits", caption, "bit", "bit", values, -1.0, 1.0)
