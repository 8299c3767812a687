"""The command that runs all steps once: demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schn_ray.cli.options import Verbose


def demo_command(
    directory: Annotated[
        Path, typer.Option("--dir", help="Directory for everything that the demo writes.")
    ] = Path("demo"),
    verbose: Verbose = False,
) -> None:
    """Run all steps on handwritten digits.

    Prepare, train, encode, index, search, evaluate, report.
    """
    from schn_ray.cluster.demo import demo

    demo(directory)
