"""The seam between a job and the machines that do it: a function applied to shards."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar


class Numbered(Protocol):
    """A piece of work: a shard of a source, a part of a gallery ..."""

    @property
    def number(self) -> int:
        """Its place among the others."""
        ...

    @property
    def rows(self) -> int:
        """How many rows it has."""
        ...


T = TypeVar("T")
Piece = TypeVar("Piece", bound=Numbered)


class MapShards(Protocol):
    """Applies a picklable function to every shard, here or elsewhere; results in any order."""

    def __call__(self, function: Callable[[Piece], T], shards: list[Piece], /) -> Iterable[T]:
        """Return the function's result for every shard."""
        ...


def map_locally(function: Callable[[Piece], T], shards: list[Piece]) -> Iterable[T]:
    """Do one shard after the other: the simplest ``MapShards``."""
    return map(function, shards)
