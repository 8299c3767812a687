"""Run the trainings of a trial queue on Ray Tune, which has the processes and the retries.

Ray Tune's own OptunaSearch is not used, for four reasons. It records a trial that was stopped early
as complete, with its early figure. It leaves interrupted trials running in the study for ever.
After a restart with the same seed it proposes the same settings again. Its own state is in a file
that lags behind the study. ``RayTuneSearcher`` has the same interface to Ray Tune, and passes
everything on to ``tuning.study.Search``.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.tune
from ray.tune import FailureConfig, PlacementGroupFactory, RunConfig, TuneConfig
from ray.tune.search import Searcher

from schn_ray.cluster.session import WorkerRequest
from schn_ray.cluster.train import train_on_ray
from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.progress import Progress
from schn_ray.core.storage.files import remove_file, remove_folder, write_file
from schn_ray.training.config import TrainConfig, config_from
from schn_ray.training.metrics_file import read_metrics
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.trial import (
    ReportScore,
    Train,
    TrialDir,
    open_inputs,
    run_trial,
    scores,
    train_trial,
)
from schn_ray.tuning.trial_queue import Job, TrialQueue

_MOST_DEATHS = 3  # of a trial's process, before the trial counts as failed
_POLL_S = 0.2
# Ray requires a resource; a share of a CPU could be the one that a worker lacks
_DRIVER = {"memory": 2**20}
# the process of a place runs many trials of one search: they share what they are trained on
_opened = functools.lru_cache(maxsize=1)(open_inputs)


class RayTuneSearcher(Searcher):
    """Hand the jobs of a trial queue to Ray Tune, and pass its results on to the queue.

    Args:
        queue: the trials, or the runs of a confirmation.
        progress: advanced by one for each job that ends.
        ended: called after each job that ends.
        save_study: called after each change of the study, to send it to its URI.

    Attributes:
        stuck: why no trial can go on, if the machine is at fault and not the settings; else "".
    """

    def __init__(
        self,
        queue: TrialQueue,
        progress: Progress,
        ended: Callable[[], None],
        save_study: Callable[[], None],
    ) -> None:
        super().__init__()  # if a metric is named, Tune requires it in every result
        self._queue, self._progress = queue, progress
        self._ended, self._save_study = ended, save_study
        self._jobs: dict[str, Job] = {}
        self.stuck = ""

    def set_search_properties(self, *_: object, **__: object) -> bool:
        """Accept Ray Tune's properties; the search space is not Ray Tune's."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the next job as the config of ``_trial``."""
        job = None if self.stuck else self._queue.next()
        if job is None:
            return str(Searcher.FINISHED)
        self._jobs[trial_id] = job
        self._save_study()
        # as text: Tune flattens dictionaries
        return {"config": job.config.model_dump_json(), "run": job.directory.run}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a trial's report on to the queue."""
        job = self._jobs.get(trial_id)
        if job is None:
            return
        if "stuck" in result:  # the trial stays unfinished in the study, and is run again
            self.stuck = f"{job.directory.name}: {result['stuck']}"
            del self._jobs[trial_id]
        elif "outcome" in result:
            self._finish(trial_id, Outcome(**json.loads(result["outcome"])))
        elif self._queue.report_score(job.number, result["iteration"], result["score"]):
            write_file(job.directory.stop, b"")  # the trial checks for it as soon as this returns

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record as failed a trial that ended without an outcome: its process died too often."""
        if trial_id in self._jobs:
            if result and ("outcome" in result or "stuck" in result):
                self.on_trial_result(trial_id, result)
            else:
                reason = f"its process died {_MOST_DEATHS + 1} times; out of memory, perhaps"
                self._finish(trial_id, Outcome("failed", reason=reason))

    def _finish(self, trial_id: str, outcome: Outcome) -> None:
        job = self._jobs.pop(trial_id)
        self._queue.finish(job.number, outcome)
        remove_file(job.directory.stop)
        self._ended()
        self._save_study()
        self._progress.advance(1, self._queue.note())

    def save(self, checkpoint_path: str) -> None:
        """Write an empty file: the state is in the study on disk."""
        Path(checkpoint_path).write_bytes(b"")

    def restore(self, checkpoint_path: str) -> None:
        """Refuse: a search continues from its study."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {}


def fit(
    searcher: RayTuneSearcher, jobs: int, at_once: int, settings: dict[str, Any], tune_dir: str
) -> None:
    """Run a queue's jobs on Ray Tune until there are no more.

    Args:
        searcher: hands out the jobs.
        jobs: their largest number.
        at_once: jobs that run at the same time.
        settings: ``store``, ``features``, ``workers``, ``most_workers``, ``cpus``, ``gpus`` and
            ``objectives`` of
            every job.
        tune_dir: directory or URI for Ray Tune's own files; removed before and after.
    """
    remove_folder(tune_dir)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(
            ray.tune.with_parameters(_trial, settings=settings), _resources(settings, at_once)
        ),
        tune_config=TuneConfig(
            search_alg=searcher,
            num_samples=jobs,
            max_concurrent_trials=at_once,
            reuse_actors=settings["most_workers"] == 1,  # saves importing torch in a new process
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=tune_dir,
            failure_config=FailureConfig(max_failures=_MOST_DEATHS),
            verbose=0,
        ),
    )
    tuner.fit()
    remove_folder(tune_dir)


def _resources(settings: dict[str, Any], at_once: int) -> PlacementGroupFactory:
    if settings["most_workers"] > 1:
        return PlacementGroupFactory([_DRIVER])  # its workers request their own
    request = WorkerRequest(at_once, at_once, settings["cpus"], settings["gpus"])
    return PlacementGroupFactory([request.resources()])


def _trial(config: dict[str, Any], settings: dict[str, Any]) -> None:
    """Run one trial in a process of Ray Tune."""

    def tell(iteration: int, score: float) -> None:
        ray.tune.report({"iteration": iteration, "score": score})

    trained = config_from(json.loads(config["config"]))
    alone = functools.partial(train_trial, features=settings["features"], opened=_opened)
    train = alone if settings["most_workers"] == 1 else _on_workers(settings)
    trial_dir, store = TrialDir(config["run"]), settings["store"]
    try:
        outcome = run_trial(trained, store, trial_dir, tell, train, settings["objectives"])
    except (SchnRayError, OSError) as error:
        ray.tune.report({"stuck": str(error)})
    else:
        ray.tune.report({"outcome": json.dumps(asdict(outcome))})


def _on_workers(settings: dict[str, Any]) -> Train:
    """Return a function that trains by a nested Ray Train run, with workers of its own."""
    request = WorkerRequest(
        settings["workers"], settings["most_workers"], settings["cpus"], settings["gpus"]
    )

    def train(config: TrainConfig, store: str, trial_dir: TrialDir, tell: ReportScore) -> None:
        failures: list[BaseException] = []

        def work() -> None:
            try:
                stop, features = trial_dir.stop, settings["features"]
                train_on_ray(config, store, trial_dir.run, request, stop=stop, features=features)
            except AlreadyDone:
                pass
            except BaseException as error:
                failures.append(error)

        reported = len(scores(read_metrics(trial_dir.run)))
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_POLL_S)
            # Tune takes reports of this thread only
            for iteration, score in scores(read_metrics(trial_dir.run))[reported:]:
                tell(iteration, score)
                reported += 1
        if failures:
            raise failures[0]

    return train
