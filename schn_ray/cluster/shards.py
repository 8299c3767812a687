"""Apply a function to every shard of a source with Ray Data, on a pool of actors."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray.data

from schn_ray.cluster.session import Demand, cluster_cpus, ray_session
from schn_ray.progress import Progress
from schn_ray.sources import Shard

Receipt = TypeVar("Receipt")


class _OnShard:
    """An actor: it lives as long as the job, so what the function caches is loaded once."""

    def __init__(self, function: Callable[[Shard], Any]) -> None:
        self._function = function

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        receipt = self._function(pickle.loads(row["shard"]))
        return {"number": row["number"], "receipt": pickle.dumps(receipt)}


class RayShards:
    """Maps a function over shards and shows how many of their rows are done.

    Args:
        what: the work's name on the live line.
        workers: actors, a CPU each; by default as many as the cluster has CPUs.
    """

    def __init__(self, what: str, workers: int | None = None) -> None:
        self._what, self._workers = what, workers

    def __call__(
        self, function: Callable[[Shard], Receipt], shards: list[Shard]
    ) -> Iterable[Receipt]:
        """Yield a receipt a shard, in any order; a shard whose actor dies is done again.

        Raises:
            SchnRayError: more workers than the cluster has CPUs.
        """
        if not shards:
            return
        rows = {shard.number: shard.rows for shard in shards}
        with ray_session():
            if self._workers is not None:
                Demand(self._workers, self._workers).require()
            with Progress(self._what, total=sum(rows.values())) as progress:
                for number, receipt in self._receipts(function, shards):
                    progress.advance(rows[number])
                    yield receipt

    def _receipts(
        self, function: Callable[[Shard], Receipt], shards: list[Shard]
    ) -> Iterator[tuple[int, Receipt]]:
        actors = min(self._workers or cluster_cpus(), len(shards))
        # a block a shard: a shard is the unit that is retried, and that is shown as progress
        tasks = ray.data.from_items(
            [{"number": shard.number, "shard": pickle.dumps(shard)} for shard in shards],
            override_num_blocks=len(shards),
        )
        results = tasks.map(
            _OnShard,
            fn_constructor_args=(function,),
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=1,
        )
        for row in results.iter_rows():
            yield row["number"], pickle.loads(row["receipt"])
