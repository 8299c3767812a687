"""Apply a function to every shard of a source with Ray Data, on a pool of actors."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import ray.data

from schn_ray.cluster.capacity import grows
from schn_ray.cluster.metrics import ShardFigures
from schn_ray.cluster.session import WorkerRequest, cluster_cpus, cluster_gpus, ray_session
from schn_ray.cluster.shared_storage import require_seen, shared
from schn_ray.core.errors import SchnRayError
from schn_ray.core.progress import Progress
from schn_ray.data.shards.map_shards import Numbered

Receipt = TypeVar("Receipt")
Piece = TypeVar("Piece", bound=Numbered)


class _OnShard:
    """The callable of an actor. An actor lives as long as the job, so caches are filled once."""

    def __init__(self, function: Callable[[Any], Any], probe: Path | None) -> None:
        self._function, self._probe = function, probe

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        try:
            if self._probe is not None:
                require_seen(self._probe)
            result = self._function(pickle.loads(row["shard"]))
        except (SchnRayError, OSError) as error:  # raised in the driver, without Ray's traceback
            result = _Failed(error)
        return {"number": row["number"], "result": pickle.dumps(result)}


@dataclass(frozen=True)
class _Failed:
    error: Exception


class RayShards:
    """Map a function over shards on Ray, and show how many of their rows are done.

    Args:
        what: the name of the work on the progress line.
        workers: actors, with a CPU each: their number, or the smallest and the largest size of the
            pool. Default: as many as the cluster has CPUs; on a cluster that grows, one or more.
        gpus: whether the actors share the cluster's GPUs, if it has any.
        writes: the directory or URI that the function writes to. A directory that a node does not
            see is refused.

    Example::

        encode(source, "run", "codes", EncodeConfig(), RayShards("encoding", workers=(1, 4)))
    """

    def __init__(
        self,
        what: str,
        workers: int | tuple[int, int] | None = None,
        gpus: bool = False,
        writes: Path | str | None = None,
    ) -> None:
        self._what, self._gpus, self._writes = what, gpus, writes
        self._workers = (workers, workers) if isinstance(workers, int) else workers

    def __call__(
        self, function: Callable[[Piece], Receipt], shards: list[Piece]
    ) -> Iterable[Receipt]:
        """Yield the result of each shard, in any order; a shard whose actor dies is done again.

        Args:
            function: called with a shard, in an actor; its result is pickled.
            shards: with different numbers.

        Raises:
            SchnRayError: there are more workers than CPUs, a node does not see the directory that
                is written to, or the function raised it.
            OSError: the function raised it.
        """
        if not shards:
            return
        rows = {shard.number: shard.rows for shard in shards}
        with ray_session():
            if self._workers is not None:
                WorkerRequest(*self._workers, gpus=0).require()
            figures = ShardFigures(self._what)
            probing = nullcontext() if self._writes is None else shared(self._writes)
            with probing as probe, Progress(self._what, total=sum(rows.values())) as progress:
                for number, result in self._results(function, shards, probe):
                    if isinstance(result, _Failed):
                        raise result.error
                    progress.advance(rows[number])
                    figures.add(rows[number], result)
                    yield result

    def _results(
        self, function: Callable[[Piece], Receipt], shards: list[Piece], probe: Path | None
    ) -> Iterator[tuple[int, Receipt]]:
        fewest, most = (min(n, len(shards)) for n in self._workers or _default_workers())
        # one block per shard: the unit of retries and of progress
        tasks = ray.data.from_items(
            [{"number": shard.number, "shard": pickle.dumps(shard)} for shard in shards],
            override_num_blocks=len(shards),
        )
        results = tasks.map(
            _OnShard,
            fn_constructor_args=(function, probe),
            compute=ray.data.ActorPoolStrategy(min_size=fewest, max_size=most),
            num_cpus=1,
            num_gpus=min(1.0, cluster_gpus() / most) if self._gpus else None,
        )
        for row in results.iter_rows():
            yield row["number"], pickle.loads(row["result"])


def _default_workers() -> tuple[int, int]:
    # a growing pool asks for nodes while it works; one of fixed size would wait for all of them
    return 1 if grows() else cluster_cpus(), cluster_cpus()
