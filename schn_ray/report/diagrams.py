"""Diagrams of an evaluation as charts, heatmaps and scatter plots, not yet drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schn_ray.evaluation.plot_data import (
    BitStatistics,
    CodeMap,
    Confusion,
    PairDistances,
    PlotData,
    RankPoint,
)
from schn_ray.report.charts import Chart, Curve

_GROUPS = 24  # as many as colours and markers can tell apart
_OTHERS = "others"


@dataclass(frozen=True)
class Heatmap:
    """A coloured cell a value.

    Attributes:
        title: shown above it.
        caption: shown below it.
        x_label: of the columns.
        y_label: of the rows.
        values: rows of cells; None has no colour.
        low: the value of the first colour.
        high: the value of the last colour.
        row_labels: of the rows and, equally, of the columns; empty for none.
    """

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
    """Points of a plane; the axes have no meaning.

    Attributes:
        title: shown above it.
        caption: shown below it.
        groups: (name, points); a point is (x, y, weight).
        x_label: of the x axis.
        y_label: of the y axis.
    """

    title: str
    caption: str
    groups: tuple[tuple[str, tuple[tuple[float, float, float], ...]], ...]
    x_label: str = ""
    y_label: str = "positions of codes"


Diagram = Chart | Heatmap | Scatter


def evaluation_diagrams(plots: PlotData) -> list[Diagram]:
    """Return the diagrams of an evaluation; one without numbers is left out.

    Args:
        plots: the numbers.
    """
    diagrams = [
        curves_at_ranks({"": plots.at}),
        _distances(plots.distances),
        _confusion(plots.confusion),
        _map(plots.map),
        _balance(plots.bits),
        _correlation(plots.bits),
    ]
    return [diagram for diagram in diagrams if diagram is not None]


def curves_at_ranks(runs: Mapping[str, Sequence[RankPoint]]) -> Chart | None:
    """Return precision of the first k images over k, a curve a run.

    Args:
        runs: name for the legend -> points.

    Returns:
        None where no run has points.
    """
    curves = []
    for name, ranks in runs.items():
        points = tuple((at.k, at.precision) for at in ranks if at.precision is not None)
        if points:
            curves.append(Curve(name, points))
    if not curves:
        return None
    caption = (
        "The share of right images among the k nearest. An image at the last distance counts by "
        "its probability to be among the k."
    )
    title = "Precision of the first k"
    return Chart(title, caption, "k", "precision", tuple(curves), shares=True, log_x=True)


def map_by_bits(methods: Mapping[str, Mapping[int, tuple[float, float]]]) -> Chart | None:
    """Return mAP over bits, a curve a method.

    Args:
        methods: method -> bits -> mean and deviation over seeds.

    Returns:
        None where all codes have one length.
    """
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
    caption = "Means over seeds; error bars are one standard deviation each way."
    return Chart("mAP by length of code", caption, "bits", "mAP", tuple(curves), shares=True)


def _distances(pairs: PairDistances | None) -> Chart | None:
    if pairs is None:
        return None
    curves = []
    for name, counts in (("similar", pairs.similar), ("dissimilar", pairs.dissimilar)):
        total = sum(counts)
        if total:
            points = tuple((float(d), n / total) for d, n in enumerate(counts))
            curves.append(Curve(name, points))
    caption = (
        "Distances of similar pairs (a query and an image that share a label) and of dissimilar "
        "pairs. The less the two curves overlap, the better a distance tells which a pair is."
    )
    title = "Distances of similar and dissimilar pairs"
    return Chart(title, caption, "Hamming distance", "share of pairs", tuple(curves))


def _confusion(confusion: Confusion | None) -> Heatmap | None:
    if confusion is None or not confusion.classes:
        return None
    caption = (
        f"Of the {confusion.neighbours} nearest images to a query of the class on the left, the "
        "percentage that is of the class below. Bright cells off the diagonal are mixed up."
    )
    return Heatmap(
        "Which classes are mixed up",
        caption,
        "class of the image",
        "class of the query",
        confusion.share,
        0.0,
        1.0,
        confusion.classes,
    )


def _map(codes: CodeMap | None) -> Scatter | None:
    if codes is None:
        return None
    groups: dict[str, list[tuple[float, float, float]]] = {}
    for x, y, rows, name in zip(codes.x, codes.y, codes.rows, codes.classes, strict=True):
        groups.setdefault(name, []).append((x, y, rows))
    # the largest groups; all others are one group
    names = sorted(groups, key=lambda name: -sum(rows for _, _, rows in groups[name]))
    shown = sorted(names[: _GROUPS - 1] if len(names) > _GROUPS else names)
    rest = [point for name in names if name not in shown for point in groups[name]]
    drawn = [(name, tuple(groups[name])) for name in shown]
    others = [(_OTHERS, tuple(rest))] if rest else []
    caption = (
        f"The codes of {sum(codes.rows):,} gallery images, arranged by t-SNE so that near codes "
        "lie near each other. A larger point is a code that more images share. The gaps between "
        "islands mean little."
    )
    return Scatter("Map of the codes", caption, (*drawn, *others))


def _balance(bits: BitStatistics | None) -> Chart | None:
    if bits is None or not bits.balance:
        return None
    points = tuple((float(bit), share) for bit, share in enumerate(bits.balance))
    caption = (
        "The share of gallery codes in which a bit is 1. A bit has most information at one half, "
        "and none at 0 or 1."
    )
    return Chart("Balance of the bits", caption, "bit", "share set", (Curve("", points),), True)


def _correlation(bits: BitStatistics | None) -> Heatmap | None:
    if bits is None or not bits.correlation:
        return None
    caption = (
        "Two bits that are always equal (1) or always opposite (-1) hold the same information. "
        "With labels this is usual to a degree: there are more bits than classes."
    )
    title = "Correlation of the bits"
    return Heatmap(title, caption, "bit", "bit", bits.correlation, -1.0, 1.0)
