"""Verbs on figures: evaluate, report."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from schn_ray.cli.options import (
    AsJson,
    Out,
    Settings,
    Verbose,
    Workers,
    as_range,
    as_settings,
    made,
    show,
)


class Gallery(StrEnum):
    """Which codes the gallery has: the model's own, or those that training solved from labels."""

    encoded = "encoded"
    learned = "learned"


def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    store: Annotated[Path, typer.Option(help="The store with the split.")],
    out: Out,
    gallery: Annotated[Gallery, typer.Option(help="The gallery's codes.")] = Gallery.encoded,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Code the split's queries and gallery with RUN's network; measure, exact under ties."""
    from schn_ray.config import EvaluateConfig, load

    config = load(EvaluateConfig, None, None, as_settings(settings, {"gallery": gallery}))

    from schn_ray.cluster.shards import RayShards
    from schn_ray.evaluation import as_text, evaluate, read_measured

    shards = RayShards("encoding the store", as_range(workers), gpus=True)
    made(lambda: evaluate(run, store, out, config, shards))
    measured = read_measured(out)
    show(measured, as_text(measured), as_json)


def report(
    run: Annotated[Path, typer.Argument(help="A run, finished or not.")],
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write.")],
    evaluation: Annotated[Path | None, typer.Option(help="What evaluate wrote.")] = None,
    verbose: Verbose = False,
) -> None:
    """Draw a run and its evaluation as one HTML file that works offline."""
    from schn_ray.report.run import report_run

    report_run(run, evaluation, out)
    typer.echo(f"{out}: open it in a browser")
