"""What commands share: their common options, and how they print a result."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from schn_ray.cli.verbs.arguments import ALL
from schn_ray.cli.verbs.results import Printable

VERBOSE = "SCHN_RAY_VERBOSE"  # read by cluster/__init__.py
# headings of --help, after the options that most people need
SETTINGS, WORKERS, OUTPUT = "Settings", "Workers", "Output"


def _set_verbose(verbose: bool) -> bool:
    if verbose:
        os.environ[VERBOSE] = "1"
    return verbose


Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        "-v",
        callback=_set_verbose,
        help="Show Ray's logs and tracebacks.",
        rich_help_panel=OUTPUT,
    ),
]
AsJson = Annotated[
    bool,
    typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=OUTPUT),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.", rich_help_panel=SETTINGS),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file of settings.", rich_help_panel=SETTINGS)
]
Workers = Annotated[
    str | None,
    typer.Option(
        metavar="N|MIN:MAX",
        help="Workers on Ray. Default: one for each CPU.",
        rich_help_panel=WORKERS,
    ),
]
Update = Annotated[
    bool, typer.Option("--update", help="Update OUT: new, changed and removed images.")
]
RetryFailed = Annotated[
    bool, typer.Option("--retry-failed", help="Try the quarantined images again.")
]
Out = Annotated[str, typer.Option("--out", help="Directory or URI to write.")]
Source = Annotated[
    str,
    typer.Argument(
        help="Image folder, list (.txt, .csv), Parquet, Arrow, tars, a published data "
        "set's folder, a store, or 'digits'; also at s3://, gs:// ..."
    ),
]


def workers_of(workers: str | None, default: str = ALL) -> str | None:
    """Return the workers of a command: by default on Ray, and where that is missing, none.

    Args:
        workers: as the user gave them; None: not at all.
        default: where Ray is installed.

    Returns:
        None: the work is done in this process, which is said on standard error.
    """
    if workers is not None or importlib.util.find_spec("ray") is not None:
        return workers or default
    typer.echo("schn-ray: without Ray, in this process ('schn-ray[ray]' uses all CPUs)", err=True)
    return None


def print_result(result: Printable, as_json: bool) -> None:
    """Print what a verb returned; that it was finished before goes to standard error."""
    if note := getattr(result, "note", ""):
        typer.echo(f"schn-ray: {note}", err=True)
    show(result.to_json(), result.text(), as_json)


def show(result: Any, text: str, as_json: bool) -> None:
    """Print the result for a program, or the text for a person."""
    typer.echo(json.dumps(result) if as_json else text)
