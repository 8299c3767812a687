"""Verbs on images and stores: check, prepare."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schn_ray.cli.options import (
    AsJson,
    ConfigFile,
    Out,
    Settings,
    Source,
    Verbose,
    Workers,
    as_range,
    as_settings,
    run_and_print,
    show,
)


def check_command(
    source: Source,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page with pictures, too.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Look at SOURCE: its layout, counts, classes and balance, bad files, duplicates."""
    from schn_ray.core.progress import Progress
    from schn_ray.core.settings import load_settings
    from schn_ray.data.check import check_source, render
    from schn_ray.data.config import CheckConfig
    from schn_ray.data.sources.kinds import open_source

    config = load_settings(CheckConfig, settings=as_settings(settings)).source
    with Progress("checking") as progress:
        report = check_source(
            open_source(source, config), config, progress.advance, html is not None
        )
    if html is not None:
        from schn_ray.report.check import write_check_page

        write_check_page(report, html)
    show(report.to_json(), render(report), as_json)


SplitFrom = Annotated[
    Path | None,
    typer.Option("--split-from", help="Somebody's split: Parquet, CSV or JSON of role and id."),
]
LargestSide = Annotated[
    int | None, typer.Option(min=1, help="Store larger images smaller: pixels of a side.")
]
Quality = Annotated[int | None, typer.Option(min=1, max=95, help="Of their JPEGs. Default: 90.")]


def prepare_command(
    source: Source,
    out: Out,
    protocol: Annotated[
        str | None, typer.Option(help="How rows are split; see docs. Default: random.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch CIFAR-10 (or -100) into SOURCE first.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the split. Default: 0.")] = None,
    split_from: SplitFrom = None,
    largest_side: LargestSide = None,
    quality: Quality = None,
    update: Annotated[
        bool, typer.Option("--update", help="Take in what is new, changed or gone in SOURCE.")
    ] = False,
    unseen_classes: Annotated[
        float | None, typer.Option(help="Share of the classes to hold out of training, as 0.25.")
    ] = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Read and check SOURCE on Ray Data; write the training store and its split.

    Run again after a kill, it does only the rest.
    """
    from schn_ray.core.settings import load_settings
    from schn_ray.data.config import PrepareConfig

    if unseen_classes is not None:
        protocol = protocol or "unseen-classes"
    given = {
        "protocol": protocol,
        "seed": seed,
        "unseen_share": unseen_classes,
        "split_from": None if split_from is None else str(split_from),
        "largest_side": largest_side,
        "quality": quality,
    }
    chosen = as_settings(settings, given)
    config = load_settings(PrepareConfig, config_file, chosen)

    if download:
        from schn_ray.data.sources.cifar import download as download_cifar

        download_cifar(Path(source), config.source.kind)

    from schn_ray.cluster.map_shards import RayShards
    from schn_ray.data.sources.kinds import open_source
    from schn_ray.data.store.prepare import prepare_store

    shards = RayShards("preparing", as_range(workers), writes=out)
    opened = open_source(source, config.source)
    run_and_print(out, as_json, lambda: prepare_store(opened, config, out, shards, update))
