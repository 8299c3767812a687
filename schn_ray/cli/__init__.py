"""The command ``schn-ray``: a subcommand a verb, each from arguments to a config to one call.

Imports happen inside the verbs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from pathlib import Path
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from schn_ray.cli import cluster, data, demo, evaluation, retrieval, training
from schn_ray.cli.options import VERBOSE

INTERRUPTED = 130


class _Interrupted(Exception):
    """Ctrl-C, kept from becoming the command-line library's own 'Aborted!'."""


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
    help="Labelled images in, a small hashing model out; images as short binary codes, searched.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


for _verb in (
    data.check_command,
    data.prepare_command,
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
# what follows the verb is the verb's, options too
app.command("submit", context_settings={"allow_interspersed_args": False})(cluster.submit_command)


def main(*verb: str) -> NoReturn:
    """Run the command line, or one verb with its arguments.

    A user's error is a message and an exit code, not a traceback.
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
    # Ray Data's threads may still be at work, and Python's own way out has crashed on them
    os._exit(INTERRUPTED)


def _fail(message: str, code: int) -> NoReturn:
    if VERBOSE in os.environ:
        traceback.print_exc()
    typer.echo(f"schn-ray: {message}", err=True)
    sys.exit(code)
