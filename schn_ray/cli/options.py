"""What verbs share: their common options, and how they show what they did."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from schn_ray.core.manifest import Manifest

VERBOSE = "SCHN_RAY_VERBOSE"  # read by cluster/__init__.py


def _set_verbose(verbose: bool) -> bool:
    if verbose:
        os.environ[VERBOSE] = "1"
    return verbose


Verbose = Annotated[
    bool,
    typer.Option("--verbose", "-v", callback=_set_verbose, help="Show Ray's logs and tracebacks."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting.")
]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file of settings.")]
Workers = Annotated[
    str | None, typer.Option(metavar="N|MIN:MAX", help="Default: one a CPU of the cluster.")
]
Out = Annotated[str, typer.Option("--out", help="Directory or URI to write.")]
Source = Annotated[
    str,
    typer.Argument(
        help="Image folder, list (.txt, .csv), Parquet, Arrow, tars, a published data "
        "set's folder, a store, or 'digits'; also at s3://, gs:// ..."
    ),
]


def as_settings(
    settings: list[str] | None, options: Mapping[str, str | float | None] | None = None
) -> tuple[str, ...]:
    """Return the options that were given, as settings, and then those of ``--set``."""
    given = [f"{key}={json.dumps(v)}" for key, v in (options or {}).items() if v is not None]
    return (*given, *(settings or ()))


def as_range(workers: str | None) -> tuple[int, int] | None:
    """Return the least and most workers of ``N`` or ``MIN:MAX``, None where nothing was said."""
    from schn_ray.core.settings import parse_workers

    return None if workers is None else parse_workers(workers)


def read_id_file(path: Path) -> tuple[str, ...]:
    """Return the lines of a file that are not empty."""
    from schn_ray.core.errors import SchnRayError

    try:
        return tuple(line for line in path.read_text().splitlines() if line)
    except UnicodeDecodeError as error:
        raise SchnRayError(f"{path} is not text: {error}") from error


def run_verb(work: Callable[[], Manifest]) -> Manifest:
    """Return the manifest of what ``work`` wrote, or of what was there already and is the same."""
    from schn_ray.core.directories import AlreadyDone
    from schn_ray.core.manifest import read_manifest

    try:
        return work()
    except AlreadyDone as done:
        typer.echo(f"schn-ray: {done}", err=True)
        return read_manifest(done.path, done.kind)


def run_and_print(out: str, as_json: bool, work: Callable[[], Manifest]) -> None:
    """Do ``work``, which writes ``out``, and show its counts."""
    manifest = run_verb(work)
    result: dict[str, Any] = {
        "path": out,
        "kind": manifest.kind,
        "counts": manifest.counts,
        "fingerprint": manifest.fingerprint,
    }
    lines = [f"{out}: {manifest.kind}, finished"]
    lines += [f"  {name.replace('_', ' ')}: {value}" for name, value in manifest.counts.items()]
    show(result, "\n".join(lines), as_json)


def show(result: Any, text: str, as_json: bool) -> None:
    """Print the result for a program, or the text for a person."""
    typer.echo(json.dumps(result) if as_json else text)
