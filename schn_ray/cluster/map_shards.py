"""Apply a function to every shard of a source on Ray, by a pool of actors that the driver feeds.

Not with Ray Data: that wants all shards before the first is worked on, a block each, and holds them
in the driver. Here a shard leaves the driver when an actor is free for it.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    WorkerCrashedError,
)

from schn_ray.cluster.capacity import grows
from schn_ray.cluster.metrics import ShardFigures
from schn_ray.cluster.session import WorkerRequest, cluster_cpus, cluster_gpus, ray_session
from schn_ray.cluster.shared_storage import require_seen, shared
from schn_ray.core.errors import SchnRayError
from schn_ray.core.progress import Progress
from schn_ray.data.shards.map_shards import Numbered

Receipt = TypeVar("Receipt")
Piece = TypeVar("Piece", bound=Numbered)

_AT_ACTOR = 2  # shards: one in work, and the next, so that no actor waits for the driver
_DEATH = (RayActorError, WorkerCrashedError, OutOfMemoryError, NodeDiedError, ObjectLostError)
_DEATHS = 5  # of actors with the same shard: then it is the shard
_LOOK_S = 1.0  # how often the driver looks whether the pool should grow


class ShardWorker:
    """An actor. It lives as long as the job, so caches are filled once."""

    def __init__(self, function: Callable[[Any], Any], probe: Path | None) -> None:
        self._function, self._probe = function, probe

    def begin(self) -> None:
        """Return when the actor has started."""

    def work(self, shard: Numbered) -> Any:
        """Return the function's result for a shard, or the error that the driver raises."""
        try:
            if self._probe is not None:
                require_seen(self._probe)
            return self._function(shard)
        except (SchnRayError, OSError) as error:  # raised in the driver, without Ray's traceback
            return _Failed(error)


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
        unit: name of what is counted, in the plural.

    Example::

        encode(source, "run", "codes", EncodeConfig(), RayShards("encoding", workers=(1, 4)))
    """

    def __init__(
        self,
        what: str,
        workers: int | tuple[int, int] | None = None,
        gpus: bool = False,
        writes: Path | str | None = None,
        unit: str = "rows",
    ) -> None:
        self._what, self._gpus, self._writes, self._unit = what, gpus, writes, unit
        self._workers = (workers, workers) if isinstance(workers, int) else workers

    def __call__(
        self, function: Callable[[Piece], Receipt], shards: Iterable[Piece]
    ) -> Iterable[Receipt]:
        """Yield the result of each shard, in any order; a shard whose actor dies is done again.

        Args:
            function: called with a shard, in an actor; its result is pickled.
            shards: with different numbers; no more of them are asked for than actors are free.

        Raises:
            SchnRayError: there are more workers than CPUs, a node does not see the directory that
                is written to, actors die again and again, or the function raised it.
            OSError: the function raised it.
        """
        waiting = _Waiting(shards)
        if not waiting.count(1):
            return
        with ray_session():
            if self._workers is not None:
                WorkerRequest(*self._workers, gpus=0).require()
            figures = ShardFigures(self._what)
            probing = nullcontext() if self._writes is None else shared(self._writes)
            with probing as probe, Progress(self._what, unit=self._unit) as progress:
                waiting.show(progress)
                for shard, result in self._results(function, waiting, probe):
                    if isinstance(result, _Failed):
                        raise result.error
                    waiting.show(progress)
                    progress.advance(shard.rows)
                    figures.add(shard.rows, result)
                    yield result

    def _results(
        self, function: Callable[[Piece], Receipt], waiting: _Waiting[Piece], probe: Path | None
    ) -> Iterator[tuple[Piece, Any]]:
        fewest, most = (waiting.bound(n) for n in self._workers or _default_workers())
        share = min(1.0, cluster_gpus() / most) if self._gpus else 0.0
        # a shard of an actor that dies is done by another one, not by one that waits for a node
        options = {"num_cpus": 1, "num_gpus": share, "max_restarts": 0, "max_task_retries": 0}
        actor, stored = ray.remote(**options)(ShardWorker), ray.put(function)
        pool = _Pool[Piece](lambda: actor.remote(stored, probe), waiting, fewest, most)
        try:
            yield from pool.results()
        finally:
            pool.end()


class _Waiting(Generic[Piece]):
    """The shards that no actor has yet; each is asked for when an actor is free for it."""

    def __init__(self, shards: Iterable[Piece]) -> None:
        self._shards, self._next, self._queue = shards, iter(shards), deque[Piece]()
        self._rows = sum(shard.rows for shard in shards) if isinstance(shards, Sequence) else 0

    def bound(self, workers: int) -> int:
        """Return how many workers there is work for, as far as that is known."""
        return min(workers, len(self._shards)) if isinstance(self._shards, Sequence) else workers

    def count(self, most: int) -> int:
        """Return how many shards wait, as far as that is asked; it lists no more than these."""
        self._queue.extend(islice(self._next, max(0, most - len(self._queue))))
        return min(most, len(self._queue))

    def take(self) -> Piece | None:
        """Return the next shard; None if there is none."""
        return self._queue.popleft() if self.count(1) else None

    def put_back(self, shards: Iterable[Piece]) -> None:
        """Let shards be done again, before others."""
        self._queue.extendleft(shards)

    def show(self, progress: Progress) -> None:
        """Tell a progress line how many rows there are, as far as that is known."""
        rows, before = (getattr(self._shards, name, 0) for name in ("rows", "done_before"))
        all_listed = getattr(self._shards, "all_listed", True)
        progress.expect(rows or self._rows, so_far=not all_listed, done_before=before)


@dataclass(eq=False)
class _Actor(Generic[Piece]):
    """An actor, and its shards by the references of their results."""

    handle: Any
    started: bool = False
    shards: dict[Any, Piece] = field(default_factory=dict)


class _Pool(Generic[Piece]):
    """Actors: ``fewest``, and more while shards wait, as far as the cluster has room for them."""

    def __init__(
        self, start: Callable[[], Any], waiting: _Waiting[Piece], fewest: int, most: int
    ) -> None:
        self._start, self._waiting, self._fewest, self._most = start, waiting, fewest, most
        self._actors = list[_Actor[Piece]]()
        self._actor_of = dict[Any, _Actor[Piece]]()  # by the references that are waited for
        self._deaths, self._failed_starts = Counter[int](), 0

    def results(self) -> Iterator[tuple[Piece, Any]]:
        """Yield every shard with its result."""
        while self._feed():
            ready, _ = ray.wait(list(self._actor_of), timeout=_LOOK_S)
            for reference in ready:
                # what an actor had is gone when it is known to be dead
                if (actor := self._actor_of.pop(reference, None)) is not None:
                    yield from self._result(actor, reference)

    def end(self) -> None:
        """End all actors, also those that wait for a node."""
        for actor in self._actors:
            with suppress(Exception):  # it is gone already
                ray.kill(actor.handle)

    def _feed(self) -> bool:
        """Hand out shards and start actors; tell whether there is anything left to wait for."""
        for load in range(_AT_ACTOR):
            for actor in self._actors:
                if actor.started and len(actor.shards) == load:
                    shard = self._waiting.take()
                    if shard is None:
                        break
                    self._expect(actor, actor.handle.work.remote(shard), shard)
        at_work = any(actor.shards for actor in self._actors)
        if not (at_work or self._waiting.count(1)):
            return False
        for _ in range(self._waiting.count(self._room())):
            actor = _Actor[Piece](self._start())
            self._actors.append(actor)
            self._expect(actor, actor.handle.begin.remote())
        return True

    def _room(self) -> int:
        """Return how many more actors may start: at most twice as many as there are.

        So a cluster that grows is asked for more nodes when those before have come.
        """
        size = len(self._actors)
        if size < self._fewest:
            return self._fewest - size
        return min(self._most - size, size) if all(a.started for a in self._actors) else 0

    def _expect(self, actor: _Actor[Piece], reference: Any, shard: Piece | None = None) -> None:
        self._actor_of[reference] = actor
        if shard is not None:
            actor.shards[reference] = shard

    def _result(self, actor: _Actor[Piece], reference: Any) -> Iterator[tuple[Piece, Any]]:
        try:
            result = ray.get(reference)
        except _DEATH as error:
            self._bury(actor, error)
        else:
            if reference in actor.shards:
                yield actor.shards.pop(reference), result
            else:
                actor.started, self._failed_starts = True, 0

    def _bury(self, actor: _Actor[Piece], error: Exception) -> None:
        """Let the shards of a dead actor be done again, unless one of them is deadly."""
        with suppress(Exception):  # it may only be out of reach
            ray.kill(actor.handle)
        self._actors.remove(actor)
        for reference in [ref for ref, owner in self._actor_of.items() if owner is actor]:
            del self._actor_of[reference]
        self._waiting.put_back(reversed(actor.shards.values()))
        reason = str(error).strip().splitlines()[-1].strip()  # those before it are where
        if not actor.started:
            self._failed_starts += 1
            if self._failed_starts == _DEATHS:
                raise SchnRayError(
                    f"workers do not start ({reason}): see what --verbose shows, or schn-ray doctor"
                ) from error
        elif actor.shards:
            in_work = next(iter(actor.shards.values()))
            self._deaths[in_work.number] += 1
            if self._deaths[in_work.number] == _DEATHS:
                raise SchnRayError(
                    f"shard {in_work.number} ended {_DEATHS} workers, one after the other "
                    f"({reason}): they may have run out of memory. Use fewer workers, or smaller "
                    "shards (--set source.shard_rows=...)"
                ) from error


def _default_workers() -> tuple[int, int]:
    # a growing pool asks for nodes while it works; one of fixed size would wait for all of them
    return 1 if grows() else cluster_cpus(), cluster_cpus()
