"""Diagrams as a page holds them: drawn for light and for dark, as data URIs."""

from __future__ import annotations

from dataclasses import dataclass

from schn_ray.report.diagrams import Diagram, Heatmap
from schn_ray.report.draw import DARK, LIGHT, draw
from schn_ray.report.draw_tuning import Contour, Panel, Parallel, TuningScatter, draw_panel
from schn_ray.report.thumbnails import data_uri


@dataclass(frozen=True)
class Figure:
    """A diagram on a page.

    Attributes:
        chart: its title, caption and axes.
        light: on a light page, as a data URI.
        dark: on a dark one.
        wide: whether it takes the whole width.
        tall: whether it is as high as two others.
    """

    chart: Diagram | Panel
    light: str
    dark: str
    wide: bool = False
    tall: bool = False


def drawn(chart: Diagram | Panel) -> Figure:
    """Draw a diagram for a page.

    Args:
        chart: any diagram of a report or of a search.
    """
    if isinstance(chart, TuningScatter | Contour | Parallel):
        light, dark = (draw_panel(chart, theme) for theme in (LIGHT, DARK))
    else:
        light, dark = (draw(chart, theme) for theme in (LIGHT, DARK))
    return Figure(
        chart,
        data_uri(light, "image/svg+xml"),
        data_uri(dark, "image/svg+xml"),
        wide=isinstance(chart, Parallel),
        tall=isinstance(chart, Heatmap) and bool(chart.row_labels),
    )
