"""Charts drawn by matplotlib as SVG, once for light pages and once for dark ones."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from schn_ray.report.charts import Chart

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARKED_POINTS = 30  # more markers than this run into each other
_LOG_FROM = 50.0  # largest over smallest value above which small ones vanish on a linear axis


@dataclass(frozen=True)
class Theme:
    """Colours of a page; curves are told apart by line style too, not by colour alone."""

    text: str
    grid: str
    curves: tuple[str, ...]


# curves: Okabe and Ito's palette, told apart with any colour vision; its blue is too dim on black
LIGHT = Theme("#33373d", "#dfe2e6", ("#0072B2", "#D55E00", "#009E73", "#CC79A7"))
DARK = Theme("#c9ced6", "#3a3f47", ("#56B4E9", "#E69F00", "#009E73", "#CC79A7"))

_STYLES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), "-.")
_MARKERS = ("o", "s", "^", "D")


def draw(chart: Chart, theme: Theme) -> bytes:
    """Return the chart as an SVG file with a transparent background; equal input, equal bytes."""
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "schn-ray", "font.size": 11}):
        figure = Figure(figsize=(4.4, 2.9), layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        _plot(axes, chart, theme)
        _dress(axes, chart, theme)
        out = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(
            out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return out.getvalue()


def _plot(axes: Axes, chart: Chart, theme: Theme) -> None:
    for i, curve in enumerate(chart.curves):
        few = len(curve.points) <= _MARKED_POINTS
        axes.plot(
            [x for x, _ in curve.points],
            [y for _, y in curve.points],
            label=curve.label,
            color=theme.curves[i % len(theme.curves)],
            linestyle=_STYLES[i % len(_STYLES)],
            linewidth=2,
            marker=_MARKERS[i % len(_MARKERS)] if few else None,
            markersize=4,
            clip_on=not chart.shares,  # a marker at 0 or 1 is drawn whole
        )


def _dress(axes: Axes, chart: Chart, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel(chart.x_label, color=theme.text)
    axes.set_ylabel(chart.y_label, color=theme.text)
    axes.tick_params(colors=theme.text, length=0, pad=7)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    if chart.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    else:
        axes.set_xlim(0, 1)
    if chart.shares:
        axes.set_ylim(0, 1)
    elif _spans_decades(chart):
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
    if any(curve.label for curve in chart.curves):
        _legend(axes, theme)


def _legend(axes: Axes, theme: Theme) -> None:
    # above the axes, where it covers no curve
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=4,
        frameon=False,
        labelcolor=theme.text,
        columnspacing=1.2,
        handlelength=1.8,
        borderpad=0,
    )


def _spans_decades(chart: Chart) -> bool:
    values = [y for curve in chart.curves for _, y in curve.points]
    return min(values) > 0 and max(values) / min(values) > _LOG_FROM
