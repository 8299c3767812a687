"""How a function is applied to shards: in this process, or on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar


class Numbered(Protocol):
    """A piece of work: a shard of a source, a part of a gallery ..."""

    @property
    def number(self) -> int:
        """Its number in the job, from 0."""
        ...

    @property
    def rows(self) -> int:
        """How many rows it has."""
        ...


T = TypeVar("T")
Piece = TypeVar("Piece", bound=Numbered)


class MapShards(Protocol):
    """Applies a picklable function to every shard, on any machine; results come in any order."""

    def __call__(self, function: Callable[[Piece], T], shards: list[Piece], /) -> Iterable[T]:
        """Return the function's result for every shard.

        Args:
            function: picklable; it may be called again for a shard whose worker was killed.
            shards: their numbers differ.
        """
        ...


def map_locally(function: Callable[[Piece], T], shards: list[Piece]) -> Iterable[T]:
    """Apply the function to one shard after the other in this process.

    Args:
        function: see ``MapShards``.
        shards: see ``MapShards``.
    """
    return map(function, shards)
