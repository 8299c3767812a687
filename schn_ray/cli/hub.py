"""The command that shares models: push."""

from __future__ import annotations

from typing import Annotated

import typer

from schn_ray.cli.options import AsJson, Verbose, print_result
from schn_ray.cli.verbs.hub import push


def push_command(
    run: Annotated[str, typer.Argument(help="A finished run, its model directory, or an album.")],
    repository: Annotated[str, typer.Argument(metavar="USER/NAME", help="Made where missing.")],
    onnx: Annotated[
        str | None, typer.Option("--onnx", metavar="FILE", help="What export wrote of it.")
    ] = None,
    revision: Annotated[str | None, typer.Option(help="A branch. Default: main.")] = None,
    public: Annotated[
        bool, typer.Option("--public", help="A new repository is seen by everybody.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Upload RUN's model to the Hugging Face hub.

    Others load it as hf://USER/NAME. Run the same command again after an interruption.
    """
    pushed = push(run, repository, onnx=onnx, revision=revision, public=public)
    print_result(pushed, as_json)
