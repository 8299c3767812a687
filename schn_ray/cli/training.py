"""Verbs on models: train, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schn_ray.cli.options import (
    AsJson,
    ConfigFile,
    Out,
    Settings,
    Verbose,
    as_settings,
    run_and_print,
    run_verb,
    show,
)


def train_command(
    store: Annotated[str, typer.Argument(help="A store that prepare wrote.")],
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
    from schn_ray.core.settings import parse_workers
    from schn_ray.training.config import DEFAULT_PRESET, train_config

    chosen = as_settings(settings, {"network.weights": weights})
    config = train_config(preset or DEFAULT_PRESET, config_file, chosen)

    least, most = parse_workers(workers)

    from schn_ray.cluster.session import WorkerRequest
    from schn_ray.cluster.train import train_on_ray

    demand = WorkerRequest(least, most, cpus, None if gpu is None else int(gpu))
    run_and_print(out, as_json, lambda: train_on_ray(config, store, out, demand, tensorboard))


def tune_command(
    store: Annotated[str, typer.Argument(help="A store that prepare wrote.")],
    space: Annotated[str, typer.Option(help="quick, loss_weights, code_length, full, or a file.")],
    trials: Annotated[int, typer.Option(min=1, help="In all, with those of earlier calls.")],
    out: Out,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Trials side by side. Default: as many as fit.")
    ] = None,
    workers_per_trial: Annotated[
        int, typer.Option(min=1, help="Processes that share each batch of a trial.")
    ] = 1,
    repeats: Annotated[
        int, typer.Option(min=0, help="Confirm the winner on so many other seeds, twice.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Of what is tried; --set seed=... of runs.")] = 0,
    preset: Annotated[str | None, typer.Option(help="In place of the space's.")] = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs of each worker.")] = 1,
    gpu: Annotated[
        bool | None, typer.Option("--gpu/--no-gpu", help="Default: if there are enough.")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Search for settings with Ray Tune and Optuna; run again, it goes on."""
    from schn_ray.tuning.space import base_config, check_space, read_space

    searched = read_space(space)
    base = base_config(searched, preset, config_file, as_settings(settings))
    check_space(searched, base)

    from schn_ray.cluster.tune import SearchBudget, tune_on_ray
    from schn_ray.tuning.results import study_text

    gpus = None if gpu is None else int(gpu)
    effort = SearchBudget(trials, at_once, workers_per_trial, cpus, gpus, repeats)
    manifest = run_verb(lambda: tune_on_ray(searched, base, store, out, effort, seed))
    result = {"path": out, "kind": manifest.kind, "counts": manifest.counts}
    show(result | {"fingerprint": manifest.fingerprint}, study_text(out), as_json)


def export_command(
    run: Annotated[str, typer.Argument(help="A finished run, or its model directory.")],
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

    from schn_ray.evaluation.text import text_for_model
    from schn_ray.models.export import export_onnx, export_text
    from schn_ray.models.hasher import fingerprint

    figures = None if evaluation is None else text_for_model(evaluation, fingerprint(run))
    checked = export_onnx(run, onnx, images, figures)
    show({"path": str(onnx)} | asdict(checked), export_text(onnx, checked), as_json)
