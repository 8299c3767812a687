"""Write the pages: each is a single HTML file that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from schn_ray.core.atomic_files import write_atomically
from schn_ray.core.directories import locked_file
from schn_ray.core.errors import SchnRayError
from schn_ray.core.version import __version__
from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.verdict import verdict_of
from schn_ray.report import tables
from schn_ray.report.charts import Chart, precision_recall, training_charts
from schn_ray.report.contents import Example, ReportData
from schn_ray.report.diagrams import Diagram, Heatmap, evaluation_diagrams
from schn_ray.report.draw import DARK, LIGHT, draw
from schn_ray.report.draw_tuning import Panel, Parallel, draw_panel
from schn_ray.report.overview import Overview
from schn_ray.report.thumbnails import data_uri, inline


def write_reports(
    title: str, reports: Sequence[ReportData], opening: Overview | None, out: Path
) -> None:
    """Write the report of one run, or of two and more with a comparison on top.

    Args:
        title: of the page.
        reports: contents, one a run.
        opening: the comparison; None for none.
        out: the file.

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
    """Return every diagram of a run, in the order of the page.

    Args:
        data: contents of its report.
    """
    curve = precision_recall({"": data.figures.pr_curve}) if data.figures else None
    first: list[Diagram] = [] if curve is None else [curve]
    return [*first, *evaluation_diagrams(data.plots), *training_charts(data.history)]


def _run(data: ReportData) -> dict[str, Any]:
    return {
        "data": data,
        "headline": tables.headline(data.figures),
        "verdict": verdict_of(data.figures) if data.figures else None,
        "evaluation": _evaluation(data.figures) if data.figures else None,
        "charts": [_figure(chart) for chart in diagrams_of(data)],
        "examples": _by_kind(data.examples),
        "provenance": _flat(data.provenance),
    }


def _evaluation(figures: Figures) -> dict[str, Any]:
    return {
        "gallery_codes": tables.gallery_codes(figures),
        "metrics": tables.metric_rows(figures),
        "controls": tables.control_rows(figures.controls),
        "verdict": tables.classifier_verdict(figures.controls),
        "recall": tables.recall_rows(figures.controls),
        "recall_verdict": tables.itq_verdict(figures),
        "without_labels": figures.without_labels,
        "galleries": tables.galleries(figures),
        "by_class": tables.class_rows(figures),
        "audit": figures.audit.findings,
    }


def _by_kind(examples: Sequence[Example]) -> list[tuple[str, list[Example]]]:
    groups: dict[str, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.kind, []).append(example)
    return list(groups.items())


def write_search_page(
    out: Path,
    title: str,
    examples: Sequence[Example],
    where: str | None = None,
    passing: int | None = None,
) -> None:
    """Write queries and their results as one HTML file.

    Args:
        out: the file.
        title: of the page.
        examples: queries with their results.
        where: the condition that all results meet.
        passing: images of the gallery that meet it.

    Raises:
        SchnRayError: ``out`` is a directory.
    """
    scored = any(near.score is not None for each in examples for near in each.neighbours)
    values = {"title": title, "examples": examples, "scored": scored}
    write_page(out, "search.html.jinja", **values, where=where, passing=passing)


def write_tuning_page(
    out: Path,
    title: str,
    panels: Sequence[Panel],
    charts: Sequence[Chart],
    provenance: Mapping[str, Any],
    **values: Any,
) -> None:
    """Write the page of a tuning study as one HTML file.

    Args:
        out: the file.
        title: of the page.
        panels: diagrams of the trials.
        charts: further curves.
        provenance: name -> value: the search space, the base settings; may be nested.
        **values: the other variables of the template.

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


def write_suite_page(out: Path, title: str, charts: Sequence[Chart], **values: Any) -> None:
    """Write the page of a suite of methods as one HTML file.

    Args:
        out: the file.
        title: of the page.
        charts: of the best methods.
        **values: the other variables of the template.

    Raises:
        SchnRayError: ``out`` is a directory.
    """
    figures = [_figure(chart) for chart in charts]
    write_page(out, "suite.html.jinja", title=title, figures=figures, **values)


def write_page(out: Path, template: str, **values: Any) -> None:
    """Fill a template and write the page.

    Args:
        out: the file; readers see the whole page or none of it.
        template: name of a file next to this module.
        **values: variables of the template.

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
    html = environment.get_template(template).render(**values, inline=inline, version=__version__)
    with locked_file(out):
        # names of files need not be valid Unicode: what UTF-8 cannot encode is shown as "?"
        write_atomically(out, html.encode("utf-8", "replace"))


def _figure(chart: Diagram) -> dict[str, Any]:
    return {
        "wide": isinstance(chart, Heatmap) and bool(chart.row_labels),
        "chart": chart,
        "light": data_uri(draw(chart, LIGHT), "image/svg+xml"),
        "dark": data_uri(draw(chart, DARK), "image/svg+xml"),
    }


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "chart": panel,
        "wide": isinstance(panel, Parallel),
        "light": data_uri(draw_panel(panel, LIGHT), "image/svg+xml"),
        "dark": data_uri(draw_panel(panel, DARK), "image/svg+xml"),
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
