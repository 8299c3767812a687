"""The command on settings: settings."""

from __future__ import annotations

from typing import Annotated

import typer

from schn_ray.cli.options import AsJson, print_result
from schn_ray.cli.verbs.settings import settings


def settings_command(
    verb: Annotated[
        str | None, typer.Argument(help="A verb, such as train. Default: which verbs have any.")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="With this method's own settings, and its defaults."),
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print tables, as docs/settings.md has them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the settings of a verb: name, default, type, bounds, and what it means."""
    described = settings(verb, method=method)
    if markdown:
        typer.echo(described.to_markdown(), nl=False)
        return
    print_result(described, as_json)
