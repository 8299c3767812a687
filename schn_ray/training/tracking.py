"""A run's settings and measurements in MLflow, Weights & Biases or trackio.

The process that was asked to train sends the lines of ``metrics.jsonl`` as they come, from a thread
of its own. So neither a training step nor a worker waits for a tracker, and one that fails or does
not answer is said once, and training goes on.

RUN/tracker.json has the tracker's run and the last iteration that was sent. It is written before
the iteration is sent: a run that goes on sends nothing twice.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import PurePath
from queue import Queue
from typing import Any, Protocol

from schn_ray.core.documents import BadDocument, parse_json
from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.settings import flattened
from schn_ray.core.storage.files import as_location, join, read_file, write_file
from schn_ray.training.metrics_file import scalars

TRACKER_FILE = "tracker.json"
_PROJECT = "schn-ray"
_END_S, _INTERRUPTED_S = 60.0, 3.0  # most seconds that a finished, an interrupted run waits
_PARAMS, _PARAM_LENGTH = 100, 500  # MLflow's limits for one request, and for a value before 2.8

Line = Mapping[str, Any]
Send = Callable[[list[dict[str, Any]]], None]
"""Takes all lines of a run so far, and returns at once."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker calls a run, and what it has of it.

    Attributes:
        tracker: its name.
        id: of the run; "" before there is one.
        name: of the run, as people see it.
        settings: name -> value.
        iteration: the last one that was sent.
    """

    tracker: str
    id: str
    name: str
    settings: Mapping[str, Any] = field(repr=False)
    iteration: int = 0


class Tracker(Protocol):
    """A run in a tracker, new or gone on with.

    Attributes:
        id: of the run.
        iteration: the last one that the tracker itself knows of; None: it does not say.
    """

    id: str
    iteration: int | None

    def log(self, iteration: int, values: dict[str, float]) -> None:
        """Send the measurements of an iteration."""

    def end(self, finished: bool) -> None:
        """Send what is left; tell whether the run is finished."""


class MlflowRun:
    """A run in MLflow, at ``MLFLOW_TRACKING_URI``; without it, in ``mlflow.db``.

    Args:
        run: without an id, a new run is made.
    """

    def __init__(self, run: TrackedRun) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Param

        self._client = MlflowClient()
        if run.id:
            self.id = run.id
            self._client.update_run(self.id, status="RUNNING")
            steps = self._client.get_metric_history(self.id, "images_per_second")
            self.iteration = max((metric.step for metric in steps), default=0)
            return
        made = self._client.create_run(self._experiment(), run_name=run.name)
        self.id, self.iteration = made.info.run_id, 0
        params = [Param(k, str(v)[:_PARAM_LENGTH]) for k, v in run.settings.items()]
        for start in range(0, len(params), _PARAMS):
            self._client.log_batch(self.id, params=params[start : start + _PARAMS])

    def log(self, iteration: int, values: dict[str, float]) -> None:
        """Send all of an iteration in one request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, iteration) for name, value in values.items()]
        self._client.log_batch(self.id, metrics=metrics)

    def end(self, finished: bool) -> None:
        """Set the run's status."""
        self._client.set_terminated(self.id, "FINISHED" if finished else "KILLED")

    def _experiment(self) -> str:
        if given := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return given
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or _PROJECT
        experiment = self._client.get_experiment_by_name(name)
        if experiment is not None:
            return str(experiment.experiment_id)
        return str(self._client.create_experiment(name))


class WandbRun:
    """A run in Weights & Biases; ``WANDB_MODE=offline`` writes it to a folder.

    Args:
        run: without an id, a new run is made.
    """

    def __init__(self, run: TrackedRun) -> None:
        import wandb

        self.id = run.id or uuid.uuid4().hex[:8]
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or _PROJECT,
            id=self.id,
            name=run.name,
            config=dict(run.settings),
            resume="allow",
            settings=wandb.Settings(console="off", reinit="create_new"),
        )
        step = self._run.step  # of the next line; 0 offline
        self.iteration = step - 1 if step else None

    def log(self, iteration: int, values: dict[str, float]) -> None:
        """Hand an iteration to the library, which sends it."""
        self._run.log(values, step=iteration, commit=True)  # else it waits for the next one

    def end(self, finished: bool) -> None:
        """Wait until all is sent."""
        self._run.finish(exit_code=0 if finished else 1)


class TrackioRun:
    """A run in trackio, on this machine or at ``TRACKIO_SPACE_ID``.

    Args:
        run: without an id, a new run is made.
    """

    iteration: int | None = None

    def __init__(self, run: TrackedRun) -> None:
        import trackio

        self.id = run.id or f"{run.name}-{uuid.uuid4().hex[:8]}"  # runs are known by their names
        with redirect_stdout(sys.stderr):  # a command's result is alone on standard output
            self._run = trackio.init(
                project=os.environ.get("TRACKIO_PROJECT") or _PROJECT,
                name=self.id,
                config=dict(run.settings),
                resume="allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, iteration: int, values: dict[str, float]) -> None:
        """Hand an iteration to the library, which writes it."""
        self._run.log(values, step=iteration)

    def end(self, finished: bool) -> None:
        """Wait until all is written."""
        with redirect_stdout(sys.stderr):
            self._run.finish()


TRACKERS: dict[str, Callable[[TrackedRun], Tracker]] = {
    "mlflow": MlflowRun,
    "wandb": WandbRun,
    "trackio": TrackioRun,
}


def require_tracker(name: str) -> None:
    """Check for a tracker's library before training, not after hours of it.

    Args:
        name: of the tracker.

    Raises:
        SchnRayError: no such tracker, its library is not installed, or nobody is logged in.
    """
    if name not in TRACKERS:
        raise SchnRayError(
            f"no tracker '{name}'{nearest(name, list(TRACKERS)) or '.'} There are: "
            + ", ".join(TRACKERS)
        )
    if find_spec(name) is None:
        raise SchnRayError(
            f"--track {name} needs a library that is not installed: pip install 'schn-ray[{name}]'"
        )
    if name == "wandb" and os.environ.get("WANDB_MODE", "online") == "online":
        import wandb

        if not wandb.login(prompt=False):  # later, it would ask on the terminal
            raise SchnRayError(
                "--track wandb: nobody is logged in. Run 'wandb login', set WANDB_API_KEY, or set "
                "WANDB_MODE=offline"
            )


@contextmanager
def tracked(tracker: str | None, out: str, settings: Mapping[str, Any]) -> Iterator[Send]:
    """Let the block send a run's lines to a tracker.

    Args:
        tracker: its name; None: nothing is sent.
        out: the run's directory, or its URI.
        settings: of the run, by section.

    Yields:
        A function that takes all lines so far; those that were sent before are left out.
    """
    if tracker is None:
        yield lambda lines: None
        return
    sender = _Sender(out, _known(tracker, out, flattened(settings)))
    try:
        yield sender.send
    except BaseException:
        sender.end(finished=False)
        raise
    sender.end(finished=True)


class _Sender:
    """Sends lines on a thread."""

    def __init__(self, out: str, run: TrackedRun) -> None:
        self._out, self._run, self._queued = out, run, 0
        self._queue: Queue[Line | None] = Queue()
        self._finished = self._abandoned = False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def send(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if line["iteration"] > self._queued:  # a fit that goes on repeats its first ones
                self._queued = line["iteration"]
                self._queue.put(line)

    def end(self, finished: bool) -> None:
        self._finished = finished
        self._queue.put(None)
        self._thread.join(_END_S if finished else _INTERRUPTED_S)
        if self._thread.is_alive():
            self._abandoned = True
            self._warn("it does not answer")

    def _work(self) -> None:
        try:
            tracker = TRACKERS[self._run.tracker](self._run)
            sent = self._run.iteration if tracker.iteration is None else tracker.iteration
            self._record(tracker.id, sent)
            while (line := self._queue.get()) is not None:
                iteration = line["iteration"]
                if iteration > self._run.iteration:
                    self._record(tracker.id, iteration)
                    tracker.log(iteration, dict(scalars(line)))
            tracker.end(self._finished)
        except Exception as error:  # a library may raise anything
            self._warn(f"{type(error).__name__}: {error}".splitlines()[0])

    def _record(self, id: str, iteration: int) -> None:
        self._run = replace(self._run, id=id, iteration=iteration)
        values = asdict(self._run)
        del values["settings"]
        if not self._abandoned:
            write_file(join(self._out, TRACKER_FILE), json.dumps(values).encode())

    def _warn(self, why: str) -> None:
        print(
            f"schn-ray: {self._run.tracker} has not got all of the run, training goes on without "
            f"it ({why}); RUN/metrics.jsonl has all",
            file=sys.stderr,
        )


def _known(tracker: str, out: str, settings: Mapping[str, Any]) -> TrackedRun:
    """Return the run that an earlier process has begun in the tracker, or a new one."""
    run = TrackedRun(tracker, "", PurePath(as_location(out)).name, settings)
    try:
        values = parse_json(read_file(join(out, TRACKER_FILE)), TRACKER_FILE)
        if values["tracker"] != tracker:
            return run
        return replace(run, id=str(values["id"]), iteration=int(values["iteration"]))
    except (OSError, BadDocument, KeyError, TypeError, ValueError):
        return run
