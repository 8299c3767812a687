"""Commands on images and stores: check, prepare."""

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
    Update,
    Verbose,
    Workers,
    print_result,
    workers_of,
)
from schn_ray.cli.verbs.data import check, prepare


def check_command(
    source: Source,
    html: Annotated[
        Path | None, typer.Option("--html", help="Also write a page, with images of each class.")
    ] = None,
    settings: Settings = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Count images or vectors, and classes; list bad ones and duplicates."""
    print_result(check(source, html=html, settings=settings), as_json)


SplitFrom = Annotated[
    Path | None,
    typer.Option("--split-from", help="Parquet, CSV or JSON file with the role of each id."),
]
LargestSide = Annotated[
    int | None, typer.Option(min=1, help="Store larger images smaller; pixels of a side.")
]
Quality = Annotated[
    int | None, typer.Option(min=1, max=95, help="JPEG quality of smaller images. Default: 90.")
]


def prepare_command(
    source: Source,
    out: Out,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="How rows are split; see docs/datasets.md. Default: random, or, where no row has "
            "a label, unlabelled."
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download CIFAR-10 (or -100) into SOURCE first.")
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed of the split. Default: 0.")
    ] = None,
    split_from: SplitFrom = None,
    largest_side: LargestSide = None,
    quality: Quality = None,
    update: Update = False,
    unseen_classes: Annotated[
        float | None, typer.Option(help="Share of the classes to leave out of training: 0.25.")
    ] = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check and copy labelled images into a training store, and draw its split.

    Every image or vector of SOURCE is read and checked. Run the same command again after an
    interruption: it does only the rest.
    """
    store = prepare(
        source,
        out,
        protocol=protocol,
        download=download,
        seed=seed,
        split_from=split_from,
        largest_side=largest_side,
        quality=quality,
        update=update,
        unseen_classes=unseen_classes,
        config=config_file,
        settings=settings,
        workers=workers_of(workers),
    )
    print_result(store, as_json)
