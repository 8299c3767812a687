"""Verbs on codes: encode, index, search."""

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


def encode(
    source: Source,
    model: Annotated[Path, typer.Option(help="A finished run, or its model directory.")],
    out: Out,
    update: Annotated[
        bool, typer.Option("--update", help="Take in what is new, changed or gone in SOURCE.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try the quarantined images again.")
    ] = False,
    config_file: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Code every image of SOURCE on Ray Data; run again, it goes on where it was stopped."""
    from schn_ray.config import EncodeConfig, load

    config = load(EncodeConfig, None, config_file, as_settings(settings))

    from schn_ray.cluster.shards import RayShards
    from schn_ray.encode import encode
    from schn_ray.sources import open_source

    shards = RayShards("encoding", as_range(workers), gpus=True)
    opened = open_source(source, config.source)
    make(
        out,
        as_json,
        lambda: encode(
            opened, model, out, config, shards, update=update, retry_failed=retry_failed
        ),
    )


def index(
    codes: Annotated[Path, typer.Argument(help="Codes that encode wrote.")],
    out: Out,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Build an exact search index over CODES."""
    from schn_ray.index import build_index

    make(out, as_json, lambda: build_index(codes, out))


def search(
    index: Annotated[Path, typer.Argument(help="An index that index wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Images to look for.")],
    model: Annotated[Path, typer.Option(help="The run or model that coded the index.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many results an image.")] = 10,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Find the gallery images nearest to IMAGES, exactly, ties in the order of ids."""
    from schn_ray.search import as_text, search_images

    results = search_images(index, model, images, k)
    if html is not None:
        from schn_ray.report.run import write_results_page

        write_results_page(results, html)
    show([result.to_json() for result in results], as_text(results), as_json)
