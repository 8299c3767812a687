"""The command on near-duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from schn_ray.cli.options import AsJson, Verbose, print_result
from schn_ray.cli.verbs.duplicates import duplicates


def duplicates_command(
    path: Annotated[str, typer.Argument(metavar="CODES|INDEX|ALBUM", help="What to look at.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    radius: Annotated[int, typer.Option("-r", "--radius", min=0, help="Bits that may differ.")] = 0,
    verify: Annotated[
        Literal["perceptual", "bytes", "features", "none"],
        typer.Option(
            help="What makes near codes copies: pictures that look the same, the same bytes, or "
            "near features. none: group near codes as they are."
        ),
    ] = "perceptual",
    features: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="With --verify features: what embed wrote."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Instead: which images have a near-duplicate in this other gallery.",
            metavar="CODES|INDEX",
        ),
    ] = None,
    keep: Annotated[
        Literal["best"] | None,
        typer.Option(
            help="Say what to keep of each group, the largest, then the oldest image; write lists "
            "of ids to keep and to remove beside OUT."
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Also write a page, with the images.")] = None,
    plant: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Instead: plant copies of N images, and say how many would be recovered.",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(metavar="RUN", help="With --plant: the run that encoded them.")
    ] = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN:MAX",
            help="Workers on Ray, for galleries that do not fit this machine. Default: none.",
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Group near-duplicates.

    Images with near codes are compared; copies, and what chains of copies connect, are a group.
    """
    result = duplicates(
        path,
        out,
        radius=radius,
        verify=verify,
        features=features,
        against=against,
        keep=keep,
        html=html,
        plant=plant,
        model=model,
        workers=workers,
    )
    print_result(result, as_json)
