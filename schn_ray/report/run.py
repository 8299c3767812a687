"""From a run and its evaluation on disk to a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schn_ray.errors import SchnRayError
from schn_ray.evaluation import read_examples, read_measured
from schn_ray.manifest import MANIFEST, REQUEST
from schn_ray.report.data import Example, Neighbour, Picture, ReportData
from schn_ray.report.page import write_report, write_search_page
from schn_ray.search import Result
from schn_ray.sources import fetch
from schn_ray.training import read_metrics


def report_run(run: Path, evaluation: Path | None, out: Path) -> None:
    """Write the HTML report of a run, finished or not, and of its evaluation if there is one.

    Raises:
        SchnRayError: no such run or evaluation, or they do not belong together.
    """
    request = _request(run)
    measured: Mapping[str, Any] = {}
    examples: list[Example] = []
    if evaluation is not None:
        measured = read_measured(evaluation)
        examples = [_example(found) for found in read_examples(evaluation)]
    write_report(
        ReportData(
            title=f"{run.name}: {request['config']['bits']}-bit image codes",
            summary_rows=_summary(measured),
            metrics=measured,
            history=read_metrics(run),
            examples=examples,
            provenance={
                key: request[key] for key in ("made_from", "versions", "config") if key in request
            },
        ),
        out,
    )


def write_results_page(results: Sequence[Result], out: Path) -> None:
    """Write what ``search`` found as an HTML page with the pictures."""
    examples = [
        Example(
            _picture(result.uri, result.query),
            [Neighbour(_picture(hit.uri, hit.id), hit.distance) for hit in result.hits],
        )
        for result in results
    ]
    write_search_page(out, "Search results", examples)


def _request(run: Path) -> dict[str, Any]:
    for name in (MANIFEST, REQUEST):
        if (run / name).is_file():
            found = json.loads((run / name).read_text())
            if found["kind"] == "run":
                return dict(found)
    raise SchnRayError(f"{run}: wanted a directory that train wrote")


def _example(found: Mapping[str, Any]) -> Example:
    neighbours = [
        Neighbour(_captioned(near), near["distance"], near["relevant"])
        for near in found["neighbours"]
    ]
    return Example(_captioned(found["query"]), neighbours)


def _captioned(described: Mapping[str, Any]) -> Picture:
    return _picture(described["uri"], described["id"], ", ".join(described["labels"]))


def _picture(uri: str, id: str, caption: str = "") -> Picture:
    try:
        return Picture(id, fetch(uri), caption)
    except (SchnRayError, OSError):
        return Picture(id, b"", caption)  # shown as a placeholder: the image has moved away


def _summary(measured: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    if measured.get("map") is None:
        return []
    return [
        ("mAP", f"{measured['map']:.3f}", f"gallery codes: {measured['gallery_codes']}"),
        ("Queries", f"{measured['queries']:,}", "never trained on"),
        ("Gallery", f"{measured['gallery']:,}", f"protocol {measured['protocol']}"),
        ("Bits", str(measured["bits"]), f"{-(-measured['bits'] // 8)} bytes an image"),
    ]
