"""A training run from start to end: build it from a config and a store, train it, finish it.

RUN/metrics.jsonl     a line per outer iteration
RUN/model/            written at the end: the best model by validation mAP
RUN/learned.parquet   codes of the training rows, solved from their labels
RUN/trained.parquet   ids and hashes of training and validation rows, for the audit of evaluations
RUN/checkpoints/      until it is finished, all that is needed to continue, see ``checkpoints``
RUN/tensorboard/      if requested
RUN/tracker.json      if requested: the run in a tracker, see ``tracking``
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from schn_ray.core.directories import LOCK, AlreadyDone, DirectoryWriter, resumable_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.interrupts import time_to_save
from schn_ray.core.locks import locked
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.files import as_location, is_uri, join, remove_folder
from schn_ray.core.storage.mirror import Mirror, open_output, open_shared_output
from schn_ray.core.workers import Workers
from schn_ray.data.config import SourceConfig
from schn_ray.data.labels import label_sets
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.store.reader import Store, open_store
from schn_ray.data.store.role_rows import RoleRows
from schn_ray.methods.base import DeepMethod, Method, MethodConfig, Problem, ShallowMethod
from schn_ray.methods.code_table import CodeTable
from schn_ray.methods.nested import Nested, NestedNetwork
from schn_ray.methods.registry import find_method
from schn_ray.methods.trainer import Trainer
from schn_ray.models.backbones.build import build_backbone
from schn_ray.models.embed import FEATURES, EmbedConfig, embed_source
from schn_ray.models.encoder import Encoder
from schn_ray.models.hasher import best_device
from schn_ray.models.heads.build import build_head
from schn_ray.models.model_files import HasherSpec
from schn_ray.models.precision import Precision
from schn_ray.models.stored_features import StoredFeatures
from schn_ray.training.batches import Decoder
from schn_ray.training.checkpoints import damage_note
from schn_ray.training.config import TrainConfig
from schn_ray.training.descent import Descent
from schn_ray.training.fitting import Fitting
from schn_ray.training.loop import Iteration, train_run
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.recorder import CHECKPOINTS, Recorder, count_run
from schn_ray.training.rows import read_rows, require_labels
from schn_ray.training.state import Learner, Run, StoppedMidway
from schn_ray.training.tensorboard import require_tensorboard
from schn_ray.training.tracking import require_tracker, tracked
from schn_ray.training.watch import TrainingProgress, watched

_LOOK_S = 0.3  # between two looks at how far training is
_DYING_S = 300.0  # most seconds until a worker ends whose driver was killed


def build_run(
    config: TrainConfig,
    store: Store,
    workers: Workers,
    device: torch.device,
    threads: int = 2,
    features: StoredFeatures | None = None,
) -> Run:
    """Build method, codes and data of a run at its beginning.

    Args:
        config: all settings.
        store: has the training and validation rows.
        workers: who shares each batch.
        device: of this worker's networks.
        threads: number of threads that read and decode rows.
        features: of the store's rows; their backbone is released as it is.

    Raises:
        SchnRayError: the store's rows can't be trained on, or the backbone can't be built.
    """
    if features is not None and features.backbone_config.name != config.backbone.name:
        raise SchnRayError(
            f"{features.location} has features of backbone {features.backbone_config.name}, and "
            f"the settings say {config.backbone.name}"
        )
    rows = store.rows("train")
    labels = store.labels[rows]
    method_class = find_method(config.method.name)
    require_labels(method_class, config.method.name, labels)
    precision = Precision(config.precision, device)
    # built before the seed: it may be at hand from an earlier run, and then draws nothing
    released = None if features is None else features.backbone[0]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # torch's layers take no generator
        released = released or build_backbone(config.backbone)
        problem = Problem(
            config.bits,
            released.width,
            label_sets(labels),
            workers,
            precision,
            config.seed,
            config.nested,
        )
        head_spec = method_class.choose_head(config.method, config.head)
        head = build_head(head_spec, released.width, config.bits)
        trained = released.module if features is None else nn.Identity()
        encoder = Encoder(trained, head, config.backbone.freeze_batch_norm)
        method = _method(method_class, config.method, problem, encoder).to(device)
        method.head_spec = head_spec
    vectors = None
    if features is not None:
        vectors = features.of_store(store, np.union1d(rows, store.rows("validation")))
    views = method_class.views if issubclass(method_class, DeepMethod) else DeepMethod.views
    data, validation = read_rows(
        store, config.augment, released.preprocessing, workers, vectors, views
    )
    table = CodeTable(len(rows), config.bits)
    method.start(table)
    return Run(
        method=method,
        learner=learner_of(method, config),
        table=table,
        spec=HasherSpec(
            bits=config.bits,
            backbone=config.backbone.name,
            base_channels=config.backbone.base_channels,
            width=released.width,
            architecture=released.architecture,
            preprocessing=released.preprocessing,
            head=head_spec,
            activation=method_class.activation,
            backbone_sha256=None if features is None else features.fingerprint,
            classes=store.classes,
            lengths=config.nested,
        ),
        backbone=None if features is None else released.module.to(device),
        data=data,
        validation=validation,
        schedule=config.schedule,
        seed=config.seed,
        precision=precision,
        workers=workers,
        decoder=Decoder(threads, pinned=device.type == "cuda"),
    )


def _method(
    method: type[Method[Any]], config: MethodConfig, problem: Problem, encoder: Encoder
) -> Method[Any]:
    if not problem.lengths:
        return method(config, problem, encoder)
    assert issubclass(method, DeepMethod)  # the settings' check
    nested = NestedNetwork if method.one_network else Nested
    return nested(method, config, problem, encoder)


def learner_of(method: Method[Any], config: TrainConfig) -> Learner:
    """Return what trains a method.

    Args:
        method: deep or shallow.
        config: has optimiser and schedule.
    """
    if isinstance(method, DeepMethod):
        return Descent(Trainer(method, config.optimiser, config.schedule, config.compile))
    assert isinstance(method, ShallowMethod)
    return Fitting(method)


def require_shareable(config: TrainConfig, store: Store, workers: int) -> None:
    """Check that each worker gets a row of every batch.

    Args:
        config: has the batch size.
        store: has the training rows.
        workers: number of workers.

    Raises:
        SchnRayError: batches have fewer rows than there are workers.
    """
    rows = len(store.rows("train"))
    if min(rows, config.schedule.batch_size) < workers:
        raise SchnRayError(
            f"{rows:,} training rows in batches of {config.schedule.batch_size} cannot be shared "
            f"by {workers} workers: use fewer workers"
        )


def finish_run(
    run: Run,
    store: Store,
    out: Path | str,
    reported: Callable[[Iteration], None] = lambda _: None,
    tensorboard: bool = False,
) -> None:
    """Continue a run from its last checkpoint, if any, to its end; all its workers call this.

    Args:
        run: as ``build_run`` returned it.
        store: that it was built from.
        out: the run's directory, or its URI; only the first worker writes to it.
        reported: called after each iteration, when its checkpoint is on disk.
        tensorboard: write ``RUN/tensorboard`` too.

    Raises:
        Diverged: see ``train_run``.
        StoppedMidway: ``run.stop_requested`` said so; the checkpoint of this moment is written.
    """
    first = run.workers.rank == 0
    with ExitStack() as held:
        if first and not is_uri(location := as_location(out)):
            # workers whose driver was killed may still be writing
            held.enter_context(locked(Path(location, CHECKPOINTS, LOCK), Path(out), _DYING_S))
        run.workers.meet()
        mirror = held.enter_context(open_shared_output(as_location(out)))
        run.load(mirror.local / CHECKPOINTS)
        recorder = Recorder(mirror.local, run, tensorboard) if first else None
        send = held.enter_context(mirror.sending())

        def report(measured: Iteration, best: bool) -> None:
            if recorder:
                recorder.record(measured, best)
                send()
            reported(measured)

        try:
            train_run(run, report)
        except StoppedMidway:
            if recorder:
                run.save(mirror.local / CHECKPOINTS, best=False)
                send()
            raise
        if recorder:
            recorder.finish(store)
            send()


@contextmanager
def open_run(
    out: Path | str,
    config: TrainConfig,
    store: Store,
    features: str | None = None,
    keep_checkpoints: bool = False,
) -> Iterator[tuple[Mirror, DirectoryWriter]]:
    """Open a run's directory, or its URI, for writing; at the end its manifest is written.

    Checkpoints go after that, so that a run that is killed at its end does not begin again.

    Args:
        out: the directory or its URI.
        config: all settings.
        store: to train on.
        features: location of features that the user gave.
        keep_checkpoints: of the finished run, too.

    Yields:
        The local directory, mirrored to the URI, and the writer of the manifest.

    Raises:
        AlreadyDone: the same request has finished it.
        SchnRayError: it holds something else, or another process is writing it.
    """
    request = run_request(config, store, features)
    try:
        with open_output(out) as mirror:
            with resumable_directory(mirror.local, "run", *request) as draft:
                draft.left_out = () if keep_checkpoints else (CHECKPOINTS,)
                if note := damage_note(mirror.local / CHECKPOINTS):
                    print(f"schn-ray: {note}", file=sys.stderr)
                yield mirror, draft
            _drop_checkpoints(mirror.local, mirror.local)
    except AlreadyDone as done:  # by a run that was killed before its checkpoints went
        _drop_checkpoints(done.path, out)
        raise
    _drop_checkpoints(mirror.local, out)


def _drop_checkpoints(finished: Path, out: Path | str) -> None:
    """Remove a finished run's checkpoints from where they are, unless its manifest has them."""
    if not any(name.startswith(f"{CHECKPOINTS}/") for name in read_manifest(finished, "run").files):
        remove_folder(join(as_location(out), CHECKPOINTS))


def conclude_run(mirror: Mirror, draft: DirectoryWriter, store: Store) -> None:
    """Count what the workers wrote, for the run's manifest.

    Args:
        mirror: of the run's directory; missing files are fetched.
        draft: the writer of the manifest.
        store: that the run was trained on.
    """
    mirror.fetch_all(*draft.left_out)
    draft.counts |= count_run(mirror.local, store)


def run_request(
    config: TrainConfig, store: Store, features: str | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config and inputs as a run's manifest records them.

    Args:
        config: all settings.
        store: to train on.
        features: location of features that the user gave.
    """
    made_from = {"store": store.manifest.fingerprint}
    if features is not None:
        made_from["features"] = StoredFeatures(features).manifest.fingerprint
    return config.recorded(), made_from


@contextmanager
def frozen_features(
    config: TrainConfig,
    store: Store,
    out: Path | str,
    features: str | None,
    map_shards: MapShards,
) -> Iterator[str | None]:
    """Yield where the features are that a run trains on; None if it trains the backbone, too.

    Features that nobody gave are computed into ``RUN/features``, and removed at the end.

    Args:
        config: says whether the backbone is frozen.
        store: has the images.
        out: the run's directory, or its URI.
        features: those that the user gave.
        map_shards: applies a function to all shards, on whatever machines.
    """
    if features is not None or not (config.backbone.frozen and store.has_images):
        yield features
        return
    location = join(as_location(out), FEATURES)
    source = RoleRows(store.location, ("train", "validation"), SourceConfig().shard_rows)
    embedding = EmbedConfig(backbone=config.backbone, precision=config.precision)
    with suppress(AlreadyDone):
        embed_source(source, location, embedding, map_shards)
    yield location
    remove_folder(location)


def require_libraries(tensorboard: bool, track: str | None) -> None:
    """Check for the libraries that a run's measurements are written with.

    Args:
        tensorboard: whether ``RUN/tensorboard`` is written.
        track: name of a tracker, or None.

    Raises:
        SchnRayError: one is missing, or there is no such tracker.
    """
    if tensorboard:
        require_tensorboard()
    if track is not None:
        require_tracker(track)


def _shown(run: Run, out: str) -> AbstractContextManager[None]:
    before = read_metrics(out)
    progress = TrainingProgress(run.learner.most_iterations(run.schedule), len(before))
    return watched(progress, lambda: (run.history or before, run.steps), _LOOK_S, lambda _: None)


def train_locally(
    config: TrainConfig,
    store: Store | Path | str,
    out: Path | str,
    tensorboard: bool = False,
    features: str | None = None,
    keep_checkpoints: bool = False,
    track: str | None = None,
    shown: bool = False,
) -> Manifest:
    """Train in this process, without Ray; after an interruption, the same call continues.

    Args:
        config: all settings.
        store: to train on: open, or its directory or URI.
        out: the run's directory, or its URI.
        tensorboard: write ``RUN/tensorboard`` too.
        features: of the store's images, as ``embed`` wrote them; the head alone is trained.
        keep_checkpoints: of the finished run, too.
        track: the tracker that gets settings and measurements, see ``tracking``.
        shown: whether its progress is shown on standard error.

    Returns:
        The run's manifest.

    Raises:
        AlreadyDone: the same request has finished ``out``.
        SchnRayError: ``out`` holds something else, or the store can't be trained on.
    """
    store = store if isinstance(store, Store) else open_store(store)
    with open_run(out, config, store, features, keep_checkpoints) as (mirror, draft):
        require_libraries(tensorboard, track)
        mirror.send()
        threads = os.cpu_count() or 1
        with frozen_features(config, store, mirror.location, features, map_locally) as vectors:
            stored = None if vectors is None else StoredFeatures(vectors)
            run = build_run(config, store, Workers(), best_device(), threads, stored)
            with (
                tracked(track, mirror.location, config.model_dump(mode="json")) as send,
                _shown(run, mirror.location) if shown else nullcontext(),
                time_to_save() as requested,
            ):
                run.stop_requested = requested.is_set
                finish_run(run, store, mirror.location, lambda _: send(run.history), tensorboard)
        conclude_run(mirror, draft, store)
    return read_manifest(mirror.local, "run")
