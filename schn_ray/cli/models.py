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
    make,
    show,
)


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

    chosen = as_settings(settings, {"network.weights": weights})
    config = load(TrainConfig, preset or DEFAULT_PRESET, config_file, chosen)

    least, most = parse_workers(workers)

    from schn_ray.cluster.session import Demand
    from schn_ray.cluster.train import train_on_ray

    demand = Demand(least, most, cpus, None if gpu is None else int(gpu))
    make(out, as_json, lambda: train_on_ray(config, store, out, demand, tensorboard))


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
    show({"path": str(onnx)} | asdict(checked), as_lines(onnx, checked), as_json)
