"""The HTML files: one a report, one a search; each is a single file that fetches nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from schn_ray.core.atomic_files import write_atomically
from schn_ray.core.errors import SchnRayError
from schn_ray.core.version import __version__
from schn_ray.report import charts
from schn_ray.report import draw as figures
from schn_ray.report import tables as measures
from schn_ray.report import thumbnails as pictures
from schn_ray.report.charts import Chart
from schn_ray.report.contents import Example, ReportData
from schn_ray.report.diagrams import Diagram, Heatmap, evaluation_diagrams
from schn_ray.report.draw_tuning import Panel, Parallel, draw_panel
from schn_ray.report.overview import Overview


def write_run_report(data: ReportData, out: Path) -> None:
    """Write the report of a run and its evaluation as one HTML file.

    Raises:
        SchnRayError: ``out`` is a directory.
    """
    write_reports(data.title, [data], None, out)


def write_reports(
    title: str, reports: Sequence[ReportData], opening: Overview | None, out: Path
) -> None:
    """Write the report of one run, or of several with what they come to together.

    Raises:
        SchnRayError: ``out`` is a directory.
    """
    write_page(
        out,
        "page.html.jinja",
        title=title,
        opening=opening,
        overlays=[_figure(chart) for chart in opening.diagrams] if opening else [],
        runs=[_run(data) for data in reports],
    )


def diagrams_of(data: ReportData) -> list[Diagram]:
    """Return every figure of a run, in the order of the page."""
    measured = charts.precision_recall(data.metrics)
    first: list[Diagram] = [] if measured is None else [measured]
    return [*first, *evaluation_diagrams(data.diagrams), *charts.training_charts(data.history)]


def _run(data: ReportData) -> dict[str, Any]:
    return {
        "data": data,
        "headline": measures.headline(data.metrics),
        "gallery_codes": measures.gallery_codes(data.metrics),
        "measures": measures.metric_rows(data.metrics),
        "controls": measures.control_rows(data.metrics),
        "verdict": measures.verdict_lines(data.metrics),
        "galleries": measures.galleries(data.metrics),
        "by_class": measures.class_rows(data.metrics),
        "audit": measures.audit_lines(data.metrics),
        "charts": [_figure(chart) for chart in diagrams_of(data)],
        "examples": _by_kind(data.examples),
        "provenance": _flat(data.provenance),
    }


def _by_kind(examples: Sequence[Example]) -> list[tuple[str, list[Example]]]:
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.kind, []).append(example)
    return list(groups.items())


def write_search_page(out: Path, title: str, examples: Sequence[Example]) -> None:
    """Write queries and what was found for each as one HTML file.

    Raises:
        SchnRayError: ``out`` is a directory.
    """
    write_page(out, "search.html.jinja", title=title, examples=examples)


def write_tuning_page(
    out: Path,
    title: str,
    panels: Sequence[Panel],
    charts: Sequence[Chart],
    provenance: Mapping[str, Any],
    **values: Any,
) -> None:
    """Write the page of a search for settings as one HTML file; ``values`` are its template's.

    Raises:
        SchnRayError: ``out`` is a directory.
    """
    write_page(
        out,
        "tuning.html.jinja",
        title=title,
        figures=[_panel(panel) for panel in panels] + [_figure(chart) for chart in charts],
        provenance=_flat(provenance),
        **values,
    )


def write_page(out: Path, template: str, **values: Any) -> None:
    """Fill a template and write it whole.

    Raises:
        SchnRayError: ``out`` is a directory.
    """
    if out.is_dir():
        raise SchnRayError(f"{out} is a directory; name the HTML file to write")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template(template).render(
        **values, inline=pictures.inline, version=__version__
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    # names of files need not be valid text; what UTF-8 cannot hold is shown as "?"
    write_atomically(out, html.encode("utf-8", "replace"))


def _figure(chart: Diagram) -> dict[str, Any]:
    return {
        "wide": isinstance(chart, Heatmap) and bool(chart.row_labels),
        "chart": chart,
        "light": pictures.data_uri(figures.draw(chart, figures.LIGHT), "image/svg+xml"),
        "dark": pictures.data_uri(figures.draw(chart, figures.DARK), "image/svg+xml"),
    }


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "chart": panel,
        "wide": isinstance(panel, Parallel),
        "light": pictures.data_uri(draw_panel(panel, figures.LIGHT), "image/svg+xml"),
        "dark": pictures.data_uri(draw_panel(panel, figures.DARK), "image/svg+xml"),
    }


def _flat(nested: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return (dotted name, value) of every leaf."""
    leaves = []
    for name, value in nested.items():
        if isinstance(value, Mapping):
            leaves += _flat(value, f"{prefix}{name}.")
        else:
            leaves.append((prefix + name, str(value)))
    return leaves
