"""Features that ``embed`` wrote, for the rows of a store."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schn_ray.core.artefacts import Artefact
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.files import as_location
from schn_ray.data.shards.equal_rows import as_digests
from schn_ray.data.shards.vectors import VectorColumn
from schn_ray.data.sources.stored import BACKBONE, open_rows
from schn_ray.data.splits.protocols import Rows
from schn_ray.data.store.reader import Store
from schn_ray.models.backbones.backbone import Backbone
from schn_ray.models.backbones.saved import (
    SPEC,
    WEIGHTS,
    load_backbone,
    read_backbone_spec,
)
from schn_ray.models.config import BackboneConfig
from schn_ray.models.embed import FEATURES


class StoredFeatures:
    """A directory of features; ``of_store`` gives them by the rows of a store.

    Args:
        location: a directory that ``embed`` finished, or its URI.

    Raises:
        SchnRayError: no finished features.
    """

    def __init__(self, location: Path | str) -> None:
        self.location = as_location(location)
        self.path = local_copy(location)
        self.manifest: Manifest = read_manifest(self.path, FEATURES)
        self._last: tuple[Store, Rows, FeaturesOfStore] | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the backbone and how images are prepared for it."""
        return str(self.manifest.made_from[BACKBONE])

    @cached_property
    def backbone(self) -> tuple[Backbone, BackboneConfig]:
        """The network that computed them, in evaluation mode, and a config that names it."""
        artefact = Artefact(self.path, self.manifest)
        for name in (WEIGHTS, SPEC):
            artefact.file(f"{BACKBONE}/{name}")
        return load_backbone(self.path / BACKBONE)

    @property
    def backbone_config(self) -> BackboneConfig:
        """A config that names the backbone, without building it."""
        artefact = Artefact(self.path, self.manifest)
        artefact.file(f"{BACKBONE}/{SPEC}")
        return read_backbone_spec(self.path / BACKBONE).config()

    def of_store(self, store: Store, rows: Rows) -> FeaturesOfStore:
        """Return the features by row of a store; those of the last call are at hand.

        Args:
            store: its images were embedded, from the same source or from the store.
            rows: those that are needed.

        Raises:
            SchnRayError: a row has no feature, or that of another image.
        """
        if self._last and self._last[0] is store and np.array_equal(self._last[1], rows):
            return self._last[2]
        features = self._matched(store, rows)
        self._last = store, rows, features
        return features

    def _matched(self, store: Store, rows: Rows) -> FeaturesOfStore:
        table = open_rows(self.path)
        ids = store.ids.take(pa.array(rows))
        positions = pc.index_in(ids, table["id"].combine_chunks())
        if positions.null_count:
            first = ids.filter(positions.is_null())[0]
            raise SchnRayError(
                f"{self.location}: {positions.null_count:,} of {len(rows):,} rows of "
                f"{store.location} have no features, the first is {first}; embed that store"
            )
        digests = as_digests(table["sha256"].take(positions).combine_chunks())
        if (different := digests != store.sha256(rows)).any():
            first = ids[int(np.flatnonzero(different)[0])]
            raise SchnRayError(
                f"{self.location}: the features of {first} are those of another image than that "
                f"of {store.location}; run embed again"
            )
        return FeaturesOfStore(table, rows, positions.to_numpy().astype(np.int64))


class FeaturesOfStore:
    """Features by the row numbers of a store.

    Args:
        table: of the features.
        rows: numbers in the store [m], ascending.
        positions: where the features of each of them are [m].
    """

    def __init__(self, table: pa.Table, rows: Rows, positions: Rows) -> None:
        self._rows, self._positions = rows, positions
        self._column = VectorColumn(table["vector"])
        self.width = self._column.width

    def vectors(self, rows: Rows) -> NDArray[np.float32]:
        """Return the features of store rows [m] -> [m, d]."""
        return self._column.take(self._positions[np.searchsorted(self._rows, rows)])
