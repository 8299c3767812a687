"""Train on Ray Train: the same run as ``training.run.train_locally``, shared by workers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from schn_ray.cluster.map_shards import RayShards
from schn_ray.cluster.metrics import TrainingFigures
from schn_ray.cluster.session import WorkerRequest, ray_session
from schn_ray.cluster.shared_storage import require_shared
from schn_ray.core import workers as distributed
from schn_ray.core.atomic_files import PARTIAL, CannotWrite
from schn_ray.core.documents import BadDocument, parse_json
from schn_ray.core.errors import SchnRayError
from schn_ray.core.interrupts import time_to_save
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.files import is_uri, join, kind_at, read_file, remove_file, write_file
from schn_ray.data.store.reader import open_store
from schn_ray.methods.registry import with_absolute_path
from schn_ray.models.stored_features import StoredFeatures
from schn_ray.training.config import TrainConfig, config_from
from schn_ray.training.loop import Iteration
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.recorder import CHECKPOINTS
from schn_ray.training.run import (
    build_run,
    conclude_run,
    finish_run,
    frozen_features,
    open_run,
    require_libraries,
    require_shareable,
)
from schn_ray.training.state import Diverged, Run, Steps, StoppedMidway
from schn_ray.training.tracking import Send, tracked
from schn_ray.training.watch import TrainingProgress, watched
from schn_ray.tuning.trial import Stopped

ONE_WORKER = WorkerRequest()
_RESIZE_INTERVAL_S = 30.0
_LOCAL_POLL_S = 0.3
_REMOTE_POLL_S = 5.0  # of an object store
_HALT_POLL_S = 0.2
_REMOTE_HALT_POLL_S = 1.0
_HALT = f"{CHECKPOINTS}/.halt"  # a file: workers that see it save the run where it is, and end
_STEPS = f"{CHECKPOINTS}/.steps"  # a file: how far the present iteration is
_STOPPED = "stopped"  # a worker returns it in place of an error message


def train_on_ray(
    config: TrainConfig,
    store_path: Path | str,
    out: Path | str,
    request: WorkerRequest = ONE_WORKER,
    tensorboard: bool = False,
    stop: str | None = None,
    features: str | None = None,
    keep_checkpoints: bool = False,
    track: str | None = None,
) -> Manifest:
    """Train with Ray Train; after an interruption the same call goes on from the last checkpoint.

    Args:
        config: the run's settings.
        store_path: the store with the training rows, or its URI.
        out: the run's directory, or its URI.
        request: how many workers share each batch; their CPUs decode images. With
            ``least < most``, a run that loses a node goes on with fewer workers, and takes more
            when nodes come.
        tensorboard: write ``RUN/tensorboard`` too.
        features: of the store's images, as ``embed`` wrote them; the head alone is trained.
        keep_checkpoints: of the finished run, too.
        track: the tracker that gets settings and measurements, from this process.
        stop: path or URI of a file; as soon as it exists, the run ends after its current iteration.

    Returns:
        The manifest of the finished run.

    Raises:
        AlreadyDone: ``out`` holds the finished run of the same request.
        SchnRayError: ``out`` holds something else, the store cannot be trained on, or the cluster
            has too few CPUs.
        Stopped: ``stop`` exists.
    """
    store = open_store(store_path)
    with open_run(out, config, store, features, keep_checkpoints) as (mirror, draft):
        run = mirror.location
        # fail before workers start if one process can find the mistake
        require_libraries(tensorboard, track)
        require_shareable(config, store, request.most)
        checked = build_run(config, store, distributed.Workers(), torch.device("cpu"))
        settings = {
            "config": with_absolute_paths(config).model_dump(),
            "store": store.location,
            "out": run,
            "threads": request.cpus,
            "tensorboard": tensorboard,
            "stop": stop,
            "halt": join(run, _HALT),
            "steps": join(run, _STEPS),
        }
        with ray_session():
            request.require()
            require_shared(run)
            mirror.send()
            shards = RayShards("embedding", request.most)
            with (
                frozen_features(config, store, run, features, shards) as vectors,
                tracked(track, run, config.model_dump(mode="json")) as send,
                _shown(run, checked.learner.most_iterations(config.schedule), send),
            ):
                _fit_or_save_and_end(settings | {"features": vectors}, request)
        conclude_run(mirror, draft, store)
    return read_manifest(mirror.local, "run")


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Return a config that has the same meaning in another working directory.

    Args:
        config: its weights, and the file of a method of your own, may be relative paths.
    """
    name = with_absolute_path(config.method.name)
    method = config.method.model_copy(update={"name": name})
    backbone, weights = config.backbone, config.backbone.weights
    if weights is not None and Path(weights).is_file():
        backbone = backbone.model_copy(update={"weights": str(Path(weights).resolve())})
    return config.model_copy(update={"method": method, "backbone": backbone})


def _fit_or_save_and_end(settings: dict[str, Any], request: WorkerRequest) -> None:
    """Train; SIGTERM has the workers save the run where it is first, where time allows."""
    halt = settings["halt"]
    _remove(settings)

    def ask() -> None:
        with suppress(OSError):  # then the run ends without it
            write_file(halt, b"")

    with time_to_save(on_request=ask):
        try:
            _fit_while_progressing(settings, request)
        finally:
            _remove(settings)


def _remove(settings: dict[str, Any]) -> None:
    """Remove the files by which this process and the workers speak."""
    for name in ("halt", "steps"):
        remove_file(settings[name])


def _fit_while_progressing(settings: dict[str, Any], request: WorkerRequest) -> None:
    """Go on after any number of failures, as long as iterations are finished between them."""
    while True:
        before = len(read_metrics(settings["out"]))
        try:
            return _fit(settings, request)
        except ray.train.WorkerGroupError as error:
            if len(read_metrics(settings["out"])) == before:
                raise _our_error(error) or error from error


def _fit(settings: dict[str, Any], request: WorkerRequest) -> None:
    resources = request.resources()
    # codes and counts are gathered on the CPU, features and gradients on the networks' device
    backend = "cpu:gloo,cuda:nccl" if "GPU" in resources else "gloo"
    elastic = request.least < request.most
    trainer = TorchTrainer(
        _worker,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=(request.least, request.most) if elastic else request.least,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=_RESIZE_INTERVAL_S,
        ),
        torch_config=TorchConfig(backend=backend, timeout_s=1800),
        run_config=RunConfig(
            name=CHECKPOINTS,
            storage_path=settings["out"],
            failure_config=FailureConfig(max_failures=3),
        ),
    )
    try:
        failure = trainer.fit().return_value
    except SystemExit as error:  # Ray Train turns Ctrl-C into it
        raise KeyboardInterrupt from error
    if failure == _STOPPED:
        raise Stopped
    if failure is not None:
        raise SchnRayError(failure)


def _our_error(error: ray.train.WorkerGroupError) -> SchnRayError | None:
    failures = error.worker_failures.values()
    return next((f for f in map(_cause, failures) if isinstance(f, SchnRayError)), None)


def _cause(failure: BaseException) -> BaseException:
    return getattr(failure, "cause", None) or failure


def _worker(settings: dict[str, Any]) -> str | None:
    """Train on one worker of the group; return an error after which trying again is useless."""
    config = config_from(settings["config"])
    store = open_store(settings["store"])
    threads = max(2, settings["threads"])
    workers, features = distributed.current_workers(), settings["features"]
    stored = None if features is None else StoredFeatures(features)
    run = build_run(config, store, workers, get_device(), threads, stored)

    def reported(measured: Iteration) -> None:
        ray.train.report(asdict(measured))
        # all workers must stop after the same iteration, even if only some see the file already
        if settings["stop"] and run.workers.any(kind_at(settings["stop"]) is not None):
            raise Stopped

    try:
        with _attended(settings, run) as requested:
            run.stop_requested = requested.is_set
            finish_run(run, store, settings["out"], reported, settings["tensorboard"])
    except (Diverged, CannotWrite) as error:
        return str(error)
    except (Stopped, StoppedMidway):
        return _STOPPED
    return None


@contextmanager
def _attended(settings: dict[str, Any], run: Run) -> Iterator[threading.Event]:
    """Yield an event that the first worker sets when the run is to halt; it also says its steps.

    Both on a thread: a step waits for neither.
    """
    seen, ended = threading.Event(), threading.Event()
    halt, steps, remote = settings["halt"], settings["steps"], is_uri(settings["halt"])

    def attend() -> None:
        written, due = "", 0.0
        while not ended.wait(_REMOTE_HALT_POLL_S if remote else _HALT_POLL_S):
            with suppress(OSError):  # a store that does not answer for a moment
                if kind_at(halt) is not None:
                    return seen.set()
                text = "" if run.steps is None else json.dumps(asdict(run.steps))
                if text != written and time.monotonic() >= due:
                    written, due = text, time.monotonic() + (_REMOTE_POLL_S if remote else 0.0)
                    _say(steps, text)

    thread = threading.Thread(target=attend, daemon=True)
    if run.workers.rank == 0:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        if run.workers.rank == 0:
            thread.join()


def _say(location: str, text: str) -> None:
    """Write a file that may be lost: without waiting for the disk."""
    if is_uri(location):
        write_file(location, text.encode())
        return
    partial_path = Path(f"{location}{PARTIAL}")
    partial_path.write_text(text)
    partial_path.rename(location)


def _steps(location: str) -> Steps | None:
    try:
        return Steps(**parse_json(read_file(location), location))
    except (OSError, BadDocument, TypeError):  # not there yet, or of another version
        return None


@contextmanager
def _shown(out: str, iterations: int | None, send: Send) -> Iterator[None]:
    """Show a progress line that follows what the first worker writes."""
    figures, before = TrainingFigures(), len(read_metrics(out))
    counted = before

    def seen(lines: list[dict[str, Any]]) -> None:
        nonlocal counted
        if len(lines) > counted:
            figures.show(lines[-1])
        counted = len(lines)
        send(lines)

    def look() -> tuple[list[dict[str, Any]], Steps | None]:
        return read_metrics(out), _steps(join(out, _STEPS))

    progress = TrainingProgress(iterations, before)
    with watched(progress, look, _REMOTE_POLL_S if is_uri(out) else _LOCAL_POLL_S, seen):
        yield
