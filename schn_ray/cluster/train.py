"""Train on Ray Train: the same run as ``training.train_here``, shared by workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer, get_device

from schn_ray.cluster.session import WorkerRequest, ray_session
from schn_ray.cluster.shared_storage import require_shared
from schn_ray.core import workers as distributed
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.progress import Progress
from schn_ray.core.storage.files import is_uri, kind_at
from schn_ray.data.store.reader import open_store
from schn_ray.training.config import TrainConfig
from schn_ray.training.loop import Iteration
from schn_ray.training.recorder import CHECKPOINTS, read_metrics
from schn_ray.training.run import build_run, conclude_run, finish_run, open_run, require_shareable
from schn_ray.training.state import Diverged
from schn_ray.training.tensorboard import require_tensorboard
from schn_ray.tuning.trial import Stopped

ONE_WORKER = WorkerRequest()
_LOOK_FOR_NODES_S = 30.0
_SHOW_EVERY_S = 0.3
_ASK_EVERY_S = 5.0  # an object store
_STOPPED = "stopped"  # what a worker returns in place of a failure


def train_on_ray(
    config: TrainConfig,
    store_path: Path | str,
    out: Path | str,
    demand: WorkerRequest = ONE_WORKER,
    tensorboard: bool = False,
    stop: str | None = None,
) -> Manifest:
    """Train with Ray Train; interrupted, the same call goes on from the last checkpoint.

    Args:
        config: what to compute.
        store_path: what to learn from.
        out: the run's directory, or its URI.
        demand: how many workers share each batch. With bounds, a run that loses a node goes on
            with fewer, and takes more when there are; their CPUs decode images.
        tensorboard: write ``RUN/tensorboard`` too.
        stop: a file that, once it is there, ends the run after the iteration it is in.

    Raises:
        AlreadyDone: ``out`` was finished by the same request.
        SchnRayError: ``out`` holds something else, the store can't be trained on, or the cluster
            has too few CPUs.
        Stopped: by ``stop``.
    """
    store = open_store(store_path, verify=True)
    with open_run(out, config, store) as (mirror, draft):
        run = mirror.location
        # every mistake that one process can find is found before workers start
        if tensorboard:
            require_tensorboard()
        require_shareable(config, store, demand.most)
        build_run(config, store, distributed.Workers(), torch.device("cpu"))
        settings = {
            "config": with_absolute_paths(config).model_dump(),
            "store": store.location,
            "out": run,
            "threads": demand.cpus,
            "tensorboard": tensorboard,
            "stop": stop,
        }
        with ray_session():
            demand.require()
            require_shared(run)
            mirror.send()
            with _shown(run, config.schedule.iterations):
                _fit_while_it_gets_on(settings, demand)
        conclude_run(mirror, draft, store)
    return read_manifest(mirror.local, "run")


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    """Return a config that means the same in another working directory."""
    weights = config.network.weights
    if weights is None or not Path(weights).is_file():
        return config
    network = config.network.model_copy(update={"weights": str(Path(weights).resolve())})
    return config.model_copy(update={"network": network})  # a worker's directory is another one


def _fit_while_it_gets_on(settings: dict[str, Any], demand: WorkerRequest) -> None:
    """Go on after failures, however many, as long as iterations are finished between them."""
    while True:
        before = len(read_metrics(settings["out"]))
        try:
            return _fit(settings, demand)
        except ray.train.WorkerGroupError as error:
            if len(read_metrics(settings["out"])) == before:
                raise _users_error(error) or error from error


def _fit(settings: dict[str, Any], demand: WorkerRequest) -> None:
    resources = demand.resources()
    # codes and counts are gathered on the CPU, features and gradients where the networks are
    backend = "cpu:gloo,cuda:nccl" if "GPU" in resources else "gloo"
    elastic = demand.least < demand.most
    trainer = TorchTrainer(
        _worker,
        train_loop_config=settings,
        scaling_config=ScalingConfig(
            num_workers=(demand.least, demand.most) if elastic else demand.least,
            use_gpu="GPU" in resources,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=_LOOK_FOR_NODES_S,
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
    except SystemExit as error:  # what Ray Train makes of Ctrl-C
        raise KeyboardInterrupt from error
    if failure == _STOPPED:
        raise Stopped
    if failure is not None:
        raise SchnRayError(failure)


def _users_error(error: ray.train.WorkerGroupError) -> SchnRayError | None:
    failures = error.worker_failures.values()
    return next((f for f in map(_cause, failures) if isinstance(f, SchnRayError)), None)


def _cause(failure: BaseException) -> BaseException:
    return getattr(failure, "cause", None) or failure


def _worker(settings: dict[str, Any]) -> str | None:
    """Train on one worker of the group; return why it is no use to try again, if so."""
    config = TrainConfig.model_validate(settings["config"])
    store = open_store(settings["store"])
    threads = max(2, settings["threads"])
    run = build_run(config, store, distributed.current_workers(), get_device(), threads)

    def reported(measured: Iteration) -> None:
        ray.train.report(asdict(measured))
        if settings["stop"] and _anyone_sees(settings["stop"], run.workers):
            raise Stopped

    try:
        finish_run(run, store, settings["out"], reported, settings["tensorboard"])
    except Diverged as error:
        return str(error)
    except Stopped:
        return _STOPPED
    return None


def _anyone_sees(file: str, workers: distributed.Workers) -> bool:
    # all of them must stop after the same iteration, whenever the file came to their machine
    return bool(workers.sum(torch.tensor([float(kind_at(file) is not None)])).item())


@contextmanager
def _shown(out: str, iterations: int) -> Iterator[None]:
    """Show a live line that follows the metrics which the first worker writes."""
    done = threading.Event()
    before = len(read_metrics(out))
    with Progress("training", iterations, "iterations", before) as progress:

        def follow() -> None:
            while not done.wait(_SHOW_EVERY_S if not is_uri(out) else _ASK_EVERY_S):
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
