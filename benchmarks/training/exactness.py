"""1, 2 and 3 workers over the same global batches: the losses of every step, the codes at the end.

    python -m benchmarks.training.exactness [--dtype float64] [--set KEY=VALUE ...]
    python -m benchmarks.training.exactness --fine-tune cifar10.parquet [--images 600]

Real gloo processes, no Ray. The digits, the preset's dropout, the published learning rate; any
setting can be changed. In float32 workers differ by the rounding of sums, which training amplifies;
float64 shows that nothing else does. The control is a worker that sees its half of each batch as a
batch, as data parallel training without a global batch does.

``--fine-tune``: an epoch of EfficientNet-Lite0 at 128 pixels through ``timm:``, from its ImageNet
weights, on that many images of CIFAR-10, by 1 and by 2 workers.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.multiprocessing.spawn import spawn

from benchmarks.support.efficientnet_lite0 import write_weights
from schn_ray.core.workers import Workers, current_workers
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.methods.base import Batch, DeepMethod, Step
from schn_ray.methods.config import OptimiserConfig, ScheduleConfig
from schn_ray.methods.trainer import Trainer
from schn_ray.training import loop
from schn_ray.training import run as training
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.training.descent import Descent

SETTINGS = (
    "schedule.iterations=3",
    "schedule.epochs=2",
    "schedule.samples=200",
    "schedule.batch_size=40",
    "optimiser.learning_rate=4e-5",
)
FINE_TUNING = (
    "backbone.name=timm:tf_efficientnet_lite0",
    "backbone.image_size=128",
    "schedule.iterations=1",
    "schedule.epochs=1",
    "schedule.batch_size=60",
    "precision=float32",
)


class Watched(Trainer):
    """A trainer that keeps the loss terms of every step, means over the global batch."""

    dtype = torch.float32

    def __init__(
        self,
        method: DeepMethod[Any],
        optimiser: OptimiserConfig,
        schedule: ScheduleConfig,
        compiled: bool = False,
    ) -> None:
        super().__init__(method.to(self.dtype), optimiser, schedule, compiled)
        self.terms: list[Tensor] = []

    def step(self, batch: Batch) -> Step:
        inputs, Y, B = (x.to(self.dtype) for x in (batch.inputs, batch.Y, batch.B))
        step = super().step(replace(batch, inputs=inputs, Y=Y, B=B))
        share = batch.share / batch.workers.size
        own = torch.stack(list(step.terms.values())).double() * share
        self.terms.append(batch.workers.sum(own))
        return step


def train(workers: Workers, store: Path, config: TrainConfig, dtype: torch.dtype) -> Any:
    """Train, and return the terms of every step, the packed codes, and the encoder's weights."""
    Watched.dtype = dtype
    vars(training)["Trainer"] = Watched  # what a run builds
    started = time.monotonic()
    run = training.build_run(config, open_store(store), workers, torch.device("cpu"))
    loop.train_run(run, lambda measured, best: None)
    assert isinstance(run.learner, Descent)
    assert isinstance(run.learner.trainer, Watched)
    state = run.method.encoder.state_dict()
    weights = torch.cat([v.flatten().double() for v in state.values()])
    seconds = time.monotonic() - started
    return torch.stack(run.learner.trainer.terms), run.table.packed, weights, seconds


def enter(rank: int, size: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", f"file://{folder}/meet-{size}", rank=rank, world_size=size)
    result = train(current_workers(), *arguments)
    if rank == 0:
        torch.save(result, folder / f"{size}.pt")
    if size > 1:
        dist.destroy_process_group()


def on_workers(
    sizes: tuple[int, ...], folder: Path, config: TrainConfig, dtype: torch.dtype
) -> dict[int, Any]:
    """Train by each number of workers."""
    results = {}
    for size in sizes:
        spawn(enter, (size, folder, (folder / "store", config, dtype)), nprocs=size)  # type: ignore[no-untyped-call]
        results[size] = torch.load(folder / f"{size}.pt", weights_only=False)
    return results


def compare(one: Any, many: Any, name: str) -> None:
    """Print how far many workers are from one."""
    (terms, codes, weights, _), (others, other_codes, other_weights, _) = one, many
    apart = ((terms - others).abs() / terms.abs().clamp(min=1)).max()
    moved = ((weights - other_weights).abs() / weights.abs().clamp(min=1)).max()
    bits = int(np.unpackbits(codes ^ other_codes).sum())
    print(
        f"{name}: {len(terms)} steps, loss terms apart by at most {apart:.1e} (of the term, or of "
        f"1 if it is smaller), weights by {moved:.1e}, {bits} of {codes.size * 8:,} bits differ",
        flush=True,
    )


def digits(folder: Path, settings: tuple[str, ...], dtype: torch.dtype) -> None:
    """Compare 1, 2 and 3 workers on the digits, with the control."""
    # no validation: encoding is float32
    config = PrepareConfig(validation_share=0)
    prepare_store(open_source("digits", SourceConfig()), config, folder / "store")
    trained = on_workers((1, 2, 3), folder, train_config("digits", None, settings, "schn"), dtype)
    compare(trained[1], trained[2], "2 workers against 1")
    compare(trained[1], trained[3], "3 workers against 1")
    half = train_config("digits", None, (*settings, "schedule.batch_size=20"), "schn")
    show_control(trained[1], train(Workers(), folder / "store", half, dtype))


def show_control(whole: Any, halved: Any) -> None:
    """Print how far half of each batch as a batch is, at the first step."""
    apart = (whole[0][0] - halved[0][0]).abs().max()
    print(f"control, half a batch as a batch: first step apart by {apart:.1e}")


def fine_tuned(
    folder: Path, parquet: Path, images: int, settings: tuple[str, ...], dtype: torch.dtype
) -> None:
    """Compare 1 and 2 workers on an epoch from pretrained weights, with the control."""
    share = images / 60_000
    config = PrepareConfig(train_share=share, query_share=0.001, validation_share=0)
    prepare_store(open_source(str(parquet), SourceConfig()), config, folder / "store")
    weights = write_weights(folder / "weights.safetensors")
    own = (*FINE_TUNING, f"backbone.weights={weights}", *settings)
    trained = on_workers((1, 2), folder, train_config(None, None, own, "schn-plus"), dtype)
    compare(trained[1], trained[2], "2 workers against 1")
    print(f"  an epoch of {images} images: {trained[1][3]:.0f} s, {trained[2][3]:.0f} s")
    halved = train_config(None, None, (*own, "schedule.batch_size=30", "schedule.samples=30"))
    show_control(trained[1], train(Workers(), folder / "store", halved, dtype))


def main() -> None:
    """Compare numbers of workers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    parser.add_argument("--fine-tune", type=Path, metavar="PARQUET")
    parser.add_argument("--images", type=int, default=600)
    asked = parser.parse_args()
    dtype = getattr(torch, asked.dtype)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        if asked.fine_tune:
            fine_tuned(Path(name), asked.fine_tune, asked.images, tuple(asked.settings), dtype)
        else:
            digits(Path(name), (*SETTINGS, *asked.settings), dtype)


if __name__ == "__main__":
    main()
