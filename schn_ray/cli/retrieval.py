"""Commands on codes: encode, index, search, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schn_ray.cli.options import (
    OUTPUT,
    AsJson,
    ConfigFile,
    Out,
    RetryFailed,
    Settings,
    Source,
    Update,
    Verbose,
    Workers,
    print_result,
    show,
    workers_of,
)
from schn_ray.cli.verbs.results import SearchResults
from schn_ray.cli.verbs.retrieval import (
    build_index,
    change_index,
    encode,
    search,
    serve,
)

MANY = "Many queries at once"
IndexPath = Annotated[str, typer.Argument(metavar="INDEX|ALBUM", help="What index or build wrote.")]


def encode_command(
    source: Source,
    model: Annotated[str, typer.Option(help="A finished run, its model directory or ONNX file.")],
    out: Out,
    bits: Annotated[
        int | None, typer.Option(metavar="K", help="Cut nested codes: one of the lengths of train.")
    ] = None,
    update: Update = False,
    retry_failed: RetryFailed = False,
    config_file: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Encode images as binary codes.

    Run the same command again after an interruption: it does only the rest.
    """
    codes = encode(
        source,
        model,
        out,
        bits=bits,
        update=update,
        retry_failed=retry_failed,
        config=config_file,
        settings=settings,
        workers=workers_of(workers),
    )
    print_result(codes, as_json)


def index_command(
    path: Annotated[
        str, typer.Argument(metavar="CODES|INDEX", help="Codes, or a file of them; or an index.")
    ],
    out: Annotated[
        str | None,
        typer.Option("--out", help="Directory or URI to write the index of CODES to."),
    ] = None,
    vectors: Annotated[
        list[str] | None,
        typer.Option(
            "--with", metavar="relaxed|features", help="Also keep these vectors, to rescore by."
        ),
    ] = None,
    add: Annotated[
        str | None, typer.Option(help="Add these codes to INDEX.", metavar="CODES")
    ] = None,
    remove: Annotated[
        Path | None,
        typer.Option(
            help="Remove the ids of a file, one a line or Parquet, from INDEX.", metavar="IDS"
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|STORE",
            help="What to filter by: Parquet or CSV with id and columns, or the labels of a store.",
        ),
    ] = None,
    columns_of: Annotated[
        str | None,
        typer.Option(metavar="NAME,NAME", help="Take only these columns. Default: all."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="OUT is an index of older CODES: take in the changes.")
    ] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare all files of INDEX with their SHA-256.")
    ] = False,
    info: Annotated[bool, typer.Option("--info", help="Describe INDEX.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Build a search index of CODES; change or verify an INDEX."""
    from schn_ray.core.errors import SchnRayError
    from schn_ray.retrieval.index.index import open_index, verify_index

    names = None if columns_of is None else columns_of.split(",")
    if out is not None:
        if add or remove or verify or info:
            raise SchnRayError("--out builds an index; --add, --remove ... take an index instead")
        index = build_index(
            path, out, columns=columns, columns_of=names, vectors=vectors or (), update=update
        )
        print_result(index, as_json)
        return
    if update:
        raise SchnRayError("--update changes the index of --out INDEX")
    if vectors:
        raise SchnRayError("--with needs --out: an index keeps the vectors that it was built with")
    changed = add or remove or columns or columns_of
    if changed:
        index = change_index(path, add=add, remove=remove or (), columns=columns, columns_of=names)
        print_result(index, as_json)
    if verify:
        size = verify_index(path)
        show({"path": path, "verified": size}, f"{path}: {size:,} bytes are sound", as_json)
    if info:
        described = open_index(path).info()
        lines = [f"  {name.replace('_', ' ')}: {value}" for name, value in described.items()]
        show({"path": path} | described, "\n".join([f"{path}: index", *lines]), as_json)
    if not (changed or verify or info):
        raise SchnRayError(
            "say what to do: --out INDEX to index codes; --add, --remove, --columns, --verify or "
            "--info for an index"
        )


def search_command(
    index: IndexPath,
    images: Annotated[
        list[Path] | None, typer.Argument(help="Query images; .npy files for a model of vectors.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Run or ONNX file that encoded the INDEX. An ALBUM has its own."),
    ] = None,
    like: Annotated[
        list[str] | None, typer.Option("--id", help="An id of the index: more like this one.")
    ] = None,
    code: Annotated[list[str] | None, typer.Option(help="A code, in hexadecimal.")] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            help="Search for all of these codes, on Ray.", metavar="CODES", rich_help_panel=MANY
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(help="Directory or URI to write; for --queries.", rich_help_panel=MANY),
    ] = None,
    also: Annotated[
        list[str] | None, typer.Option(help="Another index; searched as one with INDEX.")
    ] = None,
    k: Annotated[
        int | None, typer.Option("-k", min=1, help="Number of results. Default: 10, or all within.")
    ] = None,
    radius: Annotated[
        int | None, typer.Option("-r", "--radius", min=0, help="Largest distance, in bits.")
    ] = None,
    rescore: Annotated[
        str | None,
        typer.Option(
            metavar="query|relaxed|features",
            help="Order by score: the query's output against the codes; or cosines of vectors.",
        ),
    ] = None,
    oversample: Annotated[
        int | None,
        typer.Option(
            min=1, help="Times k that relaxed or features score, of the nearest. Default: 10."
        ),
    ] = None,
    where: Annotated[
        str | None,
        typer.Option(
            metavar="CONDITION",
            help="Only images for which this is true, such as \"label = 'cat' and year >= 2020\".",
        ),
    ] = None,
    paths: Annotated[
        bool,
        typer.Option(
            "-f", "--paths", help="Print only the paths of the results.", rich_help_panel=OUTPUT
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(help="Also write a page, with the images.", rich_help_panel=OUTPUT),
    ] = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Find the images nearest to images, ids or codes.

    The search is exact, also with --rescore query; ties come in the order of ids.
    """
    from schn_ray.core.errors import SchnRayError

    if queries is not None and out is not None:
        matches = search(
            index,
            queries=queries,
            out=out,
            also=also,
            k=k,
            radius=radius,
            rescore=rescore,
            oversample=oversample,
            where=where,
            workers=workers_of(workers),
        )
        print_result(matches, as_json)
        return
    if queries is not None or out is not None:
        raise SchnRayError("--queries CODES and --out DIR go together")
    results: SearchResults = search(
        index,
        images,
        model=model,
        id=like,
        code=code,
        also=also,
        k=k,
        radius=radius,
        rescore=rescore,
        oversample=oversample,
        where=where,
        html=html,
    )
    show(results.to_json(), results.paths() if paths else results.text(), as_json)


def serve_command(
    index: IndexPath,
    model: Annotated[
        str | None,
        typer.Option(help="Run or ONNX file that encoded the INDEX; an ALBUM has its own."),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Store of the same images, to show their classes. Default: the INDEX's own."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 8000,
    settings: Settings = None,
    verbose: Verbose = False,
) -> None:
    """Serve a search page and a JSON API, until Ctrl-C."""
    serve(index, model, labels=labels, host=host, port=port, settings=settings)
