"""Train on Ray Train: the same run as ``training.train_here``, shared by workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import ray.train
import torch
from ray.train import Checkpoint, CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from schn_ray.cluster.session import ray_session, require_cpus
from schn_ray.config import TrainConfig
from schn_ray.distributed import Workers, current_workers
from schn_ray.errors import SchnRayError
from schn_ray.loop import Iteration, train
from schn_ray.manifest import Manifest, read_manifest, resumable_directory
from schn_ray.progress import Progress
from schn_ray.store import open_store
from schn_ray.training import (
    CHECKPOINTS,
    Recorder,
    build_run,
    count_run,
    read_metrics,
    require_shareable,
    run_request,
)

_SHOW_EVERY_S = 0.3


def train_on_ray(config: TrainConfig, store_path: Path, out: Path, workers: int = 1) -> Manifest:
    """Train with Ray Train; interrupted, the same call goes on from the last checkpoint.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        SchnRayError: ``out`` holds something else, the store can't be trained on, or the cluster
            has too few CPUs.
    """
    store = open_store(store_path)
    with resumable_directory(out, "run", *run_request(config, store)) as draft:
        # every mistake that one process can find is found before workers start
        require_shareable(config, store, workers)
        build_run(config, store, Workers(), torch.device("cpu"))
        settings = {
            "config": _with_absolute_paths(config).model_dump(),
            "store": str(store_path.resolve()),
            "out": str(out.resolve()),
        }
        with ray_session():
            require_cpus(workers)
            with _shown(out, config.schedule.iterations):
                _fit(settings, out, workers)
        draft.counts |= count_run(out, store) | {"workers": workers}
    return read_manifest(out, "run")


def _with_absolute_paths(config: TrainConfig) -> TrainConfig:
    weights = config.network.weights
    if weights is None or not Path(weights).is_file():
        return config
    network = config.network.model_copy(update={"weights": str(Path(weights).resolve())})
    return config.model_copy(update={"network": network})  # a worker's directory is another one


def _fit(settings: dict[str, Any], out: Path, workers: int) -> None:
    use_gpu = ray.cluster_resources().get("GPU", 0) >= workers
    # codes and counts are gathered on the CPU, features and gradients where the networks are
    backend = "cpu:gloo,cuda:nccl" if use_gpu else "gloo"
    trainer = TorchTrainer(
        _worker,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=workers, use_gpu=use_gpu, resources_per_worker={"CPU": 1}
        ),
        torch_config=TorchConfig(backend=backend, timeout_s=1800),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=str(out.resolve()),
            failure_config=FailureConfig(max_failures=3),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
        ),
    )
    try:
        trainer.fit()
    except ray.train.WorkerGroupError as error:
        raise _users_error(error) or error from error
    except SystemExit as error:  # what Ray Train makes of Ctrl-C
        raise KeyboardInterrupt from error


def _users_error(error: ray.train.WorkerGroupError) -> SchnRayError | None:
    failures = error.worker_failures.values()
    return next((f for f in map(_cause, failures) if isinstance(f, SchnRayError)), None)


def _cause(failure: BaseException) -> BaseException:
    return getattr(failure, "cause", None) or failure


def _worker(settings: dict[str, Any]) -> None:
    """Train on one worker of the group; the first one records and brings the checkpoints."""
    config = TrainConfig.model_validate(settings["config"])
    store = open_store(Path(settings["store"]))
    workers = current_workers()
    run = build_run(config, store, workers, get_device())
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as directory:
            run.load(Path(directory))
    recorder = Recorder(Path(settings["out"]), run) if workers.rank == 0 else None
    if recorder:
        recorder.begin()

    def report(measured: Iteration, best: bool) -> None:
        if not recorder:
            ray.train.report({})
            return
        recorder.record(measured, best)
        with TemporaryDirectory() as directory:
            run.save(Path(directory))
            ray.train.report(asdict(measured), checkpoint=Checkpoint.from_directory(directory))

    train(run, report)
    if recorder:
        recorder.finish(store)


@contextmanager
def _shown(out: Path, iterations: int) -> Iterator[None]:
    """Show a live line that follows the metrics which the first worker writes."""
    done = threading.Event()
    before = len(read_metrics(out))
    with Progress("training", iterations, "iterations", before) as progress:

        def follow() -> None:
            while not done.wait(_SHOW_EVERY_S):
                lines = read_metrics(out)
                progress.advance(len(lines) - progress.done, _note(lines))

        thread = threading.Thread(target=follow, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            lines = read_metrics(out)
            progress.advance(len(lines) - progress.done, _note(lines))


def _note(lines: list[dict[str, Any]]) -> str:
    if not lines:
        return ""
    last = lines[-1]
    score = last["validation_map"]
    return f"loss {sum(last['loss'].values()):.3g}" + (
        f", validation mAP {score:.3f}" if score is not None else ""
    )
