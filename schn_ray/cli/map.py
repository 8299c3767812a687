"""The command on the map of a gallery."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schn_ray.cli.options import AsJson, Verbose, print_result
from schn_ray.cli.verbs.map import map_codes


def map_command(
    path: Annotated[str, typer.Argument(metavar="CODES|INDEX", help="Codes, or an index.")],
    out: Annotated[
        Path, typer.Option("--out", help="HTML file to write; its points as .parquet beside it.")
    ],
    labels: Annotated[
        str | None,
        typer.Option(
            help="Colour by this store's labels of the images. Default: the ALBUM's own.",
            metavar="STORE",
        ),
    ] = None,
    radius: Annotated[
        int | None,
        typer.Option(
            "-r", "--radius", min=0, help="Colour by groups of codes so many bits apart at most."
        ),
    ] = None,
    most: Annotated[
        int, typer.Option(min=1, help="Images; of a larger gallery so many are drawn at random.")
    ] = 1_000_000,
    pictures: Annotated[
        int, typer.Option(min=0, help="Thumbnails in the page, spread over the map.")
    ] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw and of the layout.")] = 0,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write a page that shows codes as a map to zoom into: near codes are near points."""
    result = map_codes(
        path, out, labels=labels, radius=radius, most=most, pictures=pictures, seed=seed
    )
    print_result(result, as_json)
