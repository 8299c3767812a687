"""From a run and its evaluation on disk to a report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST, REQUEST
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.files import as_location, join, kind_at
from schn_ray.data.sources.fetch import fetch
from schn_ray.evaluation.compare import compare_runs
from schn_ray.evaluation.results import (
    default_evaluation,
    read_diagrams,
    read_examples,
    read_figures,
)
from schn_ray.models.hasher import fingerprint
from schn_ray.report.contents import Example, Neighbour, Picture, ReportData
from schn_ray.report.figure_files import write_figures
from schn_ray.report.overview import overview
from schn_ray.report.page import write_reports, write_search_page
from schn_ray.retrieval.search import Result
from schn_ray.training.recorder import read_metrics

_KINDS = {
    "worst": "The worst queries",
    "best": "The best queries",
    "in between": "Some others",
}


def report_run(run: Path, evaluation: Path | None, out: Path) -> None:
    """Write the HTML report of a run, finished or not, and of its evaluation if there is one.

    Raises:
        SchnRayError: see ``report_runs``.
    """
    report_runs([run], [] if evaluation is None else [evaluation], out)


def report_runs(
    runs: Sequence[Path | str],
    evaluations: Sequence[Path | str],
    out: Path,
    figures: Path | None = None,
) -> None:
    """Write one HTML report of several runs, compared where they all were evaluated.

    Args:
        runs: finished or not.
        evaluations: of any of them, told apart by the model that they measured; a run without one
            has that which stands beside it, if it is there.
        out: the HTML file.
        figures: directory for every figure as PNG and its numbers as JSON.

    Raises:
        SchnRayError: no such run or evaluation, or they do not belong together.
    """
    found = _matched(runs, evaluations)
    names = _names(runs)
    reports = [
        _data(local_copy(run), name, evaluation)
        for run, name, evaluation in zip(runs, names, found, strict=True)
    ]
    opening = None
    known = [path for path in found if path is not None]
    if len(runs) > 1 and len(known) == len(runs):
        opening = overview(
            compare_runs(known),
            {name: data.metrics for name, data in zip(names, reports, strict=True)},
            {name: data.diagrams for name, data in zip(names, reports, strict=True)},
        )
    title = reports[0].title if len(runs) == 1 else f"{len(runs)} runs of image codes"
    if figures is not None:
        write_figures(figures, names, reports, opening)
    write_reports(title, reports, opening, out)


def _matched(
    runs: Sequence[Path | str], evaluations: Sequence[Path | str]
) -> list[Path | str | None]:
    """Return the evaluation of each run."""
    models = {run: _model(run) for run in runs}
    given = {str(read_figures(path)["model"]): path for path in evaluations}
    stray = set(given) - set(models.values())
    if stray:
        paths = ", ".join(str(given[model]) for model in stray)
        raise SchnRayError(
            f"{paths} measured another model than {', '.join(map(str, runs))}: name the run that "
            "it belongs to"
        )
    found: list[Path | str | None] = []
    for run in runs:
        beside = default_evaluation(run)
        finished = _is_finished(beside) and read_figures(beside)["model"] == models[run]
        found.append(given.get(models[run] or "") or (beside if finished else None))
    return found


def _model(run: Path | str) -> str | None:
    return fingerprint(run) if _is_finished(run) else None


def _is_finished(path: Path | str) -> bool:
    return kind_at(join(as_location(path), MANIFEST)) is not None


def _names(runs: Sequence[Path | str]) -> list[str]:
    """Return a short name of each run: the last part of its path, or more where that is not one."""
    last = [Path(as_location(run)).name for run in runs]
    return last if len(set(last)) == len(last) else [str(run) for run in runs]


def _data(run: Path, name: str, evaluation: Path | str | None) -> ReportData:
    request = _request(run)
    measured: Mapping[str, Any] = {}
    pictures: Mapping[str, Any] = {}
    examples: list[Example] = []
    if evaluation is not None:
        measured, pictures = read_figures(evaluation), read_diagrams(evaluation)
        examples = [_example(found) for found in read_examples(evaluation)]
    return ReportData(
        title=f"{name}: {request['config']['bits']}-bit image codes",
        summary_rows=_summary(measured),
        metrics=measured,
        diagrams=pictures,
        history=read_metrics(run),
        examples=examples,
        provenance={
            key: request[key] for key in ("made_from", "versions", "config") if key in request
        }
        | _provenance(measured),
    )


def _provenance(measured: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("model", "store", "protocol", "split_seed", "queries_sha256", "gallery_sha256", "ties")
    found = {key: measured[key] for key in kept if key in measured}
    return {"evaluation": found} if found else {}


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
    return Example(_captioned(found["query"]), neighbours, _KINDS.get(found.get("kind", ""), ""))


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
