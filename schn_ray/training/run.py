"""A training run from start to end: build it from a config and a store, train it, finish it.

RUN/metrics.jsonl     a line per outer iteration
RUN/model/            the released artifact: the best model by validation mAP
RUN/learned.parquet   codes of the training rows, solved from their labels
RUN/checkpoints/      last.pt and best.pt: all that is needed to continue
RUN/tensorboard/      if requested
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from schn_ray.core.directories import LOCK, DirectoryWriter, resumable_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.locks import locked
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.files import as_location, is_uri
from schn_ray.core.storage.mirror import Mirror, open_output, open_shared_output
from schn_ray.core.workers import Workers
from schn_ray.data.labels import label_sets
from schn_ray.data.store.reader import Store, open_store
from schn_ray.methods.code_table import initial_codes
from schn_ray.methods.deep.schn.method import Schn, SchnNetworks
from schn_ray.models.hasher import HasherSpec, best_device, preprocessing_for
from schn_ray.models.precision import Precision
from schn_ray.training.batches import Decoder, TrainingImages
from schn_ray.training.config import TrainConfig
from schn_ray.training.loop import Iteration, train_run
from schn_ray.training.recorder import CHECKPOINTS, Recorder, count_run
from schn_ray.training.state import Run, ValidationImages
from schn_ray.training.tensorboard import require_tensorboard

_DYING_S = 300.0  # most seconds until a worker ends whose driver was killed


def build_run(
    config: TrainConfig, store: Store, workers: Workers, device: torch.device, threads: int = 2
) -> Run:
    """Build networks, codes and data of a run at its beginning.

    Args:
        config: all settings.
        store: has the training and validation rows.
        workers: who shares each batch.
        device: of this worker's networks.
        threads: number of threads that decode images.

    Raises:
        SchnRayError: the store's rows can't be trained on, or the backbone can't be built.
    """
    store_rows = store.rows("train")
    preprocessing = preprocessing_for(config.network)
    data = TrainingImages(
        store.image, store_rows, store.labels[store_rows], preprocessing, config.augment
    )
    spec = HasherSpec(
        bits=config.bits,
        backbone=config.network.backbone,
        base_channels=config.network.base_channels,
        preprocessing=preprocessing,
        classes=store.classes,
    )
    validation_rows = store.rows("validation")
    sets = label_sets(data.labels)
    precision = Precision(config.precision, device)
    return Run(
        method=Schn(
            _networks(config, len(store.classes)).to(device),
            config.loss,
            config.codes,
            config.schedule,
            sets,
            workers,
            precision,
            config.compile,
        ),
        table=initial_codes(config.codes.init, sets, config.bits, config.seed),
        spec=spec,
        data=data,
        validation=ValidationImages(
            store.image,
            validation_rows[workers.own(len(validation_rows))],
            store.labels[validation_rows],
            preprocessing,
        ),
        schedule=config.schedule,
        codes=config.codes,
        seed=config.seed,
        precision=precision,
        workers=workers,
        decoder=Decoder(threads, pinned=device.type == "cuda"),
    )


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


def _networks(config: TrainConfig, classes: int) -> SchnNetworks:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)  # torch's layers take no generator
        return SchnNetworks(
            config.network, config.bits, classes, adversarial=config.loss.adversarial > 0
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

        def report(measured: Iteration, best: bool) -> None:
            if recorder:
                recorder.record(measured, best)
                mirror.send()
            reported(measured)

        train_run(run, report)
        if recorder:
            recorder.finish(store)
            mirror.send()


@contextmanager
def open_run(
    out: Path | str, config: TrainConfig, store: Store
) -> Iterator[tuple[Mirror, DirectoryWriter]]:
    """Open a run's directory, or its URI, for writing; at the end its manifest is written.

    Args:
        out: the directory or its URI.
        config: all settings.
        store: to train on.

    Yields:
        The local directory, mirrored to the URI, and the writer of the manifest.

    Raises:
        AlreadyDone: the same request has finished it.
        SchnRayError: it holds something else, or another process is writing it.
    """
    with (
        open_output(out) as mirror,
        resumable_directory(mirror.local, "run", *run_request(config, store)) as draft,
    ):
        yield mirror, draft


def conclude_run(mirror: Mirror, draft: DirectoryWriter, store: Store) -> None:
    """Count what the workers wrote, for the run's manifest.

    Args:
        mirror: of the run's directory; missing files are fetched.
        draft: the writer of the manifest.
        store: that the run was trained on.
    """
    mirror.fetch_all()
    draft.counts |= count_run(mirror.local, store)


def run_request(config: TrainConfig, store: Store) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config and inputs as a run's manifest records them.

    Args:
        config: all settings.
        store: to train on.
    """
    return config.model_dump(mode="json"), {"store": store.manifest.fingerprint}


def train_locally(
    config: TrainConfig, store_path: Path | str, out: Path | str, tensorboard: bool = False
) -> Manifest:
    """Train in this process, without Ray; after an interruption, the same call continues.

    Args:
        config: all settings.
        store_path: directory or URI of the store to train on.
        out: the run's directory, or its URI.
        tensorboard: write ``RUN/tensorboard`` too.

    Returns:
        The run's manifest.

    Raises:
        AlreadyDone: the same request has finished ``out``.
        SchnRayError: ``out`` holds something else, or the store can't be trained on.
    """
    store = open_store(store_path, verify=True)
    with open_run(out, config, store) as (mirror, draft):
        if tensorboard:
            require_tensorboard()
        run = build_run(config, store, Workers(), best_device(), threads=os.cpu_count() or 1)
        mirror.send()
        finish_run(run, store, mirror.location, tensorboard=tensorboard)
        conclude_run(mirror, draft, store)
    return read_manifest(mirror.local, "run")
