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
_TWINS = 0.95  # correlation above which two bits hold the same information


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


@dataclass(frozen=True)
class Bar:
    """A bar of ``Bars``.

    Attributes:
        name: beside it.
        value: its length.
        interval: ends of its error bar; None for none.
        strong: whether it stands out, as the one that the others are compared with.
    """

    name: str
    value: float
    interval: tuple[float, float] | None = None
    strong: bool = False


@dataclass(frozen=True)
class Bars:
    """A bar a name, the first on top.

    Attributes:
        title: shown above it.
        caption: shown below it.
        x_label: of the lengths.
        bars: at least one.
        y_label: of the names.
        shares: the x axis goes from 0 to 1.
    """

    title: str
    caption: str
    x_label: str
    bars: tuple[Bar, ...]
    y_label: str = ""
    shares: bool = False


@dataclass(frozen=True)
class BitBars:
    """An upright bar a bit, from 0 to 1.

    Attributes:
        title: shown above it.
        caption: shown below it.
        y_label: of the values.
        values: of each bit; None has no bar.
        flagged: bits that stand out.
        flag: what they are, for the legend.
        middle: where a line marks the best value; None for none.
        x_label: of the bits.
    """

    title: str
    caption: str
    y_label: str
    values: tuple[float | None, ...]
    flagged: tuple[int, ...] = ()
    flag: str = ""
    middle: float | None = None
    x_label: str = "bit"


Diagram = Chart | Heatmap | Scatter | Bars | BitBars


def code_diagrams(plots: PlotData) -> list[Diagram]:
    """Return the map of the codes and the correlation of all bits; without numbers, none.

    Args:
        plots: the numbers of an evaluation.
    """
    diagrams = [_map(plots.map), _correlation(plots.bits)]
    return [diagram for diagram in diagrams if diagram is not None]


def dead_bits(bits: BitStatistics | None) -> tuple[int, ...]:
    """Return the bits that are the same in every gallery code, and so tell nothing.

    Args:
        bits: of an evaluation; None where it has none.
    """
    balance = bits.balance if bits else ()
    return tuple(bit for bit, share in enumerate(balance) if share in (0.0, 1.0))


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
    return Chart("mAP by length of code", caption, "bits", "mAP", tuple(curves))


def distance_curves(pairs: PairDistances | None) -> Chart | None:
    """Return how far similar and dissimilar pairs lie apart.

    Args:
        pairs: of an evaluation.

    Returns:
        None without numbers.
    """
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


def mixed_classes(confusion: Confusion | None) -> Heatmap | None:
    """Return of which classes the nearest images to the queries of each class are.

    Args:
        confusion: of an evaluation.

    Returns:
        None without numbers.
    """
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


def bit_balance(bits: BitStatistics | None) -> BitBars | None:
    """Return the share of gallery codes in which each bit is 1; dead bits are flagged.

    Args:
        bits: of an evaluation.

    Returns:
        None without numbers.
    """
    if bits is None or not bits.balance:
        return None
    dead = dead_bits(bits)
    caption = (
        "The share of gallery codes in which a bit is 1. A bit tells most at one half, and nothing "
        "at 0 or 1, where it is dead."
    )
    title = "Balance of the bits"
    return BitBars(title, caption, "share of ones", bits.balance, dead, "dead", 0.5)


def closest_bits(bits: BitStatistics | None) -> BitBars | None:
    """Return each bit's correlation with the bit that is most like it, whatever its sign.

    Args:
        bits: of an evaluation.

    Returns:
        None without numbers.
    """
    if bits is None or len(bits.correlation) < 2:
        return None
    values = tuple(
        max((abs(r) for other, r in enumerate(row) if other != bit and r is not None), default=None)
        for bit, row in enumerate(bits.correlation)
    )
    twins = tuple(bit for bit, value in enumerate(values) if value is not None and value > _TWINS)
    caption = (
        "How far each bit can be told from one other: its largest correlation with any of them, "
        f"without the sign. Above {_TWINS} two bits say the same. A dead bit has none."
    )
    title = "Closest other bit"
    return BitBars(title, caption, "correlation", values, twins, f"above {_TWINS}")


def _correlation(bits: BitStatistics | None) -> Heatmap | None:
    if bits is None or not bits.correlation:
        return None
    caption = (
        "Two bits that are always equal (1) or always opposite (-1) hold the same information. "
        "With labels this is usual to a degree: there are more bits than classes."
    )
    title = "Correlation of the bits"
    return Heatmap(title, caption, "bit", "bit", bits.correlation, -1.0, 1.0)
