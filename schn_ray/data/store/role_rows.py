"""Rows of some roles of a store as a source, such as the training rows alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from schn_ray.core.settings import Count
from schn_ray.data.shards.rows import BadRow, Row, Shard, cut
from schn_ray.data.splits.protocols import Rows
from schn_ray.data.store.reader import Store, open_store


@dataclass(frozen=True)
class RoleRows:
    """The images of a store's rows that have one of these roles.

    Attributes:
        location: of the store.
        roles: such as ``("train", "validation")``.
        shard_rows: rows of a shard.
    """

    location: str
    roles: tuple[str, ...]
    shard_rows: Count
    kind: str = "store"

    @cached_property
    def _store(self) -> Store:
        return open_store(self.location)

    @cached_property
    def _rows(self) -> Rows:
        return np.unique(np.concatenate([self._store.rows(role) for role in self.roles]))

    def shards(self) -> list[Shard]:
        """List ranges of the rows."""
        stamps = (self._store.manifest.fingerprint,)
        return [
            Shard(number, count, start, stamps=stamps)
            for number, (start, count) in enumerate(cut(len(self._rows), self.shard_rows))
        ]

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's rows."""
        for row in self._rows[shard.start : shard.start + shard.rows].tolist():
            id = self._store.ids[row].as_py()
            yield Row(id, self._store.image(row), (), f"{self.location}#{row}")
