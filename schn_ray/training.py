"""From a config and a store to a run, and what a run leaves on disk.

RUN/metrics.jsonl     a line an outer iteration
RUN/model/            the released artifact: the best model by validation mAP
RUN/learned.parquet   codes of the training rows, solved from their labels
RUN/checkpoints/      last.pt and best.pt: all that is needed to go on
RUN/tensorboard/      if asked for
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from schn_ray.batches import Decoder, TrainingImages
from schn_ray.board import Board, require_tensorboard
from schn_ray.code_files import CODE, code_column
from schn_ray.codes import initial_codes, pack
from schn_ray.config import TrainConfig
from schn_ray.distributed import Workers
from schn_ray.errors import SchnRayError
from schn_ray.hasher import MODEL, HasherSpec, best_device, preprocessing_for
from schn_ray.labels import label_sets
from schn_ray.locks import locked
from schn_ray.loop import Iteration, Run, ValidationImages, train
from schn_ray.manifest import (
    LOCK,
    Draft,
    Manifest,
    read_manifest,
    resumable_directory,
    write_atomically,
)
from schn_ray.places import Mirror, as_location, followed, is_uri, join, written_at
from schn_ray.places.files import read_file
from schn_ray.precision import Precision
from schn_ray.schn import Schn, SchnNetworks
from schn_ray.store import Store, open_store

METRICS, LEARNED, CHECKPOINTS = "metrics.jsonl", "learned.parquet", "checkpoints"
TENSORBOARD = "tensorboard"
_DYING_S = 300.0  # what a worker whose driver was killed may take to die


def build_run(
    config: TrainConfig, store: Store, workers: Workers, device: torch.device, threads: int = 2
) -> Run:
    """Build networks, codes and data of a run at its beginning.

    Args:
        config: decides what is computed.
        store: training and validation rows.
        workers: who shares each batch.
        device: where this worker's networks are.
        threads: how many decode images.

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
    """Refuse a run whose batches have fewer rows than there are workers.

    Raises:
        SchnRayError: with the numbers.
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
    """Go on with a run where it was stopped, to its end; all its workers call this.

    Args:
        run: at its beginning.
        store: what it was built from.
        out: the run's directory, or its URI; the first worker writes there.
        reported: called after each iteration, when its checkpoint is on disk.
        tensorboard: write ``RUN/tensorboard`` too.

    Raises:
        Diverged: see ``loop.train``.
    """
    first = run.workers.rank == 0
    with ExitStack() as held:
        if first and not is_uri(location := as_location(out)):
            # the workers of a driver that was killed may still be writing
            held.enter_context(locked(Path(location, CHECKPOINTS, LOCK), Path(out), _DYING_S))
        run.workers.meet()
        mirror = held.enter_context(followed(as_location(out)))
        run.load(mirror.here / CHECKPOINTS)
        recorder = Recorder(mirror.here, run, tensorboard) if first else None

        def report(measured: Iteration, best: bool) -> None:
            if recorder:
                recorder.record(measured, best)
                mirror.send()
            reported(measured)

        train(run, report)
        if recorder:
            recorder.finish(store)
            mirror.send()


class Recorder:
    """Writes what a run measures, its best model and its checkpoints; one worker has it.

    Made, it forgets measurements later than the state that the run goes on from.
    """

    def __init__(self, path: Path, run: Run, tensorboard: bool) -> None:
        self.path, self.run = path, run
        kept = [line for line in read_metrics(path) if line["iteration"] <= run.iteration]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(path / METRICS, text.encode())
        self._board = Board(path / TENSORBOARD, kept) if tensorboard else None

    def record(self, measured: Iteration, best: bool) -> None:
        """Write the model if it is the best so far, a line, and the checkpoint, in this order."""
        if best:
            self.run.hasher().save(self.path / MODEL, _model_card(self.run, measured))
        with (self.path / METRICS).open("a") as file:
            file.write(json.dumps(asdict(measured)) + "\n")
            file.flush()
            os.fsync(file.fileno())
        if self._board:
            self._board.add(asdict(measured))
        self.run.save(self.path / CHECKPOINTS, best)

    def finish(self, store: Store) -> None:
        """Write the learned codes of the rows that have one."""
        coded = self.run.table.coded
        rows = self.run.data.store_rows[coded]
        codes = code_column(pack(self.run.table.read(np.flatnonzero(coded))))
        table = pa.table({"id": store.ids.take(pa.array(rows)), CODE: codes})
        beside = self.path / f"{LEARNED}.partial"
        pq.write_table(table, beside)
        beside.rename(self.path / LEARNED)


def read_metrics(run: Path | str) -> list[dict[str, Any]]:
    """Read the whole lines of a run's ``metrics.jsonl``, also while it is being written."""
    try:
        text = read_file(join(as_location(run), METRICS)).decode()
    except FileNotFoundError:
        return []
    lines = text.split("\n")[:-1]  # what follows the last newline is unfinished
    return [json.loads(line) for line in lines]


@contextmanager
def opened_run(
    out: Path | str, config: TrainConfig, store: Store
) -> Iterator[tuple[Mirror, Draft]]:
    """Open a run's directory, or its URI, to write what ``config`` makes of a store.

    Raises:
        AlreadyDone: it was finished by the same request.
        SchnRayError: it holds something else, or another process writes it now.
    """
    with (
        written_at(out) as mirror,
        resumable_directory(mirror.here, "run", *run_request(config, store)) as draft,
    ):
        yield mirror, draft


def conclude_run(mirror: Mirror, draft: Draft, store: Store) -> None:
    """Say in a run's manifest what its workers wrote."""
    mirror.fetch_all()
    draft.counts |= count_run(mirror.here, store)


def run_request(config: TrainConfig, store: Store) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config and inputs as a run's manifest records them."""
    return config.model_dump(mode="json"), {"store": store.manifest.fingerprint}


def count_run(path: Path, store: Store) -> dict[str, Any]:
    """Count what a finished run's manifest says."""
    measured = [line["validation_map"] for line in read_metrics(path)]
    scores = [score for score in measured if score is not None]
    return {
        "iterations": len(measured),
        "training_rows": len(store.rows("train")),
        "validation_rows": len(store.rows("validation")),
        "best_validation_map": max(scores, default=None),
    }


def train_here(
    config: TrainConfig, store_path: Path | str, out: Path | str, tensorboard: bool = False
) -> Manifest:
    """Train in this process, without Ray; interrupted, the same call goes on.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        SchnRayError: ``out`` holds something else, or the store can't be trained on.
    """
    store = open_store(store_path, verify=True)
    with opened_run(out, config, store) as (mirror, draft):
        if tensorboard:
            require_tensorboard()
        run = build_run(config, store, Workers(), best_device(), threads=os.cpu_count() or 1)
        mirror.send()
        finish_run(run, store, mirror.location, tensorboard=tensorboard)
        conclude_run(mirror, draft, store)
    return read_manifest(mirror.here, "run")


def _model_card(run: Run, measured: Iteration) -> str:
    score = measured.validation_map
    quality = (
        f"{score:.4f} (exact under ties; {len(run.validation)} validation rows, each ranked "
        "against the others)"
        if score is not None
        else "not measured: the store has no validation rows"
    )
    return (
        f"# Image hashing model\n\n"
        f"- bits: {run.spec.bits}\n"
        f"- backbone: {run.spec.backbone}\n"
        f"- training rows: {len(run.data)}, classes: {len(run.spec.classes)}\n"
        f"- outer iteration: {measured.iteration} of {run.schedule.iterations}, "
        f"seed {run.seed}\n"
        f"- validation mAP, codes encoded by this model: {quality}\n\n"
        f"`schn_ray.hasher.load` reads it.\n"
    )
