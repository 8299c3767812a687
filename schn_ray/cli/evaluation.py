"""Commands on figures: evaluate, compare, report, benchmark."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from schn_ray.cli.options import (
    AsJson,
    ConfigFile,
    Settings,
    Verbose,
    Workers,
    print_result,
    workers_of,
)
from schn_ray.cli.verbs.evaluation import benchmark, compare, evaluate, write_report

_FOREIGN = "Codes of another program"


class Gallery(StrEnum):
    """Which codes the gallery has: the model's own, or those that training solved from labels."""

    encoded = "encoded"
    learned = "learned"
    both = "both"


def evaluate_command(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN|ALBUM", help="A finished run, or an album.")
    ] = None,
    store: Annotated[
        str | None, typer.Option(help="The store with the split; an ALBUM has its own.")
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", help="Directory or URI to write. Default: RUN-evaluation."),
    ] = None,
    codes: Annotated[
        str | None,
        typer.Option(
            help="In place of RUN: codes of another program (.npy, .npz, .parquet): -1 and +1, 0 "
            "and 1, or packed.",
            rich_help_panel=_FOREIGN,
        ),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            help="In place of --codes: real numbers; their signs, and their ranking by cosine.",
            rich_help_panel=_FOREIGN,
        ),
    ] = None,
    labels: Annotated[
        str | None,
        typer.Option(
            help="Of these rows: class numbers, names, or a 0 or 1 for each class.",
            rich_help_panel=_FOREIGN,
        ),
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(help="Codes or embeddings of the queries.", rich_help_panel=_FOREIGN),
    ] = None,
    query_labels: Annotated[
        str | None, typer.Option(help="Labels of the queries.", rich_help_panel=_FOREIGN)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="In place of --queries: 'query' or 'gallery' for each row.",
            rich_help_panel=_FOREIGN,
        ),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option(help="Bits of packed codes, if no multiple of 8.", rich_help_panel=_FOREIGN),
    ] = None,
    features: Annotated[
        str | None,
        typer.Option(help="What embed wrote for the store: hash it, not the images; fast."),
    ] = None,
    gallery: Annotated[
        Gallery | None, typer.Option(help="The gallery's codes. Default: encoded.")
    ] = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Measure retrieval with RUN's model, exact under ties.

    The split's queries and gallery are encoded first. Codes of another program are
    measured as they are.
    """
    foreign = codes is not None or embeddings is not None
    evaluation = evaluate(
        run,
        store,
        out,
        codes=codes,
        embeddings=embeddings,
        labels=labels,
        queries=queries,
        query_labels=query_labels,
        split=split,
        bits=bits,
        features=features,
        gallery=None if gallery is None else gallery.value,
        config=config_file,
        settings=settings,
        workers=workers if foreign else workers_of(workers),
    )
    print_result(evaluation, as_json)


def compare_command(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Evaluated runs, or evaluations.")
    ],
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compare runs on the same queries.

    Prints mean and deviation over seeds, and which differences may be chance.
    """
    print_result(compare(runs), as_json)


def report_command(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN|ALBUM...", help="Runs, finished or not; or evaluations without a run."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="HTML file to write.")],
    evaluation: Annotated[
        list[Path] | None,
        typer.Option(help="Evaluation of any RUN. Default: RUN-evaluation, if it exists."),
    ] = None,
    figures: Annotated[
        Path | None, typer.Option(help="Directory for each figure as PNG and JSON.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Write an HTML report of runs and evaluations.

    It is one file, and works offline.
    """
    write_report(runs, out, evaluation=evaluation, figures=figures)
    typer.echo(f"{out}: open it in a browser")


def benchmark_command(
    suite: Annotated[
        str,
        typer.Argument(
            help="quick, frozen, leaders, scratch, finetune, published-sets, or a YAML file."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="Directory to write.")],
    data: Annotated[
        list[str] | None, typer.Option(metavar="NAME=PATH", help="Where a data set of SUITE lies.")
    ] = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compare many methods on the same data, split and budget.

    Writes a table and a page. Run the same command again after an interruption, or with more
    methods, lengths, seeds or trials: it does only what is new. --set budget.trials=8 lets every
    method try settings of its own.
    """
    sources = dict(_named_source(given) for given in data or [])
    result = benchmark(suite, out, data=sources, settings=settings, workers=workers_of(workers))
    print_result(result, as_json)


def _named_source(given: str) -> tuple[str, str]:
    name, equals, source = given.partition("=")
    if not (name and equals and source):
        raise typer.BadParameter(f"expected NAME=PATH, not {given!r}", param_hint="--data")
    return name, source
