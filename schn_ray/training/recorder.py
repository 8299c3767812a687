"""Files of a training run: measurements, checkpoints, its best model, learned codes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.core.atomic_files import PARTIAL, write_atomically, writing
from schn_ray.core.bits import pack
from schn_ray.core.checked_lines import checked_line
from schn_ray.data.store.reader import Store
from schn_ray.models.model_files import LEARNED, MODEL, TRAINED, HasherSpec
from schn_ray.retrieval.code_files import CODE, code_column
from schn_ray.training.checkpoints import remove_leftovers
from schn_ray.training.loop import Iteration
from schn_ray.training.metrics_file import METRICS, read_metrics
from schn_ray.training.state import Run
from schn_ray.training.tensorboard import TensorBoardWriter

CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"


class Recorder:
    """Writes a run's measurements, best model and checkpoints; only the first worker has one.

    On creation it writes the measurements anew, from the checkpoint that the run continues from.

    Args:
        path: the run's directory.
        run: its state, after ``Run.load``.
        tensorboard: write ``RUN/tensorboard`` too.
    """

    def __init__(self, path: Path, run: Run, tensorboard: bool) -> None:
        self.path, self.run = path, run
        remove_leftovers(path / CHECKPOINTS)
        text = "".join(map(checked_line, run.history))
        write_atomically(path / METRICS, text.encode())
        self._board = TensorBoardWriter(path / TENSORBOARD, run.history) if tensorboard else None

    def record(self, measured: Iteration, best: bool) -> None:
        """Write one iteration: a line, and the checkpoint.

        The best model is that of a checkpoint, and is written at the end. A fit has none in its
        checkpoints, so its only model is written at once.

        Args:
            measured: the iteration.
            best: whether its model is the best so far.
        """
        if best and self.run.learner.repeats:
            self._write_model(asdict(measured))
        self.run.history.append(asdict(measured))
        with writing(self.path / METRICS), (self.path / METRICS).open("a") as file:
            file.write(checked_line(asdict(measured)))
            file.flush()
            os.fsync(file.fileno())
        if self._board:
            with writing(self.path / TENSORBOARD):
                self._board.add(asdict(measured))
        self.run.save(self.path / CHECKPOINTS, best)

    def finish(self, store: Store) -> None:
        """Write the best model and ``learned.parquet``: ids and codes of rows that have a code."""
        if not self.run.learner.repeats:
            with self.run.best_model(self.path / CHECKPOINTS) as measured:
                self._write_model(measured)
        coded = self.run.table.coded
        rows = self.run.data.store_rows[coded]
        codes = code_column(pack(self.run.table.read(np.flatnonzero(coded))))
        self._write_table(pa.table({"id": store.ids.take(pa.array(rows)), CODE: codes}), LEARNED)
        self._write_trained(store)

    def _write_model(self, measured: Mapping[str, Any]) -> None:
        self.run.hasher().save(self.path / MODEL, _model_card(self.run, measured))

    def _write_trained(self, store: Store) -> None:
        """Write ``trained.parquet``: ids and SHA-256 of the rows that the model must not meet."""
        rows = np.union1d(store.rows("train"), store.rows("validation"))
        self._write_table(store.identities(rows), TRAINED)

    def _write_table(self, table: pa.Table, name: str) -> None:
        partial_path = self.path / f"{name}{PARTIAL}"
        with writing(self.path / name):
            pq.write_table(table, partial_path)
            partial_path.rename(self.path / name)


def count_run(path: Path, store: Store) -> dict[str, Any]:
    """Return the counts for the manifest of a finished run.

    Args:
        path: the run's directory.
        store: that it was trained on.
    """
    measured = [line["validation_map"] for line in read_metrics(path)]
    scores = [score for score in measured if score is not None]
    return {
        "iterations": len(measured),
        "training_rows": len(store.rows("train")),
        "validation_rows": len(store.rows("validation")),
        "best_validation_map": max(scores, default=None),
    }


def _bits(spec: HasherSpec) -> str:
    if not spec.lengths:
        return str(spec.bits)
    lengths = ", ".join(map(str, spec.lengths))
    return f"{spec.bits}; nested: the first {lengths} bits are codes, too"


def _model_card(run: Run, measured: Mapping[str, Any]) -> str:
    most = run.learner.most_iterations(run.schedule)
    of_most = "" if most is None else f" of {most}"
    score = measured["validation_map"]
    quality = (
        f"{score:.4f} (exact under ties; {len(run.validation)} validation rows, each ranked "
        "against the others)"
        if score is not None
        else "not measured: the store has no validation rows"
    )
    return (
        f"# Image hashing model\n\n"
        f"- bits: {_bits(run.spec)}\n"
        f"- backbone: {run.spec.backbone}\n"
        f"- training rows: {len(run.data)}, classes: {len(run.spec.classes)}\n"
        f"- outer iteration: {measured['iteration']}{of_most}, "
        f"seed {run.seed}\n"
        f"- validation mAP, codes encoded by this model: {quality}\n\n"
        f"`schn_ray.load` reads it.\n"
    )
