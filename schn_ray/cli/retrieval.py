"""Verbs on codes: encode, index, search, duplicates, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

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
    read_id_file,
    run_and_print,
    show,
)


def encode_command(
    source: Source,
    model: Annotated[str, typer.Option(help="A finished run, or its model directory.")],
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
    from schn_ray.core.settings import load_settings
    from schn_ray.retrieval.config import EncodeConfig

    config = load_settings(EncodeConfig, config_file, as_settings(settings))

    from schn_ray.cluster.map_shards import RayShards
    from schn_ray.data.sources.kinds import open_source
    from schn_ray.retrieval.encode import encode_source

    shards = RayShards("encoding", as_range(workers), gpus=True, writes=out)
    opened = open_source(source, config.source)
    run_and_print(
        out,
        as_json,
        lambda: encode_source(
            opened, model, out, config, shards, update=update, retry_failed=retry_failed
        ),
    )


def index_command(
    path: Annotated[
        str, typer.Argument(metavar="CODES|INDEX", help="Codes to index, or an index.")
    ],
    out: Annotated[
        str | None, typer.Option("--out", help="Directory or URI to write the index of CODES to.")
    ] = None,
    add: Annotated[
        str | None, typer.Option(help="Add these codes to INDEX.", metavar="CODES")
    ] = None,
    remove: Annotated[
        Path | None,
        typer.Option(help="Remove the ids of a file, one a line, from INDEX.", metavar="IDS"),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check all of INDEX against its SHA-256.")
    ] = False,
    info: Annotated[bool, typer.Option("--info", help="Describe INDEX.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Build an exact search index over CODES; or change, check or describe an INDEX."""
    from schn_ray.core.errors import SchnRayError
    from schn_ray.retrieval.index.build import rewrite_index, write_index
    from schn_ray.retrieval.index.index import open_index, verify_index

    if out is not None:
        if add or remove or verify or info:
            raise SchnRayError("--out builds an index; --add, --remove ... take an index instead")
        run_and_print(out, as_json, lambda: write_index(path, out))
        return
    if add or remove:
        ids = () if remove is None else read_id_file(remove)
        run_and_print(path, as_json, lambda: rewrite_index(path, add, ids))
    if verify:
        size = verify_index(path)
        show({"path": path, "verified": size}, f"{path}: {size:,} bytes are sound", as_json)
    if info:
        search_indexes = open_index(path).info()
        lines = [f"  {name.replace('_', ' ')}: {value}" for name, value in search_indexes.items()]
        show({"path": path} | search_indexes, "\n".join([f"{path}: index", *lines]), as_json)
    if not (add or remove or verify or info):
        raise SchnRayError(
            "say what to do: --out INDEX to index codes; --add, --remove, --verify or --info for "
            "an index"
        )


def search_command(
    index: Annotated[str, typer.Argument(help="An index that index wrote.")],
    images: Annotated[list[Path] | None, typer.Argument(help="Images to look for.")] = None,
    model: Annotated[
        str | None, typer.Option(help="The run or model that coded the index; for IMAGES.")
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option("--id", help="An id of the index: more like this one.")
    ] = None,
    code: Annotated[list[str] | None, typer.Option(help="A code, in hexadecimal.")] = None,
    queries: Annotated[
        str | None, typer.Option(help="Codes to look for, all of them; on Ray.", metavar="CODES")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Directory or URI to write; for --queries.")
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="Another index; searched as one with INDEX.")
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="How many results. Default: 10, or all within.")
    ] = None,
    radius: Annotated[
        int | None, typer.Option("-r", "--radius", min=0, help="At most so many bits away.")
    ] = None,
    paths: Annotated[
        bool, typer.Option("-f", "--paths", help="Print where the found images are, no more.")
    ] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures.")] = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Find what is nearest to IMAGES, ids or codes, exactly, ties in the order of ids."""
    from schn_ray.core.errors import SchnRayError
    from schn_ray.retrieval.search import SearchLimits, results_paths, results_text, search_indexes

    wanted = SearchLimits(10 if k is None and radius is None else k, radius)
    indexes = [index, *(also or ())]
    if (queries is None) != (out is None):
        raise SchnRayError("--queries CODES and --out DIR go together")
    if queries is not None and out is not None:
        _search_gallery(indexes, queries, out, wanted, workers, as_json)
        return
    results = search_indexes(indexes, wanted, images or (), model, like or (), code or ())
    if html is not None:
        from schn_ray.report.runs import write_results_page

        write_results_page(results, html)
    text = results_paths(results) if paths else results_text(results)
    show([result.to_json() for result in results], text, as_json)


def _search_gallery(
    indexes: list[str],
    queries: str,
    out: str,
    wanted: Any,
    workers: str | None,
    as_json: bool,
) -> None:
    from schn_ray.cluster.map_shards import RayShards
    from schn_ray.retrieval.batch_search import search_gallery

    shards = RayShards("searching", as_range(workers), writes=out)
    run_and_print(out, as_json, lambda: search_gallery(indexes, queries, out, wanted, shards))


def duplicates_command(
    path: Annotated[str, typer.Argument(metavar="CODES|INDEX", help="Codes, or an index.")],
    out: Annotated[Path, typer.Option("--out", help="Parquet file to write.")],
    radius: Annotated[
        int, typer.Option("-r", "--radius", min=0, max=4, help="Bits that may differ.")
    ] = 0,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Group near-duplicates: images that a chain of codes at most so far apart connects."""
    from dataclasses import asdict

    from schn_ray.retrieval.duplicates import find_duplicates

    counted = find_duplicates(path, radius, out)
    show({"path": str(out)} | asdict(counted), f"{out}: {counted}", as_json)


def serve_command(
    index: Annotated[str, typer.Argument(help="An index that index wrote.")],
    model: Annotated[str, typer.Option(help="The run or model that coded the index.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    settings: Settings = None,
    verbose: Verbose = False,
) -> None:
    """Serve a search page and its JSON API on Ray Serve, until Ctrl-C."""
    from schn_ray.core.settings import load_settings
    from schn_ray.retrieval.config import ServeConfig

    config = load_settings(
        ServeConfig, settings=as_settings(settings, {"host": host, "port": port})
    )

    from schn_ray.cluster.serve import serve_on_ray

    serve_on_ray(index, model, config)
