"""The page of ``check``: classes, bad rows and repeated images of a source, as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from schn_ray.data.check import Report
from schn_ray.report.page import write_page

_CLASSES, _LINES, _NAMES = 60, 50, 6


class ClassRow(NamedTuple):
    """A class on the page.

    Attributes:
        name: of the class.
        images: how many it has.
        percent: of the largest class's images.
        samples: files of a few images.
    """

    name: str
    images: int
    percent: float
    samples: Sequence[bytes]


def write_check_page(report: Report, out: Path) -> None:
    """Write the report of ``check`` as one HTML file.

    Args:
        report: of a source.
        out: the HTML file.

    Raises:
        SchnRayError: ``out`` is a directory.
    """
    largest = max(report.classes.values(), default=1)
    classes = [
        ClassRow(name, images, 100 * images / largest, report.samples.get(name, ()))
        for name, images in list(report.classes.items())[:_CLASSES]
    ]
    write_page(
        out,
        "check.html.jinja",
        title=f"Check of {report.location}",
        report=report,
        facts=_facts(report),
        classes=classes,
        more_classes=len(report.classes) - len(classes),
        unlabelled=report.samples.get("", ()),
        bad_rows=report.bad_rows[:_LINES],
        copies=[_shortened(ids) for ids in report.copies[:_LINES]],
        overlaps=report.overlaps[:_LINES],
    )


def _facts(report: Report) -> list[tuple[str, str, str]]:
    """Return (name, value, note) of each number at the top."""
    good = report.rows - len(report.bad_rows)
    bad_share = len(report.bad_rows) / report.rows if report.rows else 0.0
    stops = ", so prepare stops" if bad_share > report.max_bad_share else ""
    facts = [
        ("layout", report.kind, report.how_known),
        ("images", f"{good:,}", f"of {report.rows:,} rows"),
        ("bad rows", f"{len(report.bad_rows):,}", f"{bad_share:.2%}{stops}"),
        ("classes", f"{len(report.classes):,}", f"{report.multi_label:,} images have two or more"),
        ("without a label", f"{report.unlabelled:,}", "images"),
        ("repeated images", f"{report.repeated_images:,}", "the same bytes under another id"),
    ]
    if report.sizes:
        small, middle, large = (" x ".join(map(str, size)) for size in report.sizes.values())
        facts.append(("pixels", middle, f"median; {small} to {large}"))
    if report.splits:
        sizes = ", ".join(f"{name} {rows:,}" for name, rows in report.splits.items())
        facts.append(("its own split", f"{len(report.splits)} parts", sizes))
    if report.cameras:
        facts.append(("cameras", f"{report.cameras:,}", "named"))
    return facts


def _shortened(ids: list[str]) -> dict[str, Any]:
    return {"ids": ids[:_NAMES], "more": max(0, len(ids) - _NAMES)}
