"""Write the pages: each is a single HTML file that loads nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from schn_ray.core.atomic_files import write_atomically
from schn_ray.core.directories import locked_file
from schn_ray.core.errors import SchnRayError
from schn_ray.core.version import __version__
from schn_ray.report.charts import Chart
from schn_ray.report.contents import Example, ReportData
from schn_ray.report.drawn import drawn
from schn_ray.report.one_run import RunView, view_of
from schn_ray.report.overview import Overview
from schn_ray.report.thumbnails import inline


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
    many = len(reports) > 1
    runs = [view_of(data, f"run-{i}-" if many else "") for i, data in enumerate(reports, start=1)]
    write_page(
        out,
        "page.html.jinja",
        title=title,
        opening=opening,
        overlays=[drawn(chart) for chart in opening.diagrams] if opening else [],
        runs=runs,
        links=_links(runs, opening),
    )


def _links(runs: Sequence[RunView], opening: Overview | None) -> list[tuple[str, str]]:
    """Return (address, title) of each part of the page."""
    if len(runs) > 1:
        pictures = [("pictures", "Pictures")] if opening and opening.queries else []
        figures = [("figures", "Figures")] if opening else []
        return [*pictures, *figures, *((f"{run.key}report", run.data.title) for run in runs)]
    (run,) = runs
    pictures = [("pictures", "Pictures")] if run.examples else []
    figures = [("figures", "Figures")] if run.has_figures else []
    return [*pictures, *figures, *((fold.key, fold.title) for fold in run.folds)]


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
    figures = [drawn(chart) for chart in charts]
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
    environment.globals |= {"inline": inline, "version": __version__}
    html = environment.get_template(template).render(**values)
    with locked_file(out):
        # names of files need not be valid Unicode: what UTF-8 cannot encode is shown as "?"
        write_atomically(out, html.encode("utf-8", "replace"))
