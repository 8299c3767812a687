"""The command ``schn-ray``: one subcommand for each verb; each calls the function of ``verbs/``.

A command turns its options into the function's arguments and prints what the function returns.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from schn_ray.cli import (
    build,
    cluster,
    data,
    demo,
    duplicates,
    engines,
    evaluation,
    hub,
    map,
    retrieval,
    settings,
    training,
)
from schn_ray.cli.options import VERBOSE
from schn_ray.core.version import __version__

INTERRUPTED, TERMINATED = 130, 143  # 128 and the number of SIGINT or SIGTERM, as of a shell
_GRACE_S = 8.0  # to save and to end Ray in; Kubernetes and Slurm kill after 30 s, spots sooner


_VALUES = {  # as Typer has them -> as manuals have them
    **dict.fromkeys(("int range", "int", "float range", "float"), "N"),
    **dict.fromkeys(("path", "list[Path]"), "FILE"),
    **dict.fromkeys(("str", "list[str]"), "TEXT"),
}


class _Interrupted(Exception):
    """Ctrl-C or SIGTERM, hidden from Click, which would print 'Aborted!' and no more."""


class _Verbs(TyperGroup):
    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _hidden_from_click():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _hidden_from_click():
            return super().invoke(ctx)


class _Verb(TyperCommand):
    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options of each heading: those without one first, as most people need them."""
        lines: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for param in self.get_params(ctx):
            if (line := param.get_help_record(ctx)) is not None:
                plain = "Arguments" if param.param_type_name == "argument" else "Options"
                heading = getattr(param, "rich_help_panel", None) or plain
                lines.setdefault(heading, []).append((_as_in_manuals(line[0]), line[1]))
        for heading, of_heading in lines.items():
            if of_heading:
                with formatter.section(heading):
                    formatter.write_dl(of_heading)


def _as_in_manuals(words: str) -> str:
    """Write the values of an option, which Typer calls by their types, as manuals do.

    Args:
        words: such as ``--bits <int range>``, or ``run <str>`` of an argument.

    Example:
        >>> _as_in_manuals("--bits <int range>"), _as_in_manuals("run <str>")
        ('--bits N', 'run')
    """
    if not words.startswith("-"):
        return words.partition(" <")[0]
    return re.sub("<([^>]*)>", lambda match: _VALUES.get(match[1], match[1]), words)


@contextmanager
def _hidden_from_click() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt as error:
        raise _Interrupted from error


app = typer.Typer(
    cls=_Verbs,
    pretty_exceptions_enable=False,
    name="schn-ray",
    help="Train a small hashing model on labelled images; encode images as binary codes; search.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
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
    build.build_command,
    data.check_command,
    data.prepare_command,
    training.train_command,
    training.tune_command,
    training.methods_command,
    settings.settings_command,
    training.embed_command,
    retrieval.encode_command,
    retrieval.index_command,
    retrieval.search_command,
    duplicates.duplicates_command,
    map.map_command,
    retrieval.serve_command,
    engines.convert_command,
    evaluation.evaluate_command,
    evaluation.compare_command,
    evaluation.report_command,
    evaluation.benchmark_command,
    training.export_command,
    hub.push_command,
    cluster.doctor_command,
    demo.demo_command,
):
    app.command(_verb.__name__.removesuffix("_command"), cls=_Verb)(_verb)
# options that come after the verb are the verb's
app.command("submit", cls=_Verb, context_settings={"allow_interspersed_args": False})(
    cluster.submit_command
)


def main(*verb: str) -> NoReturn:
    """Run the command line, and exit.

    Args:
        verb: words that come before those of the command line, such as ``"train"``.
    """
    run_and_exit(lambda: app([*verb, *sys.argv[1:]]))


def run_and_exit(work: Callable[[], object]) -> NoReturn:
    """Run something, and exit as the command line does.

    A user's error is a message and an exit code, not a traceback; so are Ctrl-C and SIGTERM.

    Args:
        work: what to run.
    """
    from schn_ray.core.errors import SchnRayError
    from schn_ray.core.extras import missing_extra

    terminated = threading.Event()

    def terminate(*_: object) -> NoReturn:
        terminated.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, terminate)
    try:
        work()
    except BaseException as error:
        if terminated.is_set():  # whatever Ray or Click has made of it
            _stop_at_once(TERMINATED)
        if isinstance(error, KeyboardInterrupt | _Interrupted):
            _stop_at_once(INTERRUPTED)
        if isinstance(error, ModuleNotFoundError):
            error = missing_extra(error) or error
        if isinstance(error, SchnRayError):
            _fail(str(error), error.exit_code)
        if isinstance(error, OSError):
            _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", 2)
        raise
    sys.exit(0)


def _stop_at_once(code: int) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):  # a second one does not wait for Ray
        signal.signal(number, lambda *_: os._exit(code))
    from schn_ray.core.interrupts import seconds_since_request

    limit = threading.Timer(max(1.0, _GRACE_S - seconds_since_request()), os._exit, [code])
    limit.daemon = True
    limit.start()
    name = Path(sys.argv[0]).name.replace("__main__.py", "python -m schn_ray")
    again = f"{name} {shlex.join(sys.argv[1:])}"
    ended = "terminated" if code == TERMINATED else "interrupted"
    typer.echo(f"schn-ray: {ended}; to go on, run the same command again:\n  {again}", err=True)
    if session := sys.modules.get("schn_ray.cluster.session"):
        session.end()
    sys.stdout.flush()
    # Ray Data's threads may still run, and Python's normal exit has crashed on them
    os._exit(code)


def _fail(message: str, code: int) -> NoReturn:
    if VERBOSE in os.environ:
        traceback.print_exc()
    typer.echo(f"schn-ray: {message}", err=True)
    sys.exit(code)
