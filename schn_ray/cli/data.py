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
    make,
    show,
)


def check(
    source: Source, settings: Settings = None, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """Look at SOURCE: counts, classes and balance, bad files, duplicates."""
    from schn_ray.check import check, render
    from schn_ray.config import CheckConfig, load
    from schn_ray.progress import Progress
    from schn_ray.sources import open_source

    config = load(CheckConfig, settings=as_settings(settings)).source
    with Progress("checking") as progress:
        report = check(open_source(source, config), config, progress.advance)
    show(report.to_json(), render(report), as_json)


def prepare(
    source: Source,
    out: Out,
    protocol: Annotated[
        str | None, typer.Option(help="How rows are split; see docs. Default: random.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch CIFAR-10 into SOURCE first.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the split. Default: 0.")] = None,
    unseen_classes: Annotated[
        float | None, typer.Option(help="Share of the classes to hold out of training, as 0.25.")
    ] = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Read and check SOURCE on Ray Data; write the training store and its split."""
    from schn_ray.config import PrepareConfig, load

    if unseen_classes is not None:
        protocol = protocol or "unseen-classes"
    options = {"protocol": protocol, "seed": seed, "unseen_share": unseen_classes}
    chosen = as_settings(settings, options)
    config = load(PrepareConfig, None, config_file, chosen)

    if download:
        from schn_ray.sources.cifar import download as download_cifar10

        download_cifar10(Path(source))

    from schn_ray.cluster.shards import RayShards
    from schn_ray.sources import open_source
    from schn_ray.store import prepare

    shards = RayShards("preparing", as_range(workers))
    opened = open_source(source, config.source)
    make(out, as_json, lambda: prepare(opened, config, out, shards))
