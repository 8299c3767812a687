"""The verb that does all of it once: demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schn_ray.cli.options import Verbose


def demo_command(
    directory: Annotated[Path, typer.Option("--dir", help="Where everything goes.")] = Path("demo"),
    verbose: Verbose = False,
) -> None:
    """Do all of it on handwritten digits: prepare, train, encode, index, search, evaluate."""
    from schn_ray.cluster.demo import demo

    demo(directory)
