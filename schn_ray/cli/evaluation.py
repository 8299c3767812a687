"""Verbs on figures: evaluate, report."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from schn_ray.cli.options import (
    AsJson,
    ConfigFile,
    Settings,
    Verbose,
    Workers,
    as_range,
    as_settings,
    run_verb,
    show,
)


class Gallery(StrEnum):
    """Which codes the gallery has: the model's own, or those that training solved from labels."""

    encoded = "encoded"
    learned = "learned"
    both = "both"


def evaluate_command(
    run: Annotated[str, typer.Argument(help="A finished run.")],
    store: Annotated[str, typer.Option(help="The store with the split.")],
    out: Annotated[
        str | None,
        typer.Option("--out", help="Directory or URI to write. Default: RUN-evaluation."),
    ] = None,
    gallery: Annotated[
        Gallery | None, typer.Option(help="The gallery's codes. Default: encoded.")
    ] = None,
    both: Annotated[
        bool, typer.Option("--both", help="Learned codes beside the encoded ones.")
    ] = False,
    config_file: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Code the split's queries and gallery with RUN's network; measure, exact under ties."""
    from schn_ray.core.settings import load_settings
    from schn_ray.evaluation.config import EvaluateConfig

    chosen = Gallery.both if both else gallery
    config = load_settings(EvaluateConfig, config_file, as_settings(settings, {"gallery": chosen}))

    from schn_ray.cluster.map_shards import RayShards
    from schn_ray.evaluation.evaluate import evaluate
    from schn_ray.evaluation.results import default_evaluation, read_figures
    from schn_ray.evaluation.text import figures_text

    target = out or default_evaluation(run)
    shards = RayShards("evaluating", as_range(workers), gpus=True, writes=target)
    run_verb(lambda: evaluate(run, store, target, config, shards))
    figures = read_figures(target)
    text = f"{target}\n{figures_text(figures)}"
    show(figures.to_json() | {"path": target}, text, as_json)


def compare_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Evaluated runs, or evaluations.")
    ],
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compare runs on the same queries: mean and deviation over seeds, and what is chance."""
    from dataclasses import asdict

    from schn_ray.evaluation.compare import as_table, compare

    found = compare(runs)
    show(asdict(found), as_table(found), as_json)


def report_command(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Runs, finished or not.")],
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write.")],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="What evaluate wrote, of any RUN. Default: RUN-evaluation, if there."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Directory for each figure as PNG and JSON.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Draw runs and their evaluations as one HTML file that works offline."""
    from schn_ray.report.runs import report_runs

    report_runs(runs, evaluation or [], out, figures)
    typer.echo(f"{out}: open it in a browser")
