"""An outer iteration of a deep method: epochs of steps over drawn rows, then its update."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from schn_ray.core.bits import pack, sign
from schn_ray.data.labels import multi_hot
from schn_ray.methods.base import Batch
from schn_ray.methods.config import ScheduleConfig
from schn_ray.methods.trainer import Trainer
from schn_ray.training.batches import Rows, global_batches, sampled_rows, view_draws
from schn_ray.training.state import Learned, Run, Steps, StoppedMidway


class Descent:
    """Trains a deep method on batches.

    Args:
        trainer: of the method.
    """

    repeats = False

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self._midway: dict[str, Any] | None = None  # where an iteration was stopped

    def most_iterations(self, schedule: ScheduleConfig) -> int | None:
        """Return the iterations of the schedule."""
        return schedule.iterations

    def releasable(self, run: Run) -> bool:
        """Return True: any iteration may be the best."""
        return True

    def validation_due(self, run: Run) -> bool:
        """Tell whether the schedule validates this iteration; the last one always is."""
        due = run.iteration % run.schedule.eval_every == 0
        return due or run.iteration == run.schedule.iterations

    def state_dict(self) -> dict[str, Any]:
        """Return the states of the method and of its optimisers, by name."""
        optimisers = {name: o.state_dict() for name, o in self.trainer.optimisers.items()}
        return {
            "method": self.trainer.method.state_dict(),
            "optimisers": optimisers,
            "midway": self._midway,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.trainer.method.load_state_dict(state["method"])
        for name, optimiser in self.trainer.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        self._midway = state["midway"]

    def iterate(self, run: Run) -> Learned:
        """Train on the rows of one outer iteration and update their codes."""
        rows = sampled_rows(len(run.data), run.schedule.samples, run.seed, run.iteration)
        terms: dict[str, list[Tensor]] = defaultdict(list)
        outputs = _EpochOutputs(len(rows), run.device)
        epoch, steps = self._go_on(run, rows, terms, outputs)
        in_epoch = -(-len(rows) // run.schedule.batch_size)
        run.steps = Steps(run.iteration, epoch * in_epoch + steps, run.schedule.epochs * in_epoch)
        while epoch < run.schedule.epochs:
            self._train_epoch(run, rows, epoch, steps, terms, outputs)
            epoch, steps = epoch + 1, 0
        loss = _mean_terms(terms, run)
        values = outputs.values()
        self._update_codes(run, outputs.rows, values)
        return Learned(
            loss=loss,
            rows=run.workers.gather_any(outputs.rows).numpy(),
            codes=run.workers.gather_any(torch.from_numpy(pack(sign(values["U"])))).numpy(),
            passes=run.schedule.epochs,
            learning_rate=self.trainer.learning_rate,
        )

    def _train_epoch(
        self,
        run: Run,
        rows: Rows,
        epoch: int,
        done: int,
        terms: dict[str, list[Tensor]],
        outputs: _EpochOutputs,
    ) -> None:
        batches = _batches(run, rows, epoch)[done:]
        draws = view_draws(len(run.data), run.seed, run.iteration, epoch, len(run.data.views))
        run.method.train()
        if not done:
            outputs.begin_epoch()
        own_batches = run.decoder.batches(run.data, batches, draws, run.workers)
        for steps, (batch_rows, views) in enumerate(own_batches, start=done):
            if run.must_stop():
                self._midway = _gathered(run, epoch, steps, terms, outputs)
                raise StoppedMidway
            assert run.steps is not None
            self.trainer.set_rates(run.steps.progress)
            step = self.trainer.step(batch := _batch(run, batch_rows, views))
            for name, term in step.terms.items():
                terms[name].append(term * batch.share)
            outputs.add(batch.rows[batch.own], step.outputs)
            run.steps.done += 1

    def _go_on(
        self,
        run: Run,
        rows: Rows,
        terms: dict[str, list[Tensor]],
        outputs: _EpochOutputs,
    ) -> tuple[int, int]:
        """Restore an iteration that was stopped; return its epoch, and the steps of it so far."""
        if self._midway is None:
            return 0, 0
        midway, self._midway = self._midway, None
        epoch, steps = midway["epoch"], midway["steps"]
        for name, values in midway["terms"].items():  # [W, steps so far]
            same = len(values) == run.workers.size
            own = values[run.workers.rank] if same else values.mean(dim=0)
            terms[name] = list(own.to(run.device))
        done = _batches(run, rows, epoch)[:steps]
        own_rows = np.concatenate([b[run.workers.own(len(b))] for b in done] or [rows[:0]])
        saved_rows = midway["rows"].cpu().numpy()
        order = np.argsort(saved_rows)
        positions = torch.from_numpy(order[np.searchsorted(saved_rows, own_rows, sorter=order)])
        values = {name: value.cpu()[positions] for name, value in midway["outputs"].items()}
        outputs.add(torch.from_numpy(own_rows), values)
        _set_random_state(midway["random"], run.device)
        return epoch, steps

    def _update_codes(self, run: Run, rows: Tensor, values: dict[str, Tensor]) -> None:
        solved = self.trainer.method.update(rows, run.table.read(rows), values)
        if solved is not None:
            run.table.write(run.workers.gather_any(rows), run.workers.gather_any(solved))


class _EpochOutputs:
    """This worker's rows of the latest epoch and the steps' outputs, in the order of the steps.

    All epochs share one buffer a name, since an update uses only the latest output of each row.
    """

    def __init__(self, capacity: int, device: torch.device) -> None:
        self._rows = torch.empty(capacity, dtype=torch.int64)
        self._capacity, self._device = capacity, device
        self._buffers: dict[str, Tensor] = {}
        self._count = 0

    def begin_epoch(self) -> None:
        self._count = 0

    def add(self, rows: Tensor, outputs: Mapping[str, Tensor]) -> None:
        step = slice(self._count, self._count + len(rows))
        self._rows[step] = rows
        for name, output in outputs.items():
            if name not in self._buffers:
                shape = self._capacity, *output.shape[1:]
                self._buffers[name] = torch.empty(shape, device=self._device)
            self._buffers[name][step] = output
        self._count += len(rows)

    @property
    def rows(self) -> Tensor:
        return self._rows[: self._count]

    def values(self) -> dict[str, Tensor]:
        return {name: buffer[: self._count].cpu() for name, buffer in self._buffers.items()}


def _batch(run: Run, rows: Rows, views: Tensor) -> Batch:
    """Return the batch of rows [N], of which this worker has views [V, b, ...]."""
    on_device = views.to(run.device, non_blocking=True)
    inputs = run.data.inputs(on_device.flatten(0, 1)).tensor_split(len(views))
    return Batch(
        inputs[0],
        torch.from_numpy(rows),
        multi_hot(run.data.labels, rows).to(run.device),
        run.table.read(rows).to(run.device),
        run.workers,
        second=inputs[1] if len(inputs) > 1 else None,
    )


def _batches(run: Run, rows: Rows, epoch: int) -> list[Rows]:
    return global_batches(rows, run.schedule.batch_size, run.seed, run.iteration, epoch)


def _gathered(
    run: Run, epoch: int, steps: int, terms: Mapping[str, list[Tensor]], outputs: _EpochOutputs
) -> dict[str, Any]:
    """Return what all workers need to go on within an iteration, whatever their number then."""
    gather = run.workers.gather_any
    return {
        "epoch": epoch,
        "steps": steps,
        "terms": {name: gather(torch.stack(values)[None].cpu()) for name, values in terms.items()},
        "rows": gather(outputs.rows),
        "outputs": {name: gather(value) for name, value in outputs.values().items()},
        "random": _random_state(run.device),
    }


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the state of dropout's generators, which is the same on all workers."""
    state = {"cpu": torch.get_rng_state()}
    return state if device.type == "cpu" else state | {"cuda": torch.cuda.get_rng_state(device)}


def _set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


def _mean_terms(terms: Mapping[str, list[Tensor]], run: Run) -> dict[str, float]:
    own = torch.stack([torch.stack(values).mean() for values in terms.values()])
    means = (run.workers.sum(own) / run.workers.size).tolist()
    return dict(zip(terms, means, strict=True))
