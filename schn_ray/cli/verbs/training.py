"""Verbs on models: methods, embed, train, tune, export."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from schn_ray.cli.verbs.arguments import (
    ALL,
    Settings,
    Workers,
    finish,
    finished_before,
    listed,
    location_of,
    require_ray,
    setting_lines,
    shards_mapper,
    source_of,
    worker_range,
)
from schn_ray.cli.verbs.results import Catalogue, ExportResult, Output, Study

if TYPE_CHECKING:
    from schn_ray.cluster.session import WorkerRequest
    from schn_ray.core.manifest import Manifest
    from schn_ray.data.shards.rows import Source
    from schn_ray.data.store.reader import Store
    from schn_ray.models.embed import EmbedConfig


def list_methods(name: str | None = None) -> Catalogue:
    """List the methods that can be trained, or describe one.

    Args:
        name: of a method, or your own class as ``"./mine.py:Mine"``; None: all.

    Returns:
        A line for each method; for a single one its paper, needs and settings.

    Raises:
        SchnRayError: no such method.

    Example:
        >>> list_methods("csq").descriptions[0].labels
        'any number of labels a row'
    """
    from schn_ray.methods.catalogue import describe_method
    from schn_ray.methods.registry import METHODS

    names = METHODS if name is None else [name]
    return Catalogue([describe_method(name) for name in names], single=name is not None)


def embed(
    source: Path | str | Source,
    out: Path | str,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    update: bool = False,
    retry_failed: bool = False,
    config: Path | str | None = None,
    settings: Settings = None,
    workers: Workers | None = None,
) -> Output:
    """Compute a feature vector for every image of a source, with a backbone as it is.

    ``train`` takes them as ``features``, and ``encode`` as a source. Interrupted at any moment, the
    same call does only the rest.

    Args:
        source: see ``check``; a store keeps its split where ``train`` takes both.
        out: the directory or URI of the features.
        backbone: such as ``"timm:vit_small_patch14_dinov2.lvd142m"``; default: alexnet.
        weights: a file, or a name of torchvision's; default: the pretrained ones.
        update: take in what is new, changed or gone in the source.
        retry_failed: try the quarantined images again.
        config: a YAML file of settings.
        settings: such as ``{"dtype": "float32"}``; they override the file.
        workers: None: in this process. ``4``, ``"2:16"`` or ``"all"``: so many on Ray.

    Returns:
        The features: their path, with ``counts`` of rows embedded and quarantined.

    Raises:
        SchnRayError: no images, weights that do not arrive, or ``out`` holds something else.
        TooManyBadRows: more images are bad than ``source.max_bad_share`` allows.

    Example:
        >>> features = embed("store", "features", backbone="resnet50")  # doctest: +SKIP
        >>> run = train("store", "run", features=features)  # doctest: +SKIP
    """
    from schn_ray.models.embed import embed_source

    options = {"backbone.name": backbone, "backbone.weights": weights}
    file = None if config is None else Path(config)
    loaded = embed_config(file, setting_lines(settings, options))
    target = location_of(out)
    shards = shards_mapper("embedding", workers, gpus=True, writes=target)
    opened = source_of(source, loaded.source)
    return finish(out, lambda: embed_source(opened, target, loaded, shards, update, retry_failed))


def embed_config(file: Path | None = None, settings: tuple[str, ...] = ()) -> EmbedConfig:
    """Build the settings of ``embed``, with pretrained weights by default."""
    from schn_ray.core.settings import load_settings
    from schn_ray.models.embed import EmbedConfig

    return load_settings(EmbedConfig, file, settings, {"backbone": {"weights": "DEFAULT"}})


def train(
    store: Path | str | Store,
    out: Path | str,
    *,
    method: str | None = None,
    preset: str | None = None,
    config: Path | str | None = None,
    settings: Settings = None,
    backbone: str | None = None,
    weights: str | None = None,
    features: Path | str | None = None,
    workers: Workers | None = None,
    cpus: int = 1,
    gpu: bool | None = None,
    tensorboard: bool = False,
    track: str | None = None,
    keep_checkpoints: bool = False,
) -> Output:
    """Train a hashing model.

    Interrupted at any moment, the same call goes on from the last checkpoint. The result does not
    depend on the number of workers.

    Args:
        store: what ``prepare`` wrote.
        out: the run's directory or URI.
        method: a name that ``list_methods`` lists, or your own class as ``"./mine.py:Mine"``;
            default: that of ``config``, or ``"schn-plus"``.
        preset: named settings, such as ``"digits"`` or ``"cifar10"``.
        config: a YAML file of settings; it overrides the preset.
        settings: such as ``{"bits": 48, "schedule.iterations": 20}``; they override the file.
        backbone: such as ``"resnet50"`` or ``"timm:vit_small_patch14_dinov2.lvd142m"``.
        weights: of the backbone: a file, ``"DEFAULT"`` or another name of torchvision's to
            download, or ``"none"``.
        features: of the store's images, as ``embed`` wrote them: the backbone is released as it is,
            and the head is trained on them. ``{"backbone.frozen": True}`` does the same in passing.
        workers: None: in this process. ``4`` or ``"2:8"``: so many on Ray share each batch.
        cpus: of each worker on Ray.
        gpu: whether each worker on Ray has a GPU; default: if there are enough.
        tensorboard: write ``RUN/tensorboard`` too.
        track: send settings and measurements to ``"mlflow"``, ``"wandb"`` or ``"trackio"``.
        keep_checkpoints: keep ``RUN/checkpoints`` when the run is finished; they are many times the
            model's size.

    Returns:
        The run: its path, with ``counts``. ``schn_ray.load(run)`` opens its model.

    Raises:
        SchnRayError: an unknown setting, a store that cannot be trained on, ``out`` holds
            something else, or more workers than the cluster has.

    Example:
        >>> run = train("store", "run", preset="digits", settings={"bits": 16})  # doctest: +SKIP
        >>> hasher = schn_ray.load(run)  # doctest: +SKIP
    """
    from schn_ray.core.answered import answered_request

    lines = setting_lines(settings, {"backbone.name": backbone, "backbone.weights": weights})
    file = None if config is None else Path(config)
    embedded = None if features is None else location_of(features)
    if workers is None:
        _refuse_resources(cpus, gpu)
    known = answered_request(
        "train",
        location_of(out),
        {"method": method, "preset": preset, "settings": lines},
        [location_of(store), embedded],
        [file],
    )
    if (output := finished_before(known, "run")) is not None:
        return output

    from schn_ray.models.backbones.build import require_backbone
    from schn_ray.training.config import train_config
    from schn_ray.training.rows import settings_of_inputs

    given = settings_of_inputs(location_of(store), embedded)
    loaded = train_config(preset, file, lines, method, given)
    if embedded is None:
        require_backbone(loaded.backbone)
    if workers is not None:
        request = _request(workers, cpus, gpu)
        from schn_ray.cluster.train import train_on_ray

        return finish(
            out,
            lambda: train_on_ray(
                loaded,
                location_of(store),
                location_of(out),
                request,
                tensorboard,
                features=embedded,
                keep_checkpoints=keep_checkpoints,
                track=track,
            ),
            known,
        )
    from schn_ray.training.run import train_locally

    return finish(
        out,
        lambda: train_locally(
            loaded,
            location_of(store),
            location_of(out),
            tensorboard,
            features=embedded,
            keep_checkpoints=keep_checkpoints,
            track=track,
            shown=True,
        ),
        known,
    )


def _request(workers: Workers, cpus: int, gpu: bool | None) -> WorkerRequest:
    from schn_ray.core.errors import SchnRayError

    bounds = worker_range(workers)
    if bounds is None:
        raise SchnRayError(
            f"workers={ALL!r}: training needs a number such as 4, or a range such as 2:8"
        )
    require_ray("training")
    from schn_ray.cluster.session import WorkerRequest

    return WorkerRequest(*bounds, cpus, None if gpu is None else int(gpu))


def _refuse_resources(cpus: int, gpu: bool | None) -> None:
    from schn_ray.core.errors import SchnRayError

    if cpus != 1 or gpu is not None:
        raise SchnRayError(
            "cpus and gpu are resources of workers on Ray: give workers=1 or more too. In this "
            "process, training takes a GPU if torch sees one"
        )


def named_methods(methods: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return names of methods, given as a list or with commas; each once.

    >>> named_methods("csq, itq,csq"), named_methods(None)
    (('csq', 'itq'), ())
    """
    parts = (part.strip() for text in listed(methods) for part in text.split(","))
    return tuple(dict.fromkeys(part for part in parts if part))


def tune(
    store: Path | str | Store,
    space: Path | str | None = None,
    trials: int = 50,
    out: Path | str | None = None,
    *,
    at_once: int | None = None,
    workers_per_trial: Workers | None = None,
    repeats: int | None = None,
    constraints: Mapping[str, str] | Sequence[str] | None = None,
    earlier: Path | str | None = None,
    until_no_gain: int | None = None,
    max_hours: float | None = None,
    seed: int = 0,
    method: str | None = None,
    methods: str | Sequence[str] | None = None,
    preset: str | None = None,
    config: Path | str | None = None,
    settings: Settings = None,
    features: Path | str | None = None,
    cpus: int = 1,
    gpu: float | None = None,
) -> Study:
    """Search for settings with Ray Tune and Optuna.

    It needs Ray. Interrupted, or with more trials, the same call goes on. What it is going to do is
    printed first. With a store and nothing else, it searches for the method and its settings, as
    heads on the store's vectors, on ``features``, or on those of a backbone that it runs once.

    Args:
        store: what ``prepare`` wrote, with validation rows; or an album, which has its features.
        space: ``"methods"`` for a choice of methods, each with its own settings; ``"method"`` for
            what the method's settings say of themselves; ``"quick"``, ``"loss_weights"``,
            ``"code_length"``, ``"full"`` for SCHN's; or a YAML file. Default: ``"methods"``, or
            ``"method"`` if you name one.
        trials: how many in all, those of earlier calls included.
        out: the search's directory or URI; default: ``STORE-search``, or ``ALBUM/search``.
        at_once: trials that run at the same time; default: as many as fit.
        workers_per_trial: workers that share each batch of a trial: 2, or ``"2:4"`` for two more
            while they are free; default: 1.
        repeats: seeds on which the winner is compared with the starting point and with the next
            method; 0: none. Default: 3 where the method is searched, else 0.
        constraints: bounds on figures, ``{"bits": "<= 64"}`` or ``["bits <= 64"]``, over those of
            the space; a trial that breaks one is not among the best.
        earlier: a finished search, ``--from`` of the command; the sampler knows those of its trials
            that fit the space. They are no trials of this one.
        until_no_gain: so many trials without a gain end the search before it has ``trials``.
        max_hours: no trial begins after so many hours of searching, earlier calls included.
        seed: of the sampler.
        method: as for ``train``.
        methods: that the space ``"methods"`` chooses among, ``"csq,itq"`` or a list; default: a few
            that suit the labels.
        preset: named settings to start from; default: those of the space, and ``"frozen"`` where
            the method is searched.
        config: a YAML file of settings that do not vary.
        settings: settings that do not vary; they override the file.
        features: as for ``train``; a trial is then a matter of seconds.
        cpus: of each worker.
        gpu: GPUs of each worker, 0.25 for a fourth of one; default: one, if there are enough.

    Returns:
        The search: its path, shown with the best trials. ``best.yaml`` in it is a ``config`` for
        ``train``.

    Raises:
        SchnRayError: a space that does not fit, no validation rows, or Ray is not installed.

    Example:
        >>> study = tune("store")  # doctest: +SKIP
        >>> study = tune("store", "quick", 30, "search")  # doctest: +SKIP
        >>> run = train("store", "run", config=f"{study}/best.yaml")  # doctest: +SKIP
    """
    bounds = _trial_workers(workers_per_trial)
    from schn_ray.cli.search_plan import REPEATS, plan_search, search_inputs, search_text
    from schn_ray.tuning.constraints import constraint_lines
    from schn_ray.tuning.method_spaces import opened_space
    from schn_ray.tuning.space import base_config, check_space

    file, lines = None if config is None else Path(config), setting_lines(settings)
    inputs = search_inputs(
        location_of(store),
        None if features is None else location_of(features),
        None if out is None else location_of(out),
    )
    named = None if space is None else str(space)
    plan = plan_search(inputs, named, method, named_methods(methods), preset, file is not None)
    given = plan.given
    searched = opened_space(plan.space, plan.preset, file, lines, method, given, plan.methods)
    limits = searched.constraints | constraint_lines(constraints)
    searched = searched.model_copy(update={"constraints": limits})
    base = base_config(searched, plan.preset, file, lines, method, given)
    check_space(searched, base)
    if repeats is None:
        repeats = REPEATS if searched.methods and not searched.multi_objective else 0

    require_ray("tuning")
    from schn_ray.cluster.tune import SearchBudget, tune_on_ray
    from schn_ray.tuning.stopping import StoppingRule

    gpus = None if gpu is None else float(gpu)
    stopping = StoppingRule(until_no_gain, max_hours)
    budget = SearchBudget(trials, at_once, *bounds, cpus, gpus, repeats, stopping)
    known = None if earlier is None else location_of(earlier)

    def announce() -> None:
        text = search_text(inputs, searched, base, budget.trials, budget.repeats)
        print(text, file=sys.stderr, flush=True)

    def work() -> Manifest:
        where = inputs.store, inputs.out
        return tune_on_ray(searched, base, *where, budget, seed, inputs.features, announce, known)

    output = finish(inputs.out, work)
    return Study(str(output), output.manifest, output.note)


def _trial_workers(workers: Workers | None) -> tuple[int, int]:
    from schn_ray.core.errors import SchnRayError

    bounds = (1, 1) if workers is None else worker_range(workers)
    if bounds is None:
        raise SchnRayError(f"workers_per_trial={ALL!r}: expected a number, or a range such as 2:4")
    return bounds


def export(
    run: Path | str,
    onnx: Path | str,
    *,
    images: str = "digits",
    evaluation: Path | str | None = None,
    bits: int | None = None,
) -> ExportResult:
    """Write the network as ONNX, with a description and a model card; compare the two bit by bit.

    Args:
        run: a finished run, or its model directory.
        onnx: the file to write; ``.json`` and ``.md`` files of the same name come with it.
        images: the source to compare on; of a store, its queries.
        evaluation: what ``evaluate`` wrote, for the model card.
        bits: of a code, where ``train`` had the setting ``nested``: one of its lengths.

    Returns:
        The file and how many bits differ.

    Raises:
        SchnRayError: a library is missing (``pip install 'schn-ray[onnx]'``), or there are no
            images to compare on.

    Example:
        >>> export("run", "model.onnx", images="store").check.bits_that_differ  # doctest: +SKIP
        0
    """
    from schn_ray.evaluation.text import text_for_model
    from schn_ray.models.export import export_onnx
    from schn_ray.models.model_files import fingerprint

    figures = None if evaluation is None else text_for_model(evaluation, fingerprint(run))
    return ExportResult(str(onnx), export_onnx(run, Path(onnx), images, figures, bits))
