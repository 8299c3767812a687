"""Verbs on a cluster: doctor."""

from __future__ import annotations

from typing import Annotated

import typer

from schn_ray.cli.options import AsJson, Verbose, show


def doctor(
    storage: Annotated[
        list[str] | None,
        typer.Argument(help="Directories or addresses that every node must read and write."),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Look at every node of the cluster: versions, GPUs, storage, disk, clock, dashboard."""
    from schn_ray.cluster.doctor import as_text, examine

    found = examine(storage or [])
    show([finding.to_json() for finding in found], as_text(found), as_json)
    raise typer.Exit(1 if any(finding.level == "error" for finding in found) else 0)
