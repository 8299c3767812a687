"""Diagrams of a tuning study: dots, contours and parallel axes, drawn as SVG."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from schn_ray.report.draw import Theme, svg_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
_LEVEL_LETTERS = 40  # names of more letters together are turned


@dataclass(frozen=True)
class Dots:
    """Points of one kind.

    Attributes:
        label: for the legend; empty for none.
        points: (x, y).
        look: ``full`` or ``hollow`` dots, a ``cross``, or a ``line`` through the points.
    """

    label: str
    points: tuple[Point, ...]
    look: str = "full"


@dataclass(frozen=True)
class Axis:
    """An axis of numbers or of names.

    Attributes:
        label: of the axis.
        log: whether it is logarithmic.
        whole: whether its values are counts.
        names: labels of the values 0, 1, ...; empty for an axis of numbers.
        ends: of the axis; None: those of the points.
    """

    label: str
    log: bool = False
    whole: bool = False
    names: tuple[str, ...] = ()
    ends: Point | None = None


@dataclass(frozen=True)
class TuningScatter:
    """Dots over an axis of numbers or of names.

    Attributes:
        title: shown above it.
        caption: shown below it.
        x: the x axis.
        y_label: of the y axis.
        dots: groups of points.
    """

    title: str
    caption: str
    x: Axis
    y_label: str
    dots: tuple[Dots, ...]

    @property
    def x_label(self) -> str:
        """Of the x axis."""
        return self.x.label


@dataclass(frozen=True)
class Contour:
    """A value over two axes of numbers, interpolated between points.

    Attributes:
        title: shown above it.
        caption: shown below it.
        x: the x axis.
        y: the y axis.
        points: (x, y, value).
        value_label: of the values.
    """

    title: str
    caption: str
    x: Axis
    y: Axis
    points: tuple[tuple[float, float, float], ...] = field(repr=False)
    value_label: str = "validation mAP"

    @property
    def x_label(self) -> str:
        """Of the x axis."""
        return self.x.label

    @property
    def y_label(self) -> str:
        """Of the y axis."""
        return self.y.label


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


Panel = TuningScatter | Contour | Parallel


def draw_panel(panel: Panel, theme: Theme) -> bytes:
    """Return a diagram as an SVG file with a transparent background.

    Equal input gives equal bytes.

    Args:
        panel: what is drawn.
        theme: colours of the page.
    """
    wide = isinstance(panel, Parallel)
    size = (9.4, 3.6) if wide else (4.4, 3.3 if isinstance(panel, Contour) else 2.9)
    return svg_of(size, lambda axes: _plot(axes, panel, theme))


def _plot(axes: Axes, panel: Panel, theme: Theme) -> None:
    axes.tick_params(colors=theme.text, length=0, pad=7)
    axes.spines[:].set_visible(False)
    axes.set_axisbelow(True)
    if isinstance(panel, TuningScatter):
        _scatter(axes, panel, theme)
    elif isinstance(panel, Contour):
        _contour(axes, panel, theme)
    else:
        _parallel(axes, panel, theme)


def _scatter(axes: Axes, panel: TuningScatter, theme: Theme) -> None:
    for number, dots in enumerate(panel.dots):
        if not dots.points:
            continue
        x, y = zip(*dots.points, strict=True)
        color = theme.curves[number % len(theme.curves)]
        if dots.look == "line":
            axes.plot(x, y, label=dots.label, color=color, linewidth=2, drawstyle="steps-post")
        elif dots.look == "cross":
            axes.scatter(x, y, 26, label=dots.label, color=theme.text, marker="x", linewidths=1)
        else:
            face = color if dots.look == "full" else "none"
            order = 3 if dots.look == "full" else 2  # not hidden by one at the same point
            axes.scatter(
                x, y, 26, label=dots.label, facecolors=face, edgecolors=color, zorder=order
            )
    axes.grid(color=theme.grid, linewidth=0.8)
    axes.set_ylabel(panel.y_label, color=theme.text)
    _dress(axes, panel.x, "x", theme)
    if any(dots.label and dots.points for dots in panel.dots):
        _legend(axes, theme)


def _dress(axes: Axes, axis: Axis, which: Literal["x", "y"], theme: Theme) -> None:
    from matplotlib.ticker import MaxNLocator, NullLocator

    drawn = axes.xaxis if which == "x" else axes.yaxis
    drawn.set_label_text(axis.label, color=theme.text)
    if axis.names:
        turned = which == "x" and sum(map(len, axis.names)) > _LEVEL_LETTERS
        drawn.set_ticks(range(len(axis.names)), axis.names, rotation=30 if turned else 0)
        axes.set(**{f"{which}lim": (-0.5, len(axis.names) - 0.5)})
    elif axis.log:
        axes.set(**{f"{which}scale": "log"})
        drawn.set_minor_locator(NullLocator())
        drawn.set_major_formatter("{x:g}")
    elif axis.whole:
        drawn.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))
    if axis.ends:
        axes.set(**{f"{which}lim": axis.ends})


def _contour(axes: Axes, panel: Contour, theme: Theme) -> None:
    from matplotlib.tri import Triangulation

    values = [value for _, _, value in panel.points]
    # a logarithmic axis is drawn as an axis of logarithms, so that they are interpolated
    x = _exponents(axes, [x for x, _, _ in panel.points], panel.x, "x", theme)
    y = _exponents(axes, [y for _, y, _ in panel.points], panel.y, "y", theme)
    look: dict[str, Any] = {"cmap": theme.sequential, "vmin": min(values), "vmax": max(values)}
    with suppress(ValueError, RuntimeError):  # points on one line have no triangles
        axes.tricontourf(Triangulation(x, y), values, levels=8, alpha=0.75, **look)
    dots = axes.scatter(x, y, 22, c=values, edgecolors=theme.text, linewidths=0.7, **look)
    bar = axes.figure.colorbar(dots, ax=axes, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=theme.text, length=0)
    bar.set_label(panel.value_label, color=theme.text)


def _exponents(
    axes: Axes, values: list[float], axis: Axis, which: Literal["x", "y"], theme: Theme
) -> list[float]:
    """Dress an axis; return the values, or their logarithms where it is logarithmic."""
    from matplotlib.ticker import MultipleLocator

    if not axis.log:
        _dress(axes, axis, which, theme)
        return values
    ends = None if axis.ends is None else (math.log10(axis.ends[0]), math.log10(axis.ends[1]))
    _dress(axes, replace(axis, log=False, ends=ends), which, theme)
    drawn = axes.xaxis if which == "x" else axes.yaxis
    drawn.set_major_locator(MultipleLocator(1))
    drawn.set_major_formatter(lambda exponent, _: f"{10**exponent:g}")
    return [math.log10(value) for value in values]


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
