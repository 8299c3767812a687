"""Diagrams of a tuning study: dots and parallel axes, drawn as SVG."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schn_ray.report.draw import Theme

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]


@dataclass(frozen=True)
class Dots:
    """Points of one kind.

    Attributes:
        label: for the legend; empty for none.
        points: (x, y).
        look: ``full`` or ``hollow`` dots, or a ``line`` through the points.
    """

    label: str
    points: tuple[Point, ...]
    look: str = "full"


@dataclass(frozen=True)
class TuningScatter:
    """Dots over an axis of numbers or of names.

    Attributes:
        title: shown above it.
        caption: shown below it.
        x_label: of the x axis.
        y_label: of the y axis.
        dots: groups of points.
        log_x: the x axis is logarithmic.
        whole_x: x values are counts.
        names: labels of the x values 0, 1, ...; empty for an axis of numbers.
        x_range: ends of the x axis; None: those of the points.
    """

    title: str
    caption: str
    x_label: str
    y_label: str
    dots: tuple[Dots, ...]
    log_x: bool = False
    whole_x: bool = False
    names: tuple[str, ...] = ()
    x_range: Point | None = None


@dataclass(frozen=True)
class Parallel:
    """A line a trial across one axis a setting.

    Attributes:
        title: shown above it.
        caption: shown below it.
        axes: (name, label of its bottom, label of its top).
        lines: (heights, score) of each trial: its height on each axis from 0 to 1, None where it
            does not have the setting; and its score from 0 to 1, 1 for the best.
        x_label: of the axes.
        y_label: of the heights.
    """

    title: str
    caption: str
    axes: tuple[tuple[str, str, str], ...]
    lines: tuple[tuple[tuple[float | None, ...], float], ...] = field(repr=False)
    x_label: str = "setting"
    y_label: str = "its value"


Panel = TuningScatter | Parallel


def draw_panel(panel: Panel, theme: Theme) -> bytes:
    """Return a diagram as an SVG file with a transparent background.

    Equal input gives equal bytes.

    Args:
        panel: what is drawn.
        theme: colours of the page.
    """
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    wide = isinstance(panel, Parallel)
    with mpl.rc_context({"svg.hashsalt": "schn-ray", "font.size": 11}):
        size = (9.4, 3.6) if wide else (4.4, 2.9)
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        axes = figure.add_subplot(facecolor="none")
        axes.tick_params(colors=theme.text, length=0, pad=7)
        axes.spines[:].set_visible(False)
        axes.set_axisbelow(True)
        if isinstance(panel, TuningScatter):
            _scatter(axes, panel, theme)
        else:
            _parallel(axes, panel, theme)
        out = io.BytesIO()
        FigureCanvasSVG(figure).print_svg(
            out, metadata={"Date": None, "Creator": None, "Format": None, "Type": None}
        )
    return out.getvalue()


def _scatter(axes: Axes, panel: TuningScatter, theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, dots in enumerate(panel.dots):
        if not dots.points:
            continue
        x, y = zip(*dots.points, strict=True)
        color = theme.curves[number % len(theme.curves)]
        if dots.look == "line":
            axes.plot(x, y, label=dots.label, color=color, linewidth=2, drawstyle="steps-post")
        else:
            face = color if dots.look == "full" else "none"
            axes.scatter(x, y, 26, label=dots.label, facecolors=face, edgecolors=color)
    axes.set_xlabel(panel.x_label, color=theme.text)
    axes.set_ylabel(panel.y_label, color=theme.text)
    axes.grid(color=theme.grid, linewidth=0.8)
    if panel.names:
        axes.set_xticks(range(len(panel.names)), panel.names)
        axes.set_xlim(-0.5, len(panel.names) - 0.5)
    elif panel.log_x:
        axes.set_xscale("log")
        axes.minorticks_off()
    elif panel.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if panel.x_range:
        axes.set_xlim(*panel.x_range)
    if any(dots.label and dots.points for dots in panel.dots):
        _legend(axes, theme)


def _parallel(axes: Axes, panel: Parallel, theme: Theme) -> None:
    positions = range(len(panel.axes))
    for x in positions:
        axes.axvline(x, color=theme.grid, linewidth=1)
    for heights, score in sorted(panel.lines, key=lambda line: line[1]):
        points = [(x, y) for x, y in zip(positions, heights, strict=True) if y is not None]
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=theme.curves[1] if score >= 1 else theme.curves[0],
            alpha=1.0 if score >= 1 else 0.08 + 0.6 * score**3,
            linewidth=2.5 if score >= 1 else 1.2,
        )
    for x, (_, bottom, top) in zip(positions, panel.axes, strict=True):
        for height, text, side in ((-0.03, bottom, "top"), (1.03, top, "bottom")):
            axes.text(x, height, text, ha="center", va=side, color=theme.text, fontsize=9)
    axes.set_xticks(list(positions), [_folded(name) for name, _, _ in panel.axes], fontsize=9)
    axes.tick_params(axis="x", pad=18)
    axes.set_yticks([])
    axes.set_ylim(-0.02, 1.02)


def _folded(name: str) -> str:
    return name.replace(".", ".\n").replace("_", "_\n", 1) if len(name) > 12 else name


def _legend(axes: Axes, theme: Theme) -> None:
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.02, 1.0),
        ncols=3,
        frameon=False,
        labelcolor=theme.text,
        fontsize=10,
        columnspacing=0.9,
        handlelength=1.4,
        handletextpad=0.4,
        borderpad=0,
    )
