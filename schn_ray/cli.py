"""The command ``schn-ray``: a subcommand a verb, each from arguments to a config to one call.

Imports happen inside the verbs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

if TYPE_CHECKING:
    from schn_ray.manifest import Manifest

VERBOSE = "SCHN_RAY_VERBOSE"  # read by cluster/__init__.py
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


class Gallery(StrEnum):
    """Which codes the gallery has: the model's own, or those that training solved from labels."""

    encoded = "encoded"
    learned = "learned"


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
Out = Annotated[Path, typer.Option("--out", help="Directory to write.")]
Source = Annotated[
    str,
    typer.Argument(
        help="Image folder, list (.txt, .csv), Parquet, cifar-10-batches-py, a store, or 'digits'; "
        "the first three also at s3://, gs:// ..."
    ),
]


@app.command()
def check(
    source: Source, settings: Settings = None, as_json: AsJson = False, verbose: Verbose = False
) -> None:
    """Look at SOURCE: counts, classes and balance, bad files, duplicates."""
    from schn_ray.check import check, render
    from schn_ray.config import CheckConfig, load
    from schn_ray.progress import Progress
    from schn_ray.sources import open_source

    config = load(CheckConfig, settings=_settings(settings)).source
    with Progress("checking") as progress:
        report = check(open_source(source, config), config, progress.advance)
    _show(report.to_json(), render(report), as_json)


@app.command()
def prepare(
    source: Source,
    out: Out,
    protocol: Annotated[
        str | None, typer.Option(help="How rows are split; see docs. Default: random.")
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch CIFAR-10 into SOURCE first.")
    ] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the split. Default: 0.")] = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Read and check SOURCE on Ray Data; write the training store and its split."""
    from schn_ray.config import PrepareConfig, load

    chosen = _settings(settings, {"protocol": protocol, "seed": seed})
    config = load(PrepareConfig, None, config_file, chosen)

    if download:
        from schn_ray.sources.cifar import download as download_cifar10

        download_cifar10(Path(source))

    from schn_ray.cluster.shards import RayShards
    from schn_ray.sources import open_source
    from schn_ray.store import prepare

    shards = RayShards("preparing", _range(workers))
    opened = open_source(source, config.source)
    _make(out, as_json, lambda: prepare(opened, config, out, shards))


@app.command()
def train(
    store: Annotated[Path, typer.Argument(help="A store that prepare wrote.")],
    out: Out,
    preset: Annotated[str | None, typer.Option(help="Named settings; see presets/.")] = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    weights: Annotated[
        str | None, typer.Option(help="The backbone's: a file, a name of torchvision's, or none.")
    ] = None,
    workers: Annotated[
        str, typer.Option(metavar="N|MIN:MAX", help="Processes that share each batch.")
    ] = "1",
    cpus: Annotated[int, typer.Option(min=1, help="CPUs of each worker.")] = 1,
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--no-gpu", help="Default: if there are enough.")
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write RUN/tensorboard too.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train a hashing model on Ray Train; run again, it goes on where it was stopped."""
    from schn_ray.config import DEFAULT_PRESET, TrainConfig, load, parse_workers

    chosen = _settings(settings, {"network.weights": weights})
    config = load(TrainConfig, preset or DEFAULT_PRESET, config_file, chosen)

    least, most = parse_workers(workers)

    from schn_ray.cluster.session import Demand
    from schn_ray.cluster.train import train_on_ray

    demand = Demand(least, most, cpus, None if gpu is None else int(gpu))
    _make(out, as_json, lambda: train_on_ray(config, store, out, demand, tensorboard))


@app.command()
def encode(
    source: Source,
    model: Annotated[Path, typer.Option(help="A finished run, or its model directory.")],
    out: Out,
    update: Annotated[
        bool, typer.Option("--update", help="Take in what is new, changed or gone in SOURCE.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try the quarantined images again.")
    ] = False,
    config_file: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Code every image of SOURCE on Ray Data; run again, it goes on where it was stopped."""
    from schn_ray.config import EncodeConfig, load

    config = load(EncodeConfig, None, config_file, _settings(settings))

    from schn_ray.cluster.shards import RayShards
    from schn_ray.encode import encode
    from schn_ray.sources import open_source

    shards = RayShards("encoding", _range(workers), gpus=True)
    opened = open_source(source, config.source)
    _make(
        out,
        as_json,
        lambda: encode(
            opened, model, out, config, shards, update=update, retry_failed=retry_failed
        ),
    )


@app.command()
def index(
    codes: Annotated[Path, typer.Argument(help="Codes that encode wrote.")],
    out: Out,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Build an exact search index over CODES."""
    from schn_ray.index import build_index

    _make(out, as_json, lambda: build_index(codes, out))


@app.command()
def search(
    index: Annotated[Path, typer.Argument(help="An index that index wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Images to look for.")],
    model: Annotated[Path, typer.Option(help="The run or model that coded the index.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many results an image.")] = 10,
    html: Annotated[Path | None, typer.Option(help="Write a page with pictures.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Find the gallery images nearest to IMAGES, exactly, ties in the order of ids."""
    from schn_ray.search import as_text, search_images

    results = search_images(index, model, images, k)
    if html is not None:
        from schn_ray.report.run import write_results_page

        write_results_page(results, html)
    _show([result.to_json() for result in results], as_text(results), as_json)


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    store: Annotated[Path, typer.Option(help="The store with the split.")],
    out: Out,
    gallery: Annotated[Gallery, typer.Option(help="The gallery's codes.")] = Gallery.encoded,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Code the split's queries and gallery with RUN's network; measure, exact under ties."""
    from schn_ray.config import EvaluateConfig, load

    config = load(EvaluateConfig, None, None, _settings(settings, {"gallery": gallery}))

    from schn_ray.cluster.shards import RayShards
    from schn_ray.evaluation import as_text, evaluate, read_measured

    shards = RayShards("encoding the store", _range(workers), gpus=True)
    _made(lambda: evaluate(run, store, out, config, shards))
    measured = read_measured(out)
    _show(measured, as_text(measured), as_json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A run, finished or not.")],
    out: Annotated[Path, typer.Option("--out", help="The HTML file to write.")],
    evaluation: Annotated[Path | None, typer.Option(help="What evaluate wrote.")] = None,
    verbose: Verbose = False,
) -> None:
    """Draw a run and its evaluation as one HTML file that works offline."""
    from schn_ray.report.run import report_run

    report_run(run, evaluation, out)
    typer.echo(f"{out}: open it in a browser")


@app.command()
def export(
    run: Annotated[Path, typer.Argument(help="A finished run, or its model directory.")],
    onnx: Annotated[Path, typer.Option("--onnx", help="The ONNX file to write.")],
    images: Annotated[
        str, typer.Option(help="Source to compare the two on; of a store, its queries.")
    ] = "digits",
    evaluation: Annotated[Path | None, typer.Option(help="Figures for the model card.")] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write RUN's network as ONNX, with its description and card; count the bits that differ."""
    from dataclasses import asdict

    from schn_ray.export import as_lines, export_onnx

    checked = export_onnx(run, onnx, images, evaluation)
    _show({"path": str(onnx)} | asdict(checked), as_lines(onnx, checked), as_json)


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--dir", help="Where everything goes.")] = Path("demo"),
    verbose: Verbose = False,
) -> None:
    """Do all of it on handwritten digits: prepare, train, encode, index, search, evaluate."""
    from schn_ray.cluster.demo import demo

    demo(directory)


def main() -> NoReturn:
    """Run the command line; a user's error is a message and an exit code, not a traceback."""
    from schn_ray.errors import SchnRayError

    signal.signal(signal.SIGTERM, _interrupt)
    try:
        app()
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


def _settings(
    settings: list[str] | None, options: dict[str, str | int | None] | None = None
) -> tuple[str, ...]:
    """Return the options that were given, as settings, and then those of ``--set``."""
    given = [f"{key}={json.dumps(v)}" for key, v in (options or {}).items() if v is not None]
    return (*given, *(settings or ()))


def _range(workers: str | None) -> tuple[int, int] | None:
    from schn_ray.config import parse_workers

    return None if workers is None else parse_workers(workers)


def _made(work: Callable[[], Manifest]) -> Manifest:
    from schn_ray.manifest import AlreadyDone, read_manifest

    try:
        return work()
    except AlreadyDone as done:
        typer.echo(f"schn-ray: {done}", err=True)
        return read_manifest(done.path, done.kind)


def _make(out: Path, as_json: bool, work: Callable[[], Manifest]) -> None:
    manifest = _made(work)
    result: dict[str, Any] = {
        "path": str(out),
        "kind": manifest.kind,
        "counts": manifest.counts,
        "fingerprint": manifest.fingerprint,
    }
    lines = [f"{out}: {manifest.kind}, finished"]
    lines += [f"  {name.replace('_', ' ')}: {value}" for name, value in manifest.counts.items()]
    _show(result, "\n".join(lines), as_json)


def _show(result: Any, text: str, as_json: bool) -> None:
    typer.echo(json.dumps(result) if as_json else text)


if __name__ == "__main__":
    main()
