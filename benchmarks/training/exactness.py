"""1, 2 and 3 workers over the same global batches: the losses of every step, the codes at the end.

    python -m benchmarks.training.exactness [--dtype float64] [--set KEY=VALUE ...]

Real gloo processes, no Ray. The digits, the preset's dropout, the published learning rate; any
setting can be changed. In float32 workers differ by the rounding of sums, which training amplifies;
float64 shows that nothing else does. The control is a worker that sees its half of each batch as a
batch, as data parallel training without a global batch does.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from schn_ray.core.workers import Workers, current_workers
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.methods.base import Batch, Step
from schn_ray.methods.deep.schn.method import Schn, SchnNetworks
from schn_ray.training import loop
from schn_ray.training import run as training
from schn_ray.training.config import train_config

SETTINGS = (
    "schedule.iterations=3",
    "schedule.epochs=2",
    "schedule.samples=200",
    "schedule.batch_size=40",
    "optimiser.learning_rate=4e-5",
)


class Watched(Schn):
    """SCHN that keeps the loss terms of every step, means over the global batch."""

    dtype = torch.float32

    def __init__(self, networks: SchnNetworks, *others: Any) -> None:
        super().__init__(networks.to(self.dtype), *others)
        self.terms: list[Tensor] = []

    def step(self, batch: Batch) -> Step:
        step = super().step(Batch(*(x.to(self.dtype) for x in batch)))
        share = self.workers.share(len(batch.Y)) / self.workers.size
        own = torch.stack(list(step.terms.values())).double() * share
        self.terms.append(self.workers.sum(own))
        return step


def train(workers: Workers, store: Path, settings: tuple[str, ...], dtype: torch.dtype) -> Any:
    training.Schn, Watched.dtype = Watched, dtype
    config = train_config("digits", None, settings)
    run = training.build_run(config, open_store(store), workers, torch.device("cpu"))
    loop.train_run(run, lambda measured, best: None)
    return torch.stack(run.method.terms), run.table.packed


def enter(rank: int, size: int, folder: Path, arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if size > 1:
        dist.init_process_group("gloo", f"file://{folder}/meet-{size}", rank=rank, world_size=size)
    found = train(current_workers(), *arguments)
    if rank == 0:
        torch.save(found, folder / f"{size}.pt")
    if size > 1:
        dist.destroy_process_group()


def compare(one: Any, many: Any, name: str) -> None:
    (terms, codes), (others, other_codes) = one, many
    apart = ((terms - others).abs() / terms.abs().clamp(min=1)).max()
    bits = int(np.unpackbits(codes ^ other_codes).sum())
    print(
        f"{name}: {len(terms)} steps, loss terms apart by at most {apart:.1e} (of the term, or of "
        f"1 if it is smaller), {bits} of {codes.size * 8:,} bits differ"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32")
    parser.add_argument("--set", dest="settings", action="append", default=[])
    asked = parser.parse_args()
    settings, dtype = (*SETTINGS, *asked.settings), getattr(torch, asked.dtype)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # no validation: encoding is float32
        config = PrepareConfig(validation_share=0)
        prepare_store(open_source("digits", SourceConfig()), config, folder / "store")
        found = {}
        for size in (1, 2, 3):
            arguments = (folder / "store", settings, dtype)
            mp.spawn(enter, (size, folder, arguments), nprocs=size)
            found[size] = torch.load(folder / f"{size}.pt", weights_only=False)
        compare(found[1], found[2], "2 workers against 1")
        compare(found[1], found[3], "3 workers against 1")
        halved = train(Workers(), folder / "store", (*settings, "schedule.batch_size=20"), dtype)
        terms = found[1][0]
        apart = (terms[0] - halved[0][0]).abs().max()
        print(f"control, batches of 20 against 40: first step apart by {apart:.1e}")


if __name__ == "__main__":
    main()
