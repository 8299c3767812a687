"""Draw diagrams with matplotlib: as SVG for light and dark pages, and as PNG."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from schn_ray.report.charts import Chart, Curve
from schn_ray.report.diagrams import Bars, BitBars, Diagram, Heatmap, Scatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

_MARKED_POINTS = 30  # more markers than this would overlap
_LOG_FROM = 50.0  # ratio of largest to smallest value above which the axis is logarithmic


@dataclass(frozen=True)
class Theme:
    """Colours of a page; curves differ in line style as well as in colour."""

    text: str
    grid: str
    curves: tuple[str, ...]
    page: str = "#ffffff"
    diverging: str = "PuOr"  # both suit any colour vision, and 0 has the colour of the page
    sequential: str = "cividis"


# curves: Okabe and Ito's palette, for any colour vision; its blue is too dark on black
_LIGHT_CURVES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DARK_CURVES = ("#56B4E9", "#E69F00", "#009E73", "#CC79A7", "#F0E442", "#D55E00")
LIGHT = Theme("#33373d", "#dfe2e6", _LIGHT_CURVES)
DARK = Theme("#c9ced6", "#3a3f47", _DARK_CURVES, page="#15171b", diverging="berlin")

_STYLES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), "-.")
_MARKERS = ("o", "s", "^", "D")
_WRITTEN_CELLS = 12  # rows of a heatmap up to which each cell has its number
_DRAWN_CELLS = 64  # and up to which cells are shapes; more would be megabytes
_NAME_LETTERS = 24
_LEGEND_ROW = 0.22  # inches that a further row of a legend needs
_FEW_DECADES = 100.0
_PNG_DPI = 200
_DOT = 12.0  # a point's area


def draw(chart: Diagram, theme: Theme) -> bytes:
    """Return the diagram as an SVG file with a transparent background.

    Equal input gives equal bytes.

    Args:
        chart: what is drawn.
        theme: colours of the page.
    """
    return svg_of(_size(chart), lambda axes: _plot_any(axes, chart, theme))


def draw_png(chart: Diagram, theme: Theme) -> bytes:
    """Return the diagram as a PNG file on the page's colour, large enough for print.

    Args:
        chart: what is drawn.
        theme: colours of the page.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    out = io.BytesIO()
    with _plotted(_size(chart), lambda axes: _plot_any(axes, chart, theme)) as figure:
        figure.set_facecolor(theme.page)
        figure.set_dpi(_PNG_DPI)
        FigureCanvasAgg(figure).print_png(out, metadata={"Software": None})
    return out.getvalue()


def svg_of(size: tuple[float, float], plot: Callable[[Axes], None]) -> bytes:
    """Return what is plotted as an SVG file with a transparent background.

    Equal plots give equal bytes.

    Args:
        size: width and height in inches.
        plot: draws on the axes.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    out = io.BytesIO()
    with _plotted(size, plot) as figure:
        blank = {"Date": None, "Creator": None, "Format": None, "Type": None}
        FigureCanvasSVG(figure).print_svg(out, metadata=blank)
    return out.getvalue()


@contextmanager
def _plotted(size: tuple[float, float], plot: Callable[[Axes], None]) -> Iterator[Figure]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "schn-ray", "font.size": 11}):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        plot(figure.add_subplot(facecolor="none"))
        yield figure


def _plot_any(axes: Axes, chart: Diagram, theme: Theme) -> None:
    if isinstance(chart, Heatmap):
        _plot_heatmap(axes, chart, theme)
    elif isinstance(chart, Scatter):
        _plot_scatter(axes, chart, theme)
    elif isinstance(chart, Bars):
        _plot_bars(axes, chart, theme)
    elif isinstance(chart, BitBars):
        _plot_bit_bars(axes, chart, theme)
    else:
        _plot(axes, chart, theme)
        _dress(axes, chart, theme)


def _size(chart: Diagram) -> tuple[float, float]:
    if isinstance(chart, Heatmap):
        return (5.2, 4.7) if chart.row_labels else (4.4, 3.7)
    if isinstance(chart, Bars):
        return 4.4, min(6.0, 1.1 + 0.32 * len(chart.bars))
    if isinstance(chart, Chart):
        labels = [curve.label for curve in chart.curves if curve.label]
        rows = -(-len(labels) // _legend_columns(labels)) if labels else 0
        return 4.4, 2.9 + _LEGEND_ROW * max(0, rows - 2)
    return (4.4, 3.9) if isinstance(chart, Scatter) else (4.4, 2.9)


def _plot_heatmap(axes: Axes, chart: Heatmap, theme: Theme) -> None:
    import numpy as np

    values = np.array(chart.values, dtype=np.float64)  # None becomes NaN, and no colour
    colours = theme.diverging if chart.low < 0 else theme.sequential
    rows, columns = values.shape
    look: dict[str, Any] = {"cmap": colours, "vmin": chart.low, "vmax": chart.high}
    if max(rows, columns) <= _DRAWN_CELLS:
        mesh: ScalarMappable = axes.pcolormesh(values, edgecolors="face", linewidth=0.2, **look)
        middles = 0.5
    else:
        mesh = axes.imshow(values, aspect="auto", interpolation="nearest", **look)
        middles = 0.0
    axes.set_aspect("equal")
    if not axes.yaxis_inverted():
        axes.invert_yaxis()
    bar = axes.figure.colorbar(mesh, ax=axes, shrink=0.8, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=theme.text, length=0)
    axes.set_xlabel(chart.x_label, color=theme.text)
    axes.set_ylabel(chart.y_label, color=theme.text)
    axes.tick_params(colors=theme.text, length=0)
    axes.spines[:].set_visible(False)
    if chart.row_labels:
        ticks = np.arange(rows) + middles
        long = max(map(len, chart.row_labels)) > 2
        axes.set_xticks(ticks, chart.row_labels, rotation=90 if long else 0)
        axes.set_yticks(ticks, chart.row_labels)
    if chart.row_labels and rows <= _WRITTEN_CELLS:
        _write_cells(axes, chart, theme)


def _write_cells(axes: Axes, chart: Heatmap, theme: Theme) -> None:
    import matplotlib as mpl

    colours = mpl.colormaps[theme.sequential]
    for row, values in enumerate(chart.values):
        for column, value in enumerate(values):
            if value is None or round(100 * value) == 0:
                continue
            red, green, blue, _ = colours((value - chart.low) / (chart.high - chart.low))
            dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.45
            axes.text(
                column + 0.5,
                row + 0.5,
                f"{100 * value:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )


def _plot_scatter(axes: Axes, chart: Scatter, theme: Theme) -> None:
    from matplotlib.collections import PathCollection

    for i, (label, points) in enumerate(chart.groups):
        # after each round of colours the next marker, so that all groups look different
        axes.scatter(
            [x for x, _, _ in points],
            [y for _, y, _ in points],
            s=[_DOT * rows**0.5 for _, _, rows in points],
            label=label,
            color=theme.curves[i % len(theme.curves)],
            marker=_MARKERS[i // len(theme.curves) % len(_MARKERS)],
            linewidths=0,
            alpha=0.85,
        )
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color(theme.grid)
    legend = axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.02),
        ncols=5 if max(len(label) for label, _ in chart.groups) < 9 else 3,
        frameon=False,
        labelcolor=theme.text,
        fontsize=9,
        handletextpad=0.1,
        columnspacing=0.9,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([2 * _DOT])


def _plot_bars(axes: Axes, chart: Bars, theme: Theme) -> None:
    names = [_wrapped(bar.name) for bar in chart.bars]
    colours = [theme.curves[1 if bar.strong else 0] for bar in chart.bars]
    axes.barh(range(len(names)), [bar.value for bar in chart.bars], color=colours, height=0.62)
    for position, bar in enumerate(chart.bars):
        end = bar.value
        if bar.interval is not None:
            low, end = bar.interval
            axes.plot([low, end], [position, position], color=theme.text, linewidth=1.2)
        axes.annotate(
            f"{bar.value:.2f}",
            (end, position),
            xytext=(4, 0),
            textcoords="offset points",
            ha="left",
            va="center",
            color=theme.text,
            fontsize=9,
        )
    axes.set_yticks(range(len(names)), names, fontsize=9.5)
    axes.invert_yaxis()
    axes.set_xlabel(chart.x_label, color=theme.text)
    axes.tick_params(colors=theme.text, length=0, pad=5)
    axes.grid(axis="x", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    longest = max(bar.interval[1] if bar.interval else bar.value for bar in chart.bars)
    # room for the number behind the longest bar
    axes.set_xlim(0, max(1.0 if chart.shares else 0.0, 1.14 * longest) or 1.0)
    if chart.shares:
        axes.set_xticks([0, 0.25, 0.5, 0.75, 1])


def _wrapped(name: str) -> str:
    """Return a long name on two lines, which leave the bars their room."""
    return "\n".join(textwrap.wrap(name, _NAME_LETTERS, max_lines=2, placeholder=" ..."))


def _plot_bit_bars(axes: Axes, chart: BitBars, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    flagged = set(chart.flagged)
    plain = [bit for bit in range(len(chart.values)) if bit not in flagged]
    heights = [value or 0.0 for value in chart.values]
    axes.bar(plain, [heights[bit] for bit in plain], color=theme.curves[0], width=0.8)
    if flagged:
        bits, colour = sorted(flagged), theme.curves[1]
        axes.bar(bits, 1.0, color=colour, width=0.8, alpha=0.3)  # seen where the value is 0 too
        axes.bar(bits, [heights[bit] for bit in bits], color=colour, width=0.8, label=chart.flag)
        _legend(axes, [chart.flag], theme)
    if chart.middle is not None:
        axes.axhline(chart.middle, color=theme.text, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlabel(chart.x_label, color=theme.text)
    axes.set_ylabel(chart.y_label, color=theme.text)
    axes.tick_params(colors=theme.text, length=0, pad=5)
    axes.grid(axis="y", color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.set_ylim(0, 1)
    axes.set_xlim(-0.7, len(chart.values) - 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))


def _plot(axes: Axes, chart: Chart, theme: Theme) -> None:
    for i, curve in enumerate(chart.curves):
        few = len(curve.points) <= _MARKED_POINTS
        _plot_errors(axes, curve, theme.curves[i % len(theme.curves)])
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


def _plot_errors(axes: Axes, curve: Curve, colour: str) -> None:
    if curve.errors:
        x, y = zip(*curve.points, strict=True)
        axes.errorbar(x, y, curve.errors, fmt="none", ecolor=colour, capsize=3, zorder=1)


def _dress(axes: Axes, chart: Chart, theme: Theme) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator

    axes.set_xlabel(chart.x_label, color=theme.text)
    axes.set_ylabel(chart.y_label, color=theme.text)
    axes.tick_params(colors=theme.text, length=0, pad=7)
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    if chart.log_x:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        if high < _FEW_DECADES * low:  # one power of ten would be all that is written
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.minorticks_off()
    elif chart.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    else:
        axes.set_xlim(0, 1)
    if chart.shares:
        axes.set_ylim(0, 1)
    elif _spans_decades(chart):
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.yaxis.set_major_formatter("{x:g}")
    elif all(float(y).is_integer() for curve in chart.curves for _, y in curve.points):
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if any(curve.label for curve in chart.curves):
        _legend(axes, [curve.label for curve in chart.curves], theme)


def _legend(axes: Axes, labels: Sequence[str], theme: Theme) -> None:
    # above the axes, where it covers no curve
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=_legend_columns(labels),
        frameon=False,
        labelcolor=theme.text,
        columnspacing=1.2,
        handlelength=1.8,
        borderpad=0,
    )


def _legend_columns(labels: Sequence[str]) -> int:
    return max(1, min(4, 44 // (5 + max(map(len, labels)))))


def _spans_decades(chart: Chart) -> bool:
    values = [y for curve in chart.curves for _, y in curve.points]
    return min(values) > 0 and max(values) / min(values) > _LOG_FROM
