"""Read runs and their evaluations from disk, and write reports of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.documents import parse_json
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST, REQUEST, is_finished, read_manifest
from schn_ray.core.storage.cache import directory_kind, local_copy
from schn_ray.core.storage.files import as_location, join, kind_at
from schn_ray.data.sources.fetch import fetch
from schn_ray.evaluation.compare import compare_runs
from schn_ray.evaluation.examples import BEST, BETWEEN, WORST, ExampleQuery, LabelledImage
from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.foreign import PROTOCOL
from schn_ray.evaluation.results import (
    KIND,
    default_evaluation,
    read_examples,
    read_figures,
    read_plot_data,
)
from schn_ray.models.model_files import fingerprint
from schn_ray.report.contents import (
    BEST_QUERIES,
    OTHER_QUERIES,
    WORST_QUERIES,
    Example,
    Neighbour,
    Picture,
    ReportData,
)
from schn_ray.report.figure_files import write_figures
from schn_ray.report.overview import overview
from schn_ray.report.page import write_reports, write_search_page
from schn_ray.retrieval.search import Result
from schn_ray.training.metrics_file import METRICS, read_metrics

_HEADINGS = {WORST: WORST_QUERIES, BEST: BEST_QUERIES, BETWEEN: OTHER_QUERIES}


def report_run(run: Path, evaluation: Path | None, out: Path) -> None:
    """Write the HTML report of a run and of its evaluation.

    Args:
        run: finished or not.
        evaluation: of the run; None for the one next to the run, if it exists.
        out: the HTML file.

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
    """Write one HTML report of all runs, with a comparison if each has an evaluation.

    Args:
        runs: finished or not; or evaluations, such as those of another program's codes.
        evaluations: of any of the runs; the model that one measured says which run it belongs to.
            For the other runs, the evaluation next to the run is used, if it exists.
        out: the HTML file.
        figures: directory for every diagram as PNG and its numbers as JSON.

    Raises:
        SchnRayError: no such run or evaluation, or they do not belong together.
    """
    matched = _matched(runs, evaluations)
    names = _names(runs)
    reports = [
        _data(local_copy(run), name, evaluation)
        for run, name, evaluation in zip(runs, names, matched, strict=True)
    ]
    opening = None
    known = [path for path in matched if path is not None]
    if len(runs) > 1 and len(known) == len(runs):
        by_name = dict(zip(names, reports, strict=True))
        opening = overview(
            compare_runs(known),
            {name: data.figures for name, data in by_name.items() if data.figures},
            {name: data.plots for name, data in by_name.items()},
            {name: data.examples for name, data in by_name.items()},
        )
    title = reports[0].title if len(runs) == 1 else f"{len(runs)} runs of image codes"
    if figures is not None:
        write_figures(figures, names, reports, opening)
    write_reports(title, reports, opening, out)


def _matched(
    runs: Sequence[Path | str], evaluations: Sequence[Path | str]
) -> list[Path | str | None]:
    """Return the evaluation of each run."""
    models = {run: _model(run) for run in runs if not _is_evaluation(run)}
    given = {read_figures(path).model: path for path in evaluations}
    stray = set(given) - set(models.values())
    if stray:
        paths = ", ".join(str(given[model]) for model in stray)
        raise SchnRayError(
            f"{paths} measured another model than {', '.join(map(str, runs))}: name the run that "
            "it belongs to"
        )
    matched: list[Path | str | None] = []
    for run in runs:
        if run not in models:
            matched.append(run)
            continue
        default = default_evaluation(run)
        finished = _is_finished(default) and read_figures(default).model == models[run]
        matched.append(given.get(models[run] or "") or (default if finished else None))
    return matched


def _model(run: Path | str) -> str | None:
    return fingerprint(run) if _is_finished(run) else None


def _is_evaluation(path: Path | str) -> bool:
    return directory_kind(as_location(path)) == KIND


def _is_finished(path: Path | str) -> bool:
    return kind_at(join(as_location(path), MANIFEST)) is not None


def _names(runs: Sequence[Path | str]) -> list[str]:
    """Return a name of each run: the last part of its path, or all of it where two are equal."""
    last = [Path(as_location(run)).name for run in runs]
    return last if len(set(last)) == len(last) else [str(run) for run in runs]


def _data(run: Path, name: str, evaluation: Path | str | None) -> ReportData:
    alone = _is_evaluation(run)  # there is no run: another program's codes, say
    request = asdict(read_manifest(run, KIND)) if alone else _request(run)
    history = [] if alone else _history(run)
    provenance: dict[str, Any] = {
        heading: request[key]
        for key, heading in (
            ("made_from", "data"),
            ("config", "settings"),
            ("versions", "versions"),
        )
        if key in request
    }
    if evaluation is None:
        title = f"{name}: {request['config']['bits']}-bit image codes"
        return ReportData(title, history=history, provenance=provenance)
    figures = read_figures(evaluation)
    return ReportData(
        title=f"{name}: {figures.bits}-bit image codes",
        summary_rows=_summary(figures),
        figures=figures,
        plots=read_plot_data(evaluation),
        history=history,
        examples=[_example(example) for example in read_examples(evaluation)],
        provenance=provenance | {"evaluation": _provenance(figures)},
    )


def _provenance(figures: Figures) -> dict[str, Any]:
    return {
        "model": figures.model,
        "store": figures.store,
        "protocol": figures.protocol,
        "split_seed": figures.split_seed,
        "queries_sha256": figures.queries_sha256,
        "gallery_sha256": figures.gallery_sha256,
        "ties": figures.ties,
    }


def write_results_page(results: Sequence[Result], out: Path) -> None:
    """Write the results of ``search`` as an HTML page with the images.

    Args:
        results: one a query.
        out: the HTML file.

    Raises:
        SchnRayError: ``out`` is a directory.
    """
    examples = [
        Example(
            _picture(result.uri, result.query),
            [
                Neighbour(_picture(hit.uri, hit.id), hit.distance, score=hit.score)
                for hit in result.hits
            ],
            note=result.choice,
        )
        for result in results
    ]
    where, passing = next(((result.where, result.passing) for result in results), (None, None))
    write_search_page(out, "Search results", examples, where, passing)


def _request(run: Path) -> dict[str, Any]:
    if is_finished(run):
        return asdict(read_manifest(run, "run"))
    if (run / REQUEST).is_file():
        request = parse_json((run / REQUEST).read_bytes(), str(run / REQUEST))
        if isinstance(request, dict) and request.get("kind") == "run":
            return request
    raise SchnRayError(f"{run} is no run: expected a directory that schn-ray train wrote")


def _history(run: Path) -> list[dict[str, Any]]:
    if is_finished(run):
        open_artefact(run, "run").check([METRICS])
    return read_metrics(run)


def _example(example: ExampleQuery) -> Example:
    neighbours = [
        Neighbour(_captioned(near), near.distance, near.relevant) for near in example.neighbours
    ]
    return Example(_captioned(example.query), neighbours, _HEADINGS.get(example.kind, ""))


def _captioned(image: LabelledImage) -> Picture:
    return _picture(image.uri, image.id, ", ".join(image.labels))


def _picture(uri: str, id: str, caption: str = "") -> Picture:
    try:
        return Picture(id, fetch(uri), caption)
    except (SchnRayError, OSError):
        return Picture(id, b"", caption)  # shown as a placeholder: the file was moved or deleted


def _summary(figures: Figures) -> list[tuple[str, str, str]]:
    recall = figures.main_recall
    seen = "trained on or not: not known" if figures.protocol == PROTOCOL else "never trained on"
    if figures.map is not None:
        first = ("mAP", f"{figures.map:.3f}", f"gallery codes: {figures.gallery_codes}")
    elif recall is not None:
        note = f"of the {recall.k} nearest by features, among the first {recall.first}"
        first = (recall.name.capitalize(), f"{recall.model.mean:.3f}", note)
    else:
        return []
    return [
        first,
        ("Queries", f"{figures.queries:,}", seen),
        ("Gallery", f"{figures.gallery:,}", f"protocol {figures.protocol}"),
        ("Bits", str(figures.bits), f"{-(-figures.bits // 8)} bytes an image"),
    ]
