"""The whole chain on handwritten digits, with the functions behind the verbs, in one session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import typer

from schn_ray.cluster.map_shards import RayShards
from schn_ray.cluster.session import WorkerRequest, ray_session
from schn_ray.cluster.train import train_on_ray
from schn_ray.core.directories import AlreadyDone
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.results import read_examples, read_figures
from schn_ray.evaluation.text import figures_text
from schn_ray.report.runs import report_run, write_results_page
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.index.build import write_index
from schn_ray.retrieval.search import results_text, search_images
from schn_ray.training.config import train_config

WORKERS = 2


def demo(directory: Path) -> Path:
    """Prepare, train, encode, index, evaluate, search and write a report.

    Run again, it skips finished steps and continues an interrupted one.

    Args:
        directory: where all results are written.

    Returns:
        The path of the report.

    Raises:
        SchnRayError: ``directory`` holds results of other settings, or the cluster has fewer than
            two CPUs.
    """
    store, run, codes, index, evaluation = (
        directory / name for name in ("store", "run", "codes", "index", "evaluation")
    )
    digits = open_source("digits", SourceConfig(shard_rows=256))
    with ray_session():
        _step(
            f"schn-ray prepare digits --out {store}",
            lambda: prepare_store(digits, PrepareConfig(), store, RayShards("preparing")),
        )
        config = train_config("digits")
        _step(
            f"schn-ray train {store} --out {run} --preset digits --workers {WORKERS}",
            lambda: train_on_ray(config, store, run, WorkerRequest(WORKERS, WORKERS)),
        )
        _step(
            f"schn-ray encode digits --model {run} --out {codes}",
            lambda: encode_source(digits, run, codes, EncodeConfig(), RayShards("encoding")),
        )
        _step(f"schn-ray index {codes} --out {index}", lambda: write_index(codes, index))
        _step(
            f"schn-ray evaluate {run} --store {store} --out {evaluation}",
            lambda: evaluate_run(run, store, evaluation, EvaluateConfig(), RayShards("encoding")),
        )
    _search(directory, index, run, evaluation)
    report = directory / "report.html"
    typer.echo(f"\n$ schn-ray report {run} --evaluation {evaluation} --out {report}")
    report_run(run, evaluation, report)
    typer.echo(f"\n{figures_text(read_figures(evaluation))}\n\nOpen {report} in a browser.")
    typer.echo("Your own photos: schn-ray build PHOTOS --out album")
    return report


def _step(command: str, work: Callable[[], object]) -> None:
    typer.echo(f"\n$ {command}")
    try:
        work()
    except AlreadyDone as done:
        typer.echo(str(done))


def _search(directory: Path, index: Path, run: Path, evaluation: Path) -> None:
    query = read_examples(evaluation)[0].query
    image = directory / "query.png"
    image.write_bytes(fetch(query.uri))
    page = directory / "search.html"
    typer.echo(f"\n$ schn-ray search {index} {image} --model {run} -k 5 --html {page}")
    results = search_images(index, run, [image], k=5)
    write_results_page(results, page)
    typer.echo(results_text(results))
