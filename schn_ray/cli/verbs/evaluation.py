"""Verbs on figures: evaluate, compare, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from schn_ray.cli.verbs.arguments import (
    Settings,
    Workers,
    finish,
    listed,
    location_of,
    setting_lines,
    shards_mapper,
)
from schn_ray.cli.verbs.results import Evaluation, RunComparison

if TYPE_CHECKING:
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
    both: bool = False,
    config: Path | str | None = None,
    settings: Settings = None,
    workers: Workers | None = None,
) -> Evaluation:
    """Encode the split's queries and gallery with a model; measure retrieval, exact under ties.

    Or measure codes or embeddings of another program: of a file (``.npy``, ``.npz``, Parquet) or
    an array, in place of run and store.

    Args:
        run: a finished run.
        store: the store with the split.
        out: the evaluation's directory or URI; default: ``RUN-evaluation``.
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
            training solved from labels; ``"both"``: side by side. Default: encoded.
        both: short for ``gallery="both"``.
        config: a YAML file of settings.
        settings: such as ``{"examples": 20}``; they override the file.
        workers: None: in this process. ``4``, ``"2:8"`` or ``"all"``: so many on Ray.

    Returns:
        The evaluation, shown with its figures; ``.figures`` has them by name.

    Raises:
        SchnRayError: a split that is empty or would spoil the figures, no learned codes, features
            of another backbone, or files that do not fit together.

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

    lines = setting_lines(settings, {"gallery": "both" if both else gallery})
    loaded = load_settings(EvaluateConfig, None if config is None else Path(config), lines)

    if codes is not None or embeddings is not None:
        if run is not None or store is not None or features is not None or gallery or both:
            raise SchnRayError(
                "codes and embeddings of another program are measured without a run: leave RUN, "
                "--store, --features and --gallery out"
            )
        from schn_ray.evaluation.foreign_files import ForeignFiles

        files = ForeignFiles(codes, embeddings, labels, queries, query_labels, split, bits)
        return _evaluated_files(files, out, loaded, workers)
    if run is None or store is None:
        raise SchnRayError(
            "name a RUN and its --store STORE; or --codes FILE, or --embeddings FILE, of others"
        )

    from schn_ray.evaluation.evaluate import evaluate_run
    from schn_ray.evaluation.results import default_evaluation

    target = default_evaluation(run) if out is None else location_of(out)
    shards = shards_mapper("evaluating", workers, gpus=True, writes=target)
    embedded = None if features is None else location_of(features)
    output = finish(
        target,
        lambda: evaluate_run(run, location_of(store), target, loaded, shards, embedded),
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
        runs: runs that were evaluated, or evaluations. Runs that differ only in their seed are
            one method.

    Returns:
        The table; ``.comparison`` has its figures.

    Raises:
        SchnRayError: one was not evaluated, is given twice, or has other queries, another gallery
            or other gallery codes.

    Example:
        >>> compare(["run-a", "run-b"])  # doctest: +SKIP
    """
    from schn_ray.evaluation.compare import compare_runs

    return RunComparison(compare_runs(listed(runs)))


def write_report(
    runs: Path | str | Sequence[Path | str],
    out: Path | str,
    *,
    evaluation: Path | str | Sequence[Path | str] | None = None,
    figures: Path | str | None = None,
) -> Path:
    """Draw runs and their evaluations as one HTML file that works offline; ``schn-ray report``.

    Args:
        runs: one run or more, finished or not.
        out: the HTML file.
        evaluation: evaluations of any of them; default: ``RUN-evaluation``, if it exists.
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

    report_runs(
        listed(runs), listed(evaluation), Path(out), None if figures is None else Path(figures)
    )
    return Path(out)
