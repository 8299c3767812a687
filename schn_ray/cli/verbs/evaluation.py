"""Verbs on figures: evaluate, compare, report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

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


def evaluate(
    run: Path | str,
    store: Path | str | Store,
    out: Path | str | None = None,
    *,
    features: Path | str | None = None,
    gallery: Literal["encoded", "learned", "both"] | None = None,
    both: bool = False,
    config: Path | str | None = None,
    settings: Settings = None,
    workers: Workers | None = None,
) -> Evaluation:
    """Encode the split's queries and gallery with a model; measure retrieval, exact under ties.

    Args:
        run: a finished run.
        store: the store with the split.
        out: the evaluation's directory or URI; default: ``RUN-evaluation``.
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
        SchnRayError: a split that is empty or would spoil the figures, no learned codes, or
            features of another backbone.

    Example:
        >>> evaluate("run", "store")  # doctest: +SKIP
        mAP 0.99, gallery codes: encoded
          179 queries, 720 gallery images, 32 bits, protocol random
    """
    from schn_ray.core.settings import load_settings
    from schn_ray.evaluation.config import EvaluateConfig

    lines = setting_lines(settings, {"gallery": "both" if both else gallery})
    loaded = load_settings(EvaluateConfig, None if config is None else Path(config), lines)

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
