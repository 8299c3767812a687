"""Every diagram of a report as files: PNG for slides, its numbers as JSON for other tools."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from schn_ray.core.atomic_files import write_atomically, write_json, writing
from schn_ray.core.directories import AlreadyDone, new_directory
from schn_ray.report.contents import ReportData
from schn_ray.report.diagrams import Diagram
from schn_ray.report.draw import DARK, LIGHT, draw_png
from schn_ray.report.one_run import diagrams_of
from schn_ray.report.overview import Overview

KIND = "figures"


def write_figures(
    out: Path, names: Sequence[str], reports: Sequence[ReportData], opening: Overview | None
) -> None:
    """Write ``NAME.png``, ``NAME-dark.png`` and ``NAME.json`` of each diagram.

    With two or more runs, each has a folder, and the diagrams of the comparison are in ``out``
    itself. A second call with the same numbers does nothing.

    Args:
        out: the directory.
        names: of the runs.
        reports: contents of the report, one a run.
        opening: the comparison of the runs; None for none.

    Raises:
        SchnRayError: ``out`` holds something else.
    """
    drawn: dict[str, Diagram] = {}
    for diagram in opening.diagrams if opening else ():
        drawn[_slug(diagram.title)] = diagram
    for name, data in zip(names, reports, strict=True):
        folder = f"{_slug(name)}/" if len(names) > 1 else ""
        drawn |= {f"{folder}{_slug(each.title)}": each for each in diagrams_of(data)}
    numbers = json.dumps({name: asdict(each) for name, each in drawn.items()}, sort_keys=True)
    made_from = {"numbers": hashlib.sha256(numbers.encode()).hexdigest()}
    with suppress(AlreadyDone), new_directory(out, KIND, {}, made_from) as draft:
        for name, diagram in drawn.items():
            path = draft.path / name
            with writing(path):
                path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path.with_name(f"{path.name}.json"), asdict(diagram))
            for suffix, theme in (("", LIGHT), ("-dark", DARK)):
                png = draw_png(diagram, theme)
                write_atomically(path.with_name(f"{path.name}{suffix}.png"), png)
        draft.counts["figures"] = len(drawn)


def _slug(title: str) -> str:
    """Return a title as a file's name.

    >>> _slug("mAP by length of code")
    'map-by-length-of-code'
    """
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "figure"
