"""The command from photos to a search page: build."""

from __future__ import annotations

from typing import Annotated

import typer

from schn_ray.cli.options import AsJson, Settings, Verbose, print_result
from schn_ray.cli.verbs.build import build


def build_command(
    photos: Annotated[
        str,
        typer.Argument(
            metavar="PHOTOS",
            help="Image folder, list (.txt, .csv), Parquet, tars, or a file of embeddings.",
        ),
    ],
    out: Annotated[str, typer.Option("--out", help="Directory of the album.", metavar="ALBUM")],
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Computes features of photos, as timm:NAME. Default: efficientnet_lite0."
        ),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Of the backbone: a file. Default: the pretrained ones.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="See 'methods'. Default: schn-plus with labels, itq without."),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(min=1, help="Bits of a code. Default: 64 with labels, 128 without."),
    ] = None,
    fine_tune: Annotated[
        bool, typer.Option("--fine-tune", help="Train the backbone, too: better, in hours.")
    ] = False,
    settings: Settings = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN:MAX",
            help="Workers on Ray. Default: none for what takes two minutes, else one for each CPU.",
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Make an album of photos: codes, an index, figures and a page; or take in what changed.

    Run the same command again after an interruption, or when photos were added or removed. Then:
    schn-ray serve ALBUM, schn-ray search ALBUM photo.jpg.
    """
    album = build(
        photos,
        out,
        backbone=backbone,
        weights=weights,
        method=method,
        bits=bits,
        fine_tune=fine_tune,
        settings=settings,
        workers=workers,
    )
    print_result(album, as_json)
