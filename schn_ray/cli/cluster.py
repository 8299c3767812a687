"""Commands on a cluster: submit, doctor."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from schn_ray.cli.options import AsJson, Verbose, print_result
from schn_ray.cli.verbs.cluster import doctor

ADDRESS = "RAY_API_SERVER_ADDRESS"  # Ray's own variable
_WRITTEN = {
    "out": "--out",
    "html": "--html",
    "figures": "--figures",
    "onnx": "--onnx",
    "directory": "--dir",
}


def submit_command(
    context: typer.Context,
    command: Annotated[
        list[str], typer.Argument(metavar="VERB ...", help="A verb and its arguments.")
    ],
    address: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help=f"The cluster's dashboard. Default: {ADDRESS}, or this host."
        ),
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Working directory on the cluster, for relative paths."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Follow the job until it ends.")
    ] = True,
    stop: Annotated[bool, typer.Option("--stop", help="End the job of this command.")] = False,
    verbose: Verbose = False,
) -> None:
    """Run a verb as a job on a Ray cluster.

    The same command again follows the same job.
    """
    given = _parsed(context, command)
    if directory is None:
        _require_lasting(given)

    from schn_ray.cluster.submit import DASHBOARD, Jobs

    jobs = Jobs(address or os.environ.get(ADDRESS) or DASHBOARD, directory)
    if stop:
        _report(f"job {jobs.stop(command)} is stopped; sent again, it goes on")
        return
    job, already = jobs.send(command)
    _report(f"job {job} {'runs already' if already else 'is sent'}, at {jobs.address}")
    if wait:
        _follow(jobs, job)


def _follow(jobs: Any, job: str) -> None:
    try:
        code, outcome = jobs.follow(job, _write_through)
    except KeyboardInterrupt:
        typer.echo(err=True)
        _report(f"job {job} goes on; the same command follows it again, with --stop it ends it")
        raise
    if code:
        _report(f"job {job} {outcome}")
    raise typer.Exit(code)


def _parsed(context: typer.Context, command: Sequence[str]) -> Mapping[str, Any]:
    """Return a verb's options; a mistake, or ``--help``, is answered before anything is sent."""
    from schn_ray.core.errors import SchnRayError

    root = context.find_root()
    verbs: Any = root.command
    verb = verbs.get_command(root, command[0])
    if verb is None or command[0] == "submit":
        others = ", ".join(name for name in verbs.list_commands(root) if name != "submit")
        raise SchnRayError(f"submit {command[0]}: expected one of {others}")
    with verb.make_context(command[0], list(command[1:]), parent=root) as parsed:
        return dict(parsed.params)


def _require_lasting(given: Mapping[str, Any]) -> None:
    """Refuse a relative output: it would be below a directory of Ray's on some node."""
    from schn_ray.core.errors import SchnRayError

    for name, option in _WRITTEN.items():
        value = given.get(name)
        if value is None or os.path.isabs(value) or ":/" in str(value):  # Path makes s3:/x of a URI
            continue
        raise SchnRayError(
            f"{option} {value} is relative, and a job begins where Ray was started. Give an "
            "absolute path that all nodes share, an s3:// or gs:// address, or, before the verb, "
            "--directory DIR: relative paths begin there"
        )


def _write_through(lines: str) -> None:
    sys.stdout.write(lines)
    sys.stdout.flush()


def _report(message: str) -> None:
    typer.echo(f"schn-ray: {message}", err=True)


def doctor_command(
    storage: Annotated[
        list[str] | None,
        typer.Argument(help="Directories or addresses that every node must read and write."),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check every node of the cluster.

    Versions, GPUs, storage, free disk and memory, the clock, the dashboard.
    """
    checks = doctor(storage or ())
    print_result(checks, as_json)
    raise typer.Exit(0 if checks.healthy else 1)
