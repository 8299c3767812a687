"""The command ``schn-ray``: one subcommand for each verb; each calls the function of ``verbs/``.

A command turns its options into the function's arguments and prints what the function returns.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from schn_ray.cli import cluster, data, demo, evaluation, retrieval, training
from schn_ray.cli.options import VERBOSE
from schn_ray.core.version import __version__

INTERRUPTED = 130


class _Interrupted(Exception):
    """Ctrl-C, hidden from Click, which would print 'Aborted!' in place of our message."""


class _Verbs(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _Interrupted from error


app = typer.Typer(
    cls=_Verbs,
    pretty_exceptions_enable=False,
    name="schn-ray",
    help="Train a small hashing model on labelled images; encode images as binary codes; search.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"schn-ray {__version__}")
        raise typer.Exit


@app.callback()
def _before_the_verb(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version."
        ),
    ] = False,
) -> None:
    pass


for _verb in (
    data.check_command,
    data.prepare_command,
    training.methods_command,
    training.embed_command,
    training.train_command,
    training.tune_command,
    retrieval.encode_command,
    retrieval.index_command,
    retrieval.search_command,
    retrieval.duplicates_command,
    retrieval.serve_command,
    evaluation.evaluate_command,
    evaluation.compare_command,
    evaluation.report_command,
    training.export_command,
    cluster.doctor_command,
    demo.demo_command,
):
    app.command(_verb.__name__.removesuffix("_command"))(_verb)
# options that come after the verb are the verb's
app.command("submit", context_settings={"allow_interspersed_args": False})(cluster.submit_command)


def main(*verb: str) -> NoReturn:
    """Run the command line, and exit.

    A user's error is a message and an exit code, not a traceback.

    Args:
        verb: words that come before those of the command line, such as ``"train"``.
    """
    from schn_ray.core.errors import SchnRayError

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app([*verb, *sys.argv[1:]])
        sys.exit(0)
    except SchnRayError as error:
        _fail(str(error), error.exit_code)
    except OSError as error:
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", 2)
    except (KeyboardInterrupt, _Interrupted):
        _stop_at_once()


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _stop_at_once() -> NoReturn:
    again = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
    typer.echo(f"schn-ray: interrupted; to go on, run the same command again:\n  {again}", err=True)
    if session := sys.modules.get("schn_ray.cluster.session"):
        session.end()
    sys.stdout.flush()
    # Ray Data's threads may still run, and Python's normal exit has crashed on them
    os._exit(INTERRUPTED)


def _fail(message: str, code: int) -> NoReturn:
    if VERBOSE in os.environ:
        traceback.print_exc()
    typer.echo(f"schn-ray: {message}", err=True)
    sys.exit(code)
