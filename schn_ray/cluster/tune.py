"""Search for settings, confirm the best, and write the results; ``trials`` runs the trainings."""

from __future__ import annotations

import math
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from schn_ray.cluster.map_shards import RayShards
from schn_ray.cluster.session import WorkerRequest, cluster_cpus, cluster_gpus, ray_session
from schn_ray.cluster.shared_storage import require_shared
from schn_ray.cluster.train import with_absolute_paths
from schn_ray.cluster.trials import RayTuneSearcher, fit
from schn_ray.core.artefacts import open_artefact
from schn_ray.core.directories import AlreadyDone, resumable_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, is_finished, read_manifest
from schn_ray.core.progress import Progress
from schn_ray.core.storage.files import files_below, is_uri, join, remove_folder, sha256_and_size
from schn_ray.core.storage.mirror import Mirror, open_output
from schn_ray.core.workers import Workers
from schn_ray.data.shards.map_shards import map_locally
from schn_ray.data.store.reader import Store, open_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.results import read_figures
from schn_ray.report.tuning import report_search
from schn_ray.training.config import TrainConfig
from schn_ray.training.run import build_run, frozen_features, require_shareable, run_request
from schn_ray.tuning import confirm
from schn_ray.tuning.confirm import BASELINE, Confirmation, Gain, RunnerUp
from schn_ray.tuning.constraints import broken
from schn_ray.tuning.objectives import ENCODING_COST, VALIDATION_MAP, encoding_cost
from schn_ray.tuning.results import study_counts, write_results
from schn_ray.tuning.rows import TrialRow
from schn_ray.tuning.space import Space, check_space, starting_point
from schn_ray.tuning.stopping import StoppingRule
from schn_ray.tuning.study import Search
from schn_ray.tuning.study_file import STUDY
from schn_ray.tuning.trial import TRIALS
from schn_ray.tuning.trial_queue import Runs, TrialQueue, Trials
from schn_ray.tuning.trial_settings import METHOD_NAME, TrialSettings
from schn_ray.tuning.warm_start import read_earlier

_TUNE_DIR = ".ray-tune"
_TRIAL_FOLDERS = (TRIALS, confirm.CONFIRM)  # written by the processes of the trials
_ROUNDING = 1e-9  # ten shares of 0.1 are a GPU
_LOCAL_ROWS = 20_000  # smaller stores are encoded in this process before actors would start


@dataclass(frozen=True)
class SearchBudget:
    """The size of a search and its resources; none of them changes what a trial computes.

    Attributes:
        trials: number of trials in all, those of earlier calls included.
        at_once: trials at the same time; None: as many as fit into the cluster.
        workers: workers that share each batch of a trial, at least.
        most_workers: of a trial that takes more while they are free; None: no more.
        cpus: CPUs of each worker.
        gpus: GPUs of each worker, or the share of one; None: one if the cluster has enough.
        repeats: seeds for each step of the confirmation; 0: no confirmation.
        stopping: when no more trials begin, though there are fewer than ``trials``.
    """

    trials: int
    at_once: int | None = None
    workers: int = 1
    most_workers: int | None = None
    cpus: int = 1
    gpus: float | None = None
    repeats: int = 0
    stopping: StoppingRule = field(default_factory=StoppingRule)

    @property
    def request(self) -> WorkerRequest:
        """The workers of one trial."""
        most = self.most_workers or self.workers
        return WorkerRequest(self.workers, most, self.cpus, self.gpus)


def tune_on_ray(
    space: Space,
    base: TrialSettings,
    store_path: Path | str,
    out: Path | str,
    budget: SearchBudget,
    seed: int = 0,
    features: str | None = None,
    announce: Callable[[], None] = lambda: None,
    earlier: str | None = None,
) -> Manifest:
    """Search for settings; the same call continues after an interruption, or with more trials.

    Args:
        space: the settings that vary, and their ranges.
        base: all other settings; its seed is that of every trial.
        store_path: the store with training and validation rows, or its URI.
        out: the search's directory, or its URI.
        budget: may differ from call to call.
        seed: of the sampler.
        features: of the store's images, as ``embed`` wrote them; trials train heads on them. With a
            frozen backbone they are computed first, once for all trials.
        announce: called when all that can be checked is checked, before Ray is started.
        earlier: directory or URI of a finished search, whose trials the sampler knows if they fit.

    Returns:
        The manifest of the finished search.

    Raises:
        AlreadyDone: the search has so many trials already, and is confirmed.
        SchnRayError: the space does not fit the config, the store has no validation rows, or the
            cluster is too small.
    """
    check_space(space, base)
    store = open_store(store_path)
    _check_budget(space, budget)
    base = base.mapped(with_absolute_paths)
    _check_trial(space, base, store, budget)
    settings = {"space": space.model_dump(mode="json"), **base.to_json(), "seed": seed}
    _, made_from = run_request(base.first, store, features)
    known = None if earlier is None else read_earlier(earlier, space, base, made_from)
    if known is not None:
        print(f"schn-ray: {known}", file=sys.stderr)
        made_from = made_from | {"earlier": known.fingerprint}
    request = settings, made_from
    with (
        open_output(out) as mirror,
        resumable_directory(mirror.local, "search", *request, update=True) as draft,
    ):
        _refuse_if_done(mirror.local, budget)
        mirror.fetch_all(*_TRIAL_FOLDERS)
        if is_finished(mirror.local):
            open_artefact(mirror.local, "search").check([STUDY])
        announce()
        with ray_session():
            at_once = trials_at_once(budget)
            require_shared(out)
            draft.begin()
            mirror.send()
            rows = () if known is None else known.rows
            search = Search(mirror.local, space, base, seed, _counted_cost(store), rows)
            work = _Work(search, store, mirror, budget, at_once, features)
            shards = RayShards("embedding")
            with frozen_features(base.first, store, mirror.location, features, shards) as vectors:
                work.features = vectors
                confirmed = work.do()
            _tidy(mirror)
            write_results(mirror.local, search, confirmed)
            report_search(mirror.local, Path(mirror.location).name, search, confirmed)
            draft.counts |= study_counts(search, confirmed, budget.repeats, work.stopped)
            draft.counts["no_gain"] = budget.stopping.no_gain if work.stopped else None
        draft.known |= _known(mirror)
    return read_manifest(mirror.local, "search")


def _tidy(mirror: Mirror) -> None:
    """Remove files that killed processes have left."""
    remove_folder(join(mirror.location, _TUNE_DIR))
    if not is_uri(mirror.location):
        for folder in (TRIALS, confirm.CONFIRM):
            for path in (mirror.local / folder).glob(".*"):
                path.unlink()


def _known(mirror: Mirror) -> dict[str, tuple[str, int]]:
    """Return hash and size of the trials' files if they are not on this machine."""
    if not is_uri(mirror.location):
        return {}
    names = [below for below, _, _ in files_below(mirror.location)]
    of_trials = [name for name in names if name.split("/")[0] in _TRIAL_FOLDERS]
    return {name: sha256_and_size(join(mirror.location, name)) for name in of_trials}


def _refuse_if_done(out: Path, budget: SearchBudget) -> None:
    try:
        counts = read_manifest(out, "search").counts
    except SchnRayError:
        return  # unfinished
    rule = budget.stopping
    enough = (
        counts["trials"] >= budget.trials
        or counts["exhausted"]
        or (rule.no_gain is not None and rule.no_gain <= (counts["no_gain"] or 0))
        or (rule.hours is not None and counts["searched_seconds"] >= rule.hours * 3600)
    )
    if enough and budget.repeats in (0, counts["repeats"]):
        raise AlreadyDone(out, "search")


def _check_budget(space: Space, budget: SearchBudget) -> None:
    gpus = budget.gpus or 0
    if gpus < 0 or (gpus > 1 and gpus % 1):
        raise SchnRayError(f"--gpu {gpus:g}: a share of one GPU, such as 0.25, or a whole number")
    if gpus % 1 and budget.request.most > 1:
        raise SchnRayError(
            f"--gpu {gpus:g} with several workers a trial: workers that share a batch cannot share "
            "a GPU (NCCL refuses it); use one worker a trial, or a GPU for each"
        )
    if budget.repeats == 1:
        raise SchnRayError("--repeats 1: one seed has no interval; use 0, or 2 and more")
    if budget.repeats and space.multi_objective:
        raise SchnRayError(
            "--repeats confirms one winner, but a search with several objectives has none: train "
            "the points of pareto/ that you would use again with other seeds"
        )


def _check_trial(space: Space, base: TrialSettings, store: Store, budget: SearchBudget) -> None:
    """Fail in this process if every trial would fail."""
    _require_validation(store)
    first = base.config(starting_point(space, base, BASELINE))
    others = [c for c in base.by_method.values() if c.method.name != first.method.name]
    for config in (first, *others):
        require_shareable(config, store, budget.request.most)
        run = build_run(config, store, Workers(), torch.device("cpu"))
        limits = [limit for limit in space.limits if limit.figure == ENCODING_COST]
        if config is first and limits:
            hasher = run.hasher()
            costs = {ENCODING_COST: encoding_cost(hasher.network, hasher.input_shape)}
            if breaks := broken(limits, costs):
                raise SchnRayError(
                    f"the first trial, which the others are compared with, breaks a constraint: "
                    f"{breaks}: give start smaller networks, or the constraint another bound"
                )


def _require_validation(store: Store) -> None:
    """Refuse a store on whose validation rows no trial can be measured."""
    labels = store.labels[store.rows("validation")]
    if labels.shape[0] and labels.sum(axis=0).max(initial=0) >= 2:
        return
    if not store.classes:
        raise SchnRayError(
            f"{store.location}: no row has a label, and trials are compared by whether rows with "
            "the same label get near codes. Without labels there is nothing to tune by: schn-ray "
            "train --method itq, or schn-ray build"
        )
    rows = f"no two of its {labels.shape[0]} validation rows share a label"
    source = str(store.manifest.made_from.get("source", "SOURCE")).partition(":")[2] or "SOURCE"
    protocol = store.manifest.config["protocol"]
    raise SchnRayError(
        f"objective {VALIDATION_MAP} cannot be measured: "
        + (rows if labels.shape[0] else "the store has no validation rows")
        + f". Prepare it with more of them: schn-ray prepare {shlex.quote(source)} --protocol "
        f"{protocol} --set validation_share=0.2 --out {shlex.quote(store.location)}-validated"
    )


def _counted_cost(store: Store) -> Callable[[TrainConfig], float]:
    """Return what counts the encoding cost of settings, once for each network."""
    known: dict[str, float] = {}

    def cost(config: TrainConfig) -> float:
        network = config.model_dump_json(include={"bits", "backbone", "head", "method"})
        if network not in known:
            hasher = build_run(config, store, Workers(), torch.device("cpu")).hasher()
            known[network] = encoding_cost(hasher.network, hasher.input_shape)
        return known[network]

    return cost


class _Work:
    """A search while it runs: the study and its budget."""

    def __init__(
        self,
        search: Search,
        store: Store,
        mirror: Mirror,
        budget: SearchBudget,
        at_once: int,
        features: str | None,
    ) -> None:
        self.search, self.store, self._mirror = search, store, mirror
        self.out = mirror.location
        self.budget, self.at_once = budget, at_once
        self.features = features
        self._of_all_rows = features  # those that a search computes have no queries and no gallery
        self.stopped = ""  # why no more trials began
        self.space, self.base = search.space, search.base

    def do(self) -> Confirmation | None:
        """Run the remaining trials, then confirm the winner."""
        began, before = time.monotonic(), self.search.seconds()

        def stop() -> str:
            seconds = before + time.monotonic() - began
            rule, space = self.budget.stopping, self.space
            return rule.reason(self.search.rows(), space.objectives, space.close, seconds)

        trials = Trials(self.search, self.out, self.budget.trials, stop)
        if trials.left():
            self._timed(trials)
        self.stopped = trials.stopped
        if self.stopped:
            print(f"schn-ray: no more trials begin: {self.stopped}", file=sys.stderr)
        if self.search.exhausted:
            print(
                "schn-ray: the space has no more settings to try after "
                f"{self.search.count_started()} trials",
                file=sys.stderr,
            )
        if not confirm.needs_confirming(self.space, self.search.rows(), self.budget.repeats):
            return None
        return self._confirmed()

    def _timed(self, trials: Trials) -> None:
        began, sitting = time.monotonic(), self.search.record_session(None, 0.0, self.at_once)

        def ended() -> None:
            self.search.record_session(sitting, time.monotonic() - began, self.at_once)

        done = self.search.count_ended()
        self._run("searching", trials, max(self.budget.trials, done), done, ended)
        if trials.stopped:
            ended()  # the hours that are over are on record

    def _run(
        self,
        what: str,
        queue: TrialQueue,
        total: int,
        done: int = 0,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        with Progress(what, total, "trials", done) as progress:
            searcher = RayTuneSearcher(queue, progress, ended, self._mirror.send)
            tune_dir = join(self.out, _TUNE_DIR)
            fit(searcher, queue.left(), self.at_once, self._settings(), tune_dir)
        if searcher.stuck:
            raise SchnRayError(f"{searcher.stuck}. Correct that and run the same command again")

    def _settings(self) -> dict[str, Any]:
        return {
            "store": self.store.location,
            "features": self.features,
            "workers": self.budget.workers,
            "most_workers": self.budget.request.most,
            "cpus": self.budget.cpus,
            "gpus": self.budget.gpus,
            "objectives": list(self.space.measured),
        }

    def _confirmed(self) -> Confirmation:
        rows = {row.number: row for row in self.search.rows()}
        near = confirm.candidates(list(rows.values()), self.space)
        means: dict[int, float] = {}
        if len(near) > 1:
            seeds = confirm.deciding_seeds(self.base, self.budget.repeats)
            scored = self._scored("deciding", near, seeds)
            complete = [row.number for row in near if len(scored[row.number]) == len(seeds)]
            means = {n: sum(scored[n].values()) / len(seeds) for n in complete}
        winner = rows[confirm.winner_of(means) if means else near[0].number]
        others = {n: mean for n, mean in means.items() if n != winner.number}
        second = rows[confirm.winner_of(others)] if others and self.space.methods else None
        first = rows[BASELINE]
        # a first trial that breaks a constraint was trained, and can be compared with
        trained = VALIDATION_MAP in first.figures
        rivals = [first] if trained and first is not winner else []
        rivals += [second] if second is not None and second is not first else []
        gains = self._gains(winner, rivals) if rivals else {}
        runner_up = None
        if second is not None:
            method = second.values[METHOD_NAME]
            runner_up = RunnerUp(second.number, method, *gains[second.number])
        validation, queries = gains.get(BASELINE, (None, None))
        return Confirmation(winner.number, means, validation, queries, runner_up)

    def _gains(
        self, winner: TrialRow, rivals: list[TrialRow]
    ) -> dict[int, tuple[Gain | None, Gain | None]]:
        """Return the winner's gain over each rival, on validation rows and on test queries."""
        seeds = confirm.judging_seeds(self.base, self.budget.repeats)
        scored = self._scored("confirming", [*rivals, winner], seeds)
        measured: dict[int, dict[int, float]] = {}
        if len(self.store.rows("query")) and len(self.store.rows("gallery")):
            measured = {
                row.number: {seed: self._on_queries(row, seed) for seed in scored[row.number]}
                for row in [*rivals, winner]
            }
        return {
            rival.number: (
                self._gain(scored, rival, winner),
                self._gain(measured, rival, winner) if measured else None,
            )
            for rival in rivals
        }

    @staticmethod
    def _gain(
        scored: dict[int, dict[int, float]], rival: TrialRow, winner: TrialRow
    ) -> Gain | None:
        both = sorted(scored[rival.number].keys() & scored[winner.number].keys())
        pairs = ([scored[row.number][seed] for seed in both] for row in (rival, winner))
        return confirm.gain(*pairs)

    def _scored(self, what: str, rows: list[TrialRow], seeds: range) -> dict[int, dict[int, float]]:
        """Train rows with seeds; return number -> seed -> validation mAP of complete trainings."""
        jobs = confirm.jobs(self.out, self.base, rows, seeds)
        runs = Runs(jobs)
        self._run(what, runs, len(jobs))
        scored: dict[int, dict[int, float]] = {row.number: {} for row in rows}
        for job in jobs:
            outcome = runs.outcomes[job.number]
            number = rows[job.number % len(rows)].number
            if outcome.state == "complete":
                scored[number][job.config.seed] = outcome.figures[VALIDATION_MAP]
            else:
                print(f"schn-ray: {job.directory.name}: {outcome.reason}", file=sys.stderr)
        return scored

    def _on_queries(self, row: TrialRow, seed: int) -> float:
        (job,) = confirm.jobs(self.out, self.base, [row], range(seed, seed + 1))
        out = f"{job.directory.run}-queries"
        shards = map_locally if len(self.store) <= _LOCAL_ROWS else RayShards("encoding")
        with suppress(AlreadyDone):
            evaluate_run(
                job.directory.run,
                self.store.location,
                out,
                EvaluateConfig(examples=0),
                shards,
                self._of_all_rows,
            )
        score = read_figures(out).map
        if score is None:
            raise SchnRayError(
                f"{out}: no query has anything relevant in the gallery, so the winner cannot be "
                "measured on test queries: prepare the store with another split"
            )
        return score


def trials_at_once(budget: SearchBudget) -> int:
    """Return how many trials can run at the same time with all their workers.

    Args:
        budget: with ``at_once`` given, that number is checked and returned.

    Raises:
        SchnRayError: the cluster is too small; the message has the numbers.
    """
    budget.request.require_node()
    each = budget.workers * budget.cpus
    cpus, gpus = cluster_cpus(), cluster_gpus()
    room = cpus // each
    gpus_a_trial = budget.workers * (budget.gpus or 0)
    if gpus_a_trial:
        room = min(room, math.floor(gpus / gpus_a_trial + _ROUNDING))
    elif budget.gpus is None and gpus >= budget.workers:
        room = min(room, int(gpus) // budget.workers)
    if max(1, budget.at_once or 0) > (cpus // each if budget.gpus is None else room):
        request = f"{budget.at_once or 1} trials at once of {budget.workers} workers with "
        request += f"{budget.cpus} CPUs" + (f" and {budget.gpus:g} GPUs" if gpus_a_trial else "")
        raise SchnRayError(
            f"{request} each want {(budget.at_once or 1) * each} CPUs"
            + (f" and {(budget.at_once or 1) * gpus_a_trial:g} GPUs" if gpus_a_trial else "")
            + f", the cluster has {cpus}"
            + (f" and {gpus:g}" if gpus_a_trial else "")
            + ": use a smaller --at-once or --workers-per-trial, or add nodes"
        )
    return budget.at_once or room
