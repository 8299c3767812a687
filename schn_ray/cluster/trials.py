"""Run the trainings of an agenda on Ray Tune: its processes, its places, its retries.

Ray Tune's own OptunaSearch is not used. It tells the study that a trial which was stopped early is
complete with its early figure, leaves interrupted trials running in the study for ever, proposes
the same again after a restart with the same seed, and remembers in a file that lags behind the
study. ``RayTuneSearcher`` is the same interface
to Ray Tune, with ``tuning.study.Search`` behind it.
"""

from __future__ import annotations

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
from schn_ray.training.config import TrainConfig
from schn_ray.training.recorder import read_metrics
from schn_ray.tuning.study import Outcome
from schn_ray.tuning.trial import ReportScore, Train, TrialDir, run_trial, scores, train_trial
from schn_ray.tuning.trial_queue import Job, TrialQueue

_MOST_DEATHS = 3  # of a trial's process, before the trial counts as failed
_LOOK_EVERY_S = 0.2
_DRIVER = {"memory": 2**20}  # Ray wants a resource; a share of a CPU could be missing to a worker


class RayTuneSearcher(Searcher):
    """Ray Tune asks it for trials and tells it of results; it passes both on to an agenda."""

    def __init__(
        self,
        agenda: TrialQueue,
        shown: Progress,
        ended: Callable[[], None],
        keep: Callable[[], None],
    ) -> None:
        super().__init__()  # naming a metric, Tune would insist on it in every result
        self._agenda, self._shown, self._ended, self._keep = agenda, shown, ended, keep
        self._jobs: dict[str, Job] = {}
        self.stuck = ""  # why no trial can go on: the machine's fault, not the settings'

    def set_search_properties(self, *_: object, **__: object) -> bool:
        """See Ray Tune; there is no space of Ray Tune's to take."""
        return True

    def suggest(self, trial_id: str) -> dict[str, Any] | str:
        """Return the next job as settings of ``_trial``."""
        job = None if self.stuck else self._agenda.next()
        if job is None:
            return str(Searcher.FINISHED)
        self._jobs[trial_id] = job
        self._keep()
        # as text: Tune takes dictionaries apart
        return {"config": job.config.model_dump_json(), "run": job.directory.run}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass on what a trial reported."""
        job = self._jobs.get(trial_id)
        if job is None:
            return
        if "stuck" in result:  # it stays unfinished in the study, and is run again
            self.stuck = f"{job.directory.name}: {result['stuck']}"
            del self._jobs[trial_id]
        elif "outcome" in result:
            self._finish(trial_id, Outcome(**json.loads(result["outcome"])))
        elif self._agenda.report_score(job.number, result["iteration"], result["score"]):
            write_file(job.directory.stop, b"")  # the trial looks for it as soon as this returns

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Record a trial that ended without saying how: its process died too often."""
        if trial_id in self._jobs:
            if result and ("outcome" in result or "stuck" in result):
                self.on_trial_result(trial_id, result)
            else:
                reason = f"its process died {_MOST_DEATHS + 1} times; out of memory, perhaps"
                self._finish(trial_id, Outcome("failed", reason=reason))

    def _finish(self, trial_id: str, outcome: Outcome) -> None:
        job = self._jobs.pop(trial_id)
        self._agenda.finish(job.number, outcome)
        remove_file(job.directory.stop)
        self._ended()
        self._keep()
        self._shown.advance(1, self._agenda.note())

    def save(self, checkpoint_path: str) -> None:
        """Keep nothing for Ray Tune: the study is on disk."""
        Path(checkpoint_path).write_bytes(b"")

    def restore(self, checkpoint_path: str) -> None:
        """Refuse; a search goes on from its study."""
        raise NotImplementedError

    def __getstate__(self) -> dict[str, Any]:
        return {}


def fit(
    asker: RayTuneSearcher, jobs: int, at_once: int, settings: dict[str, Any], tunes_own: str
) -> None:
    """Run an agenda's jobs on Ray Tune, ``at_once`` side by side, until there are no more."""
    remove_folder(tunes_own)
    tuner = ray.tune.Tuner(
        ray.tune.with_resources(
            ray.tune.with_parameters(_trial, settings=settings), _resources(settings, at_once)
        ),
        tune_config=TuneConfig(
            search_alg=asker,
            num_samples=jobs,
            max_concurrent_trials=at_once,
            reuse_actors=settings["workers"] == 1,  # a process has imported torch already
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=tunes_own,
            failure_config=FailureConfig(max_failures=_MOST_DEATHS),
            verbose=0,
        ),
    )
    tuner.fit()
    remove_folder(tunes_own)


def _resources(settings: dict[str, Any], at_once: int) -> PlacementGroupFactory:
    if settings["workers"] > 1:
        return PlacementGroupFactory([_DRIVER])  # its workers ask for themselves
    demand = WorkerRequest(at_once, at_once, settings["cpus"], settings["gpus"])
    return PlacementGroupFactory([demand.resources()])


def _trial(config: dict[str, Any], settings: dict[str, Any]) -> None:
    """Run one trial in a process of Ray Tune's."""

    def tell(iteration: int, score: float) -> None:
        ray.tune.report({"iteration": iteration, "score": score})

    trained = TrainConfig.model_validate_json(config["config"])
    train = train_trial if settings["workers"] == 1 else _on_workers(settings)
    place, store = TrialDir(config["run"]), settings["store"]
    try:
        outcome = run_trial(trained, store, place, tell, train, settings["objectives"])
    except (SchnRayError, OSError) as error:
        ray.tune.report({"stuck": str(error)})
    else:
        ray.tune.report({"outcome": json.dumps(asdict(outcome))})


def _on_workers(settings: dict[str, Any]) -> Train:
    """Return a training by a nested Ray Train run, whose workers are beside this process."""
    demand = WorkerRequest(
        settings["workers"], settings["workers"], settings["cpus"], settings["gpus"]
    )

    def train(config: TrainConfig, store: str, place: TrialDir, tell: ReportScore) -> None:
        failures: list[BaseException] = []

        def work() -> None:
            try:
                train_on_ray(config, store, place.run, demand, stop=place.stop)
            except AlreadyDone:
                pass
            except BaseException as error:
                failures.append(error)

        told = len(scores(read_metrics(place.run)))
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        while thread.is_alive():
            thread.join(_LOOK_EVERY_S)
            # only a thread of Tune's may report: this one
            for iteration, score in scores(read_metrics(place.run))[told:]:
                tell(iteration, score)
                told += 1
        if failures:
            raise failures[0]

    return train
