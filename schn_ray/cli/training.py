"""Commands on models: methods, embed, train, tune, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schn_ray.cli.options import (
    OUTPUT,
    WORKERS,
    AsJson,
    ConfigFile,
    Out,
    RetryFailed,
    Settings,
    Source,
    Update,
    Verbose,
    Workers,
    print_result,
    workers_of,
)
from schn_ray.cli.verbs.training import embed, export, list_methods, train, tune

Store = Annotated[str, typer.Argument(help="A store that prepare wrote.")]
Cpus = Annotated[int, typer.Option(min=1, help="CPUs of each worker.", rich_help_panel=WORKERS)]
Gpu = Annotated[
    bool | None,
    typer.Option(
        "--gpu/--no-gpu",
        help="A GPU for each worker. Default: if there are enough.",
        rich_help_panel=WORKERS,
    ),
]


Features = Annotated[str | None, typer.Option(help="What embed wrote: train a head on it, fast.")]
Method = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="See 'schn-ray methods'; or ./mine.py:Mine. [schn-plus]"),
]


def methods_command(
    name: Annotated[str | None, typer.Argument(help="A method to describe.")] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print all methods as docs/methods.md.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the methods that can be trained, or describe one."""
    if markdown:
        from schn_ray.methods.catalogue import catalogue_markdown

        typer.echo(catalogue_markdown(), nl=False)
        return
    print_result(list_methods(name), as_json)


def embed_command(
    source: Source,
    out: Out,
    backbone: Annotated[
        str, typer.Option(help="small, resnet50, timm:NAME, hf:NAME or open_clip:NAME/WEIGHTS.")
    ],
    weights: Annotated[
        str | None, typer.Option(help="A file; default: the pretrained ones, to download.")
    ] = None,
    update: Update = False,
    retry_failed: RetryFailed = False,
    config_file: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Compute a feature vector of every image with a backbone.

    Run the same command again after an interruption: it does only the rest.
    """
    features = embed(
        source,
        out,
        backbone=backbone,
        weights=weights,
        update=update,
        retry_failed=retry_failed,
        config=config_file,
        settings=settings,
        workers=workers_of(workers),
    )
    print_result(features, as_json)


def train_command(
    store: Store,
    out: Out,
    method: Method = None,
    preset: Annotated[
        str | None, typer.Option(help="Named settings: digits, cifar10, frozen.")
    ] = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    backbone: Annotated[
        str | None, typer.Option(help="small, resnet50, timm:NAME, hf:NAME, open_clip:NAME/SET.")
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(help="Weights of the backbone: a file, DEFAULT to download, or none."),
    ] = None,
    features: Features = None,
    workers: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN:MAX",
            help="Workers that share each batch. Default: 1.",
            rich_help_panel=WORKERS,
        ),
    ] = None,
    cpus: Cpus = 1,
    gpu: Gpu = None,
    tensorboard: Annotated[
        bool,
        typer.Option("--tensorboard", help="Write RUN/tensorboard too.", rich_help_panel=OUTPUT),
    ] = False,
    track: Annotated[
        str | None,
        typer.Option(
            metavar="TRACKER",
            help="Send measurements to mlflow, wandb or trackio.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    keep_checkpoints: Annotated[
        bool,
        typer.Option(
            "--keep-checkpoints",
            help="Keep RUN/checkpoints when it is finished.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Train a hashing model on a store.

    Run the same command again after an interruption: it goes on from the last checkpoint.
    """
    run = train(
        store,
        out,
        method=method,
        preset=preset,
        config=config_file,
        settings=settings,
        backbone=backbone,
        weights=weights,
        features=features,
        workers=workers_of(workers, "1"),
        cpus=cpus,
        gpu=gpu,
        tensorboard=tensorboard,
        track=track,
        keep_checkpoints=keep_checkpoints,
    )
    print_result(run, as_json)


def tune_command(
    store: Store,
    space: Annotated[
        str | None,
        typer.Option(
            help="methods, method, quick, loss_weights, code_length, full, or a YAML file. "
            "Default: methods, or method if you name one."
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=1, help="Trials in all, including those of earlier runs.")
    ] = 50,
    out: Annotated[
        str | None, typer.Option(help="Directory or URI to write. Default: STORE-search.")
    ] = None,
    at_once: Annotated[
        int | None, typer.Option(min=1, help="Parallel trials. Default: as many as fit.")
    ] = None,
    workers_per_trial: Annotated[
        str | None,
        typer.Option(
            metavar="N|MIN:MAX", help="Workers that share each batch of a trial. Default: 1."
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Seeds to compare the winner on; 0: none. Default: 3 for --space methods, else 0.",
        ),
    ] = None,
    constraints: Annotated[
        list[str] | None,
        typer.Option(
            "--constraint",
            metavar='"FIGURE <= X"',
            help="Bound on bits, encoding_cost or validation_map; may be given again.",
        ),
    ] = None,
    earlier: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="SEARCH", help="The sampler knows the trials of an earlier search."
        ),
    ] = None,
    until_no_gain: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="End when N trials in a row gained nothing."),
    ] = None,
    max_hours: Annotated[
        float | None,
        typer.Option(metavar="H", help="No trial begins after H hours, those of earlier runs too."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed of the sampler; --set seed=... of training.")
    ] = 0,
    method: Method = None,
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="For --space methods. Default: a few that suit the labels. Each has as many "
            "trials as the space says (each_method) before the search chooses among them.",
        ),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="Named settings to start from. Default: the space's.")
    ] = None,
    config_file: ConfigFile = None,
    settings: Settings = None,
    features: Features = None,
    cpus: Cpus = 1,
    gpu: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GPUs of each worker; 0.25: a fourth of one. Default: one if there are enough.",
            rich_help_panel=WORKERS,
        ),
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Search for the method and its settings with Ray Tune and Optuna; STORE may be an album.

    Run the same command again after an interruption, or with more trials: it goes on.
    """
    study = tune(
        store,
        space,
        trials,
        out,
        at_once=at_once,
        workers_per_trial=workers_per_trial,
        repeats=repeats,
        constraints=constraints,
        earlier=earlier,
        until_no_gain=until_no_gain,
        max_hours=max_hours,
        seed=seed,
        method=method,
        methods=methods,
        preset=preset,
        config=config_file,
        settings=settings,
        features=features,
        cpus=cpus,
        gpu=gpu,
    )
    print_result(study, as_json)


def export_command(
    run: Annotated[str, typer.Argument(help="A finished run, or its model directory.")],
    onnx: Annotated[Path, typer.Option("--onnx", help="ONNX file to write.")],
    images: Annotated[
        str, typer.Option(help="Source of images to compare on; of a store, its queries.")
    ] = "digits",
    evaluation: Annotated[
        Path | None, typer.Option(help="Evaluation whose figures go into the model card.")
    ] = None,
    bits: Annotated[
        int | None, typer.Option(metavar="K", help="Cut nested codes: one of the lengths of train.")
    ] = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Write RUN's network as ONNX, with a model card.

    The two networks are compared bit by bit.
    """
    exported = export(run, onnx, images=images, evaluation=evaluation, bits=bits)
    print_result(exported, as_json)
