"""The command that takes codes to other engines: convert."""

from __future__ import annotations

from typing import Annotated

import typer

from schn_ray.cli.options import AsJson, Out, Verbose, print_result
from schn_ray.cli.verbs.engines import convert


def convert_command(
    path: Annotated[str, typer.Argument(metavar="CODES|INDEX", help="Codes, or an index.")],
    to: Annotated[
        str,
        typer.Option(
            metavar="ENGINE",
            help="faiss, usearch, lance, duckdb, sqlite, pgvector, opensearch, elasticsearch, "
            "milvus or parquet.",
        ),
    ],
    out: Out,
    labels: Annotated[
        str | None,
        typer.Option(
            metavar="STORE", help="A store with labels of the rows. Default: the ALBUM's."
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write codes as another search engine reads them.

    The lines that search them are printed.
    """
    print_result(convert(path, to, out, labels=labels), as_json)
