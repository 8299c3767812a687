"""Real worker processes for tests of collectives; they meet at a file, as fixed ports collide."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from schn_ray.core.workers import Workers, current_workers


def run_on_workers(function: Callable[[Workers], Any], folder: Path, size: int = 2) -> list[Any]:
    """Run a module-level function in ``size`` processes; return what each returned, by rank."""
    folder.mkdir()
    mp.spawn(_run, (function, folder, size), nprocs=size)
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def _run(rank: int, function: Callable[[Workers], Any], folder: Path, size: int) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=size)
    workers = current_workers()
    torch.save(function(workers), folder / f"{rank}.pt")
    workers.meet()  # nobody closes a connection that another still reads from
    dist.destroy_process_group()
    assert not _gloo_threads(), "the process group lives on, and can abort the exit"


def _gloo_threads() -> list[str]:
    names = [task.read_text().strip() for task in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]
