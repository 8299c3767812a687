"""Verbs on figures: evaluate, compare, report, benchmark."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from schn_ray.cli.album.parts import has_part, is_album, part_of
from schn_ray.cli.verbs.arguments import (
    Settings,
    Workers,
    finish,
    listed,
    location_of,
    setting_lines,
    shards_mapper,
)
from schn_ray.cli.verbs.results import Evaluation, RunComparison, SuiteResult

if TYPE_CHECKING:
    from schn_ray.data.shards.map_shards import MapShards
    from schn_ray.data.store.reader import Store
    from schn_ray.evaluation.config import EvaluateConfig
    from schn_ray.evaluation.foreign_files import ForeignFiles


def evaluate(
    run: Path | str | None = None,
    store: Path | str | Store | None = None,
    out: Path | str | None = None,
    *,
    codes: Any = None,
    embeddings: Any = None,
    labels: Any = None,
    queries: Any = None,
    query_labels: Any = None,
    split: Any = None,
    bits: int | None = None,
    features: Path | str | None = None,
    gallery: Literal["encoded", "learned", "both"] | None = None,
    config: Path | str | None = None,
    settings: Settings = None,
    workers: Workers | None = None,
) -> Evaluation:
    """Encode the split's queries and gallery with a model; measure retrieval, exact under ties.

    Or measure codes or embeddings of another program: of a file (``.npy``, ``.npz``, Parquet) or
    an array, in place of run and store.

    Args:
        run: a finished run; or an album of ``build``, whose own store and features are then the
            default.
        store: the store with the split; also of another program's rows, which their ids join to it.
        out: the evaluation's directory or URI; default: ``RUN-evaluation``, or the album's.
        codes: of another program: the gallery's [n, K], -1 and +1 or 0 and 1, or packed in bytes.
        embeddings: in place of codes: numbers [n, d]. Their signs are the codes, and their own
            ranking by cosine is measured, too.
        labels: of these rows: class numbers or names [n], or 0 and 1 for each class [n, C].
        queries: codes or embeddings of the queries, in the same form.
        query_labels: of the queries.
        split: where queries are among the rows: ``query`` or ``gallery`` for each row.
        bits: of packed codes, if no multiple of 8.
        features: of the store's images, as ``embed`` wrote them with the model's own backbone: they
            are hashed in place of the images, which takes seconds.
        gallery: ``"encoded"``: codes by the model, as a user has them; ``"learned"``: those that
            training solved from labels; ``"both"``: side by side. Default: encoded. Of another
            program, ``"encoded"`` is your word for it, and makes them comparable with a run's.
        config: a YAML file of settings.
        settings: such as ``{"examples": 20}``; they override the file.
        workers: None: in this process. ``4``, ``"2:8"`` or ``"all"``: so many on Ray.

    Returns:
        The evaluation, shown with its figures; ``.figures`` has them by name.

    Raises:
        SchnRayError: a split that is empty or would spoil the figures, no learned codes, features
            of another backbone, or files that do not fit together or to the store.

    Example:
        >>> evaluate("run", "store")  # doctest: +SKIP
        mAP 0.99, gallery codes: encoded
          179 queries, 720 gallery images, 32 bits, protocol random
        >>> evaluate(
        ...     codes="B_gallery.npy",
        ...     labels="L_gallery.npy",
        ...     queries="B_query.npy",
        ...     query_labels="L_query.npy",
        ...     out="hashnet",
        ... )  # doctest: +SKIP
    """
    from schn_ray.core.errors import SchnRayError
    from schn_ray.core.settings import load_settings
    from schn_ray.evaluation.config import EvaluateConfig

    lines = setting_lines(settings, {"gallery": gallery})
    loaded = load_settings(EvaluateConfig, None if config is None else Path(config), lines)
    if codes is not None or embeddings is not None:
        if run is not None or features is not None or gallery in ("learned", "both"):
            raise SchnRayError(
                "codes and embeddings of another program are measured without a run: leave RUN, "
                "--features and --gallery learned or both out"
            )
        from schn_ray.evaluation.foreign_files import ForeignFiles

        files = ForeignFiles(
            codes,
            embeddings,
            labels,
            queries,
            query_labels,
            split,
            bits,
            None if store is None else part_of(location_of(store), "store"),
            gallery == "encoded",
        )
        return _evaluated_files(files, out, loaded, workers)
    if run is None:
        raise SchnRayError(
            "name a RUN and its --store STORE; or --codes FILE, or --embeddings FILE, of others"
        )
    if is_album(album := location_of(run)):
        from schn_ray.core.storage.files import join

        run, store = part_of(album, "run"), store or part_of(album, "store")
        out = out or join(album, "evaluation")
        if features is None and has_part(album, "features"):
            features = part_of(album, "features")
    if store is None:
        raise SchnRayError("--store STORE is missing: name the store with the split")
    return _evaluated_run(run, location_of(store), out, features, loaded, workers)


def _evaluated_run(
    run: Path | str,
    store: str,
    out: Path | str | None,
    features: Path | str | None,
    config: EvaluateConfig,
    workers: Workers | None,
) -> Evaluation:
    from schn_ray.evaluation.evaluate import evaluate_run
    from schn_ray.evaluation.results import default_evaluation

    target = default_evaluation(run) if out is None else location_of(out)
    shards = shards_mapper("evaluating", workers, gpus=True, writes=target)
    embedded = None if features is None else location_of(features)
    output = finish(
        target,
        lambda: evaluate_run(run, store, target, config, shards, embedded),
    )
    return Evaluation(target, output.manifest, output.note)


def _evaluated_files(
    files: ForeignFiles,
    out: Path | str | None,
    config: EvaluateConfig,
    workers: Workers | None,
) -> Evaluation:
    from schn_ray.core.errors import SchnRayError
    from schn_ray.evaluation.foreign import measure_foreign

    source = files.codes if files.embeddings is None else files.embeddings
    if out is None and not isinstance(source, str | Path):
        raise SchnRayError("out is missing: name the directory to write")
    stem = f"{source}".removesuffix(Path(f"{source}").suffix)
    target = f"{stem}-evaluation" if out is None else location_of(out)
    shards = shards_mapper("evaluating", workers, writes=target)
    output = finish(target, lambda: measure_foreign(files, target, config, shards))
    return Evaluation(target, output.manifest, output.note)


def compare(runs: Path | str | Sequence[Path | str]) -> RunComparison:
    """Compare runs on the same queries: mean and deviation over seeds, and what may be chance.

    Args:
        runs: runs that were evaluated, or evaluations, or albums of ``build``. Runs that differ
            only in their seed are one method.

    Returns:
        The table; ``.comparison`` has its figures.

    Raises:
        SchnRayError: one was not evaluated, is given twice, or has other queries, another gallery
            or other gallery codes.

    Example:
        >>> compare(["run-a", "run-b"])  # doctest: +SKIP
    """
    from schn_ray.evaluation.compare import compare_runs

    return RunComparison(
        compare_runs([part_of(location_of(run), "evaluation") for run in listed(runs)])
    )


def write_report(
    runs: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    evaluation: Path | str | Sequence[Path | str] | None = None,
    figures: Path | str | None = None,
) -> Path:
    """Draw runs and their evaluations as one HTML file that works offline; ``schn-ray report``.

    Args:
        runs: one run or more, finished or not; or albums of ``build``; or evaluations, such as
            those of another program's codes, which have no run.
        out: the HTML file.
        evaluation: evaluations of any of them; default: ``RUN-evaluation`` or that of the album, if
            it exists.
        figures: a directory for each figure as PNG and JSON.

    Returns:
        The HTML file.

    Raises:
        SchnRayError: no such run or evaluation, or they do not belong together.

    Example:
        >>> write_report("run", "report.html")  # doctest: +SKIP
        PosixPath('report.html')
    """
    from schn_ray.report.runs import report_runs

    given = [location_of(run) for run in listed(runs)]
    evaluations = [location_of(one) for one in listed(evaluation)]
    albums = [path for path in given if has_part(path, "evaluation")]
    evaluations += [part_of(album, "evaluation") for album in albums]
    given = [part_of(path, "run") for path in given]
    report_runs(given, evaluations, Path(out), None if figures is None else Path(figures))
    return Path(out)


def benchmark(
    suite: Path | str,
    out: Path | str,
    *,
    data: Mapping[str, Path | str] | None = None,
    settings: Settings = None,
    workers: Workers | None = None,
) -> SuiteResult:
    """Train and measure many methods on the same data, split and budget, for one table.

    Interrupted at any moment, the same call does only the rest. A suite that has grown, by a
    method, a length, a seed or trials, trains what is new. With ``budget.trials`` of 2 or more,
    each method also tries settings of its own, judged without the queries.

    Args:
        suite: ``"quick"``, ``"frozen"``, ``"leaders"``, ``"scratch"``, ``"finetune"``,
            ``"published-sets"``, or a YAML file.
        out: the directory to write: data, a run for each cell, ``results.parquet``, ``index.html``.
        data: name of a data set of the suite -> where it lies; those without a place are left out,
            unless they are prepared in ``out``.
        settings: such as ``{"methods": ["csq", "itq"], "bits": [32]}``; they override the file.
        workers: None: in this process. ``4``, ``"2:8"`` or ``"all"``: so many on Ray, a training
            each.

    Returns:
        The table, the best method of each data set and length first.

    Raises:
        SchnRayError: an unknown suite, method or setting, or no data set with a place.

    Example:
        >>> benchmark("quick", "table", settings={"methods": ["csq", "itq"]})  # doctest: +SKIP
    """
    from schn_ray.report.suite import report_suite
    from schn_ray.suites.cells import Ended
    from schn_ray.suites.run import TRAINING, TUNING, run_suite
    from schn_ray.suites.suite import read_suite
    from schn_ray.suites.table import suite_table
    from schn_ray.suites.table_output import write_table
    from schn_ray.suites.trials import Tried, choices_of

    sources = {name: location_of(path) for name, path in (data or {}).items()}
    target = Path(out)
    opened = read_suite(str(suite), sources, setting_lines(settings), target)
    if opened.left_out:
        note = f"left out, as no place is given: {', '.join(opened.left_out)}"
        print(f"schn-ray: {note}", file=sys.stderr)
    cells, tried = list[Ended](), list[Tried]()

    def mapper(what: str) -> MapShards:
        unit = {TRAINING: "trainings", TUNING: "trials"}.get(what, "rows")
        return shards_mapper(what, workers, gpus=True, writes=str(target), unit=unit)

    def ended(one: Ended | Tried, number: int, total: int) -> None:
        if isinstance(one, Ended):
            cells.append(one)
        else:
            tried.append(one)
        print(f"schn-ray: {number} of {total}: {one}", file=sys.stderr)

    try:
        run_suite(opened, target, mapper, ended)
    finally:  # an interrupted suite has a table, too
        choices = choices_of(opened, cells, tried)
        table = suite_table(target, cells, choices, opened.budget.trials)
        if table.blocks:
            write_table(table, target)
            report_suite(table, Path(suite).stem, target)
    return SuiteResult(str(target), table)
