"""How a function is applied to shards: in this process, or on the machines of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
Listed = TypeVar("Listed", bound=Numbered, covariant=True)


class ListedMeanwhile(Protocol[Listed]):
    """Pieces of work that are listed while those before them are worked on; read once."""

    @property
    def rows(self) -> int:
        """How many rows are listed so far, those that need no work included."""
        ...

    @property
    def done_before(self) -> int:
        """How many of them need no work."""
        ...

    @property
    def all_listed(self) -> bool:
        """Whether ``rows`` are all that there are."""
        ...

    def __iter__(self) -> Iterator[Listed]:
        """Yield what needs work."""
        ...


class MapShards(Protocol):
    """Applies a picklable function to every shard, on any machine; results come in any order."""

    def __call__(self, function: Callable[[Piece], T], shards: Iterable[Piece], /) -> Iterable[T]:
        """Return the function's result for every shard.

        Args:
            function: picklable; it may be called again for a shard whose worker was killed.
            shards: their numbers differ. They may be listed meanwhile (``ListedMeanwhile``): take
                the next one when there is a worker for it.
        """
        ...


def map_locally(function: Callable[[Piece], T], shards: Iterable[Piece]) -> Iterable[T]:
    """Apply the function to one shard after the other in this process.

    Args:
        function: see ``MapShards``.
        shards: see ``MapShards``.
    """
    return map(function, shards)
