"""The unquantised features of rows of a store, as the controls and recall compare them."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import as_location
from schn_ray.data.config import SourceConfig
from schn_ray.data.images import evaluation_view
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.reader import Store
from schn_ray.models.hasher import Hasher, load
from schn_ray.models.stored_features import FeaturesOfStore, StoredFeatures
from schn_ray.retrieval.encode import require_input

Features = NDArray[np.float32]
_PART_ROWS = 2_048
_LOCAL_PARTS = 2  # up to so many, a pool of workers takes longer to start than the work


@dataclass(frozen=True, eq=False)
class RowsPart:
    """Rows of a store whose features are to be computed.

    Attributes:
        number: of the part, from 0.
        store_rows: numbers of the rows in the store.
    """

    number: int
    store_rows: NDArray[np.int64]

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.store_rows)


@dataclass(frozen=True, eq=False)
class GivenFeatures:
    """Features that ``embed`` wrote, in place of the images of a store.

    Attributes:
        location: of the features.
        fingerprint: of their manifest.
        of_store: gives them by the rows of the store.
    """

    location: str
    fingerprint: str
    of_store: FeaturesOfStore


def features_of(
    run: Path | str,
    store: Store,
    rows: NDArray[np.int64],
    map_shards: MapShards,
    given: GivenFeatures | None = None,
) -> Features:
    """Return the features of rows of a store [m, d]: what a hash of this run is computed from.

    They are the backbone's output, or the vectors of the store where those are what is encoded.

    Args:
        run: a finished run.
        store: has the images, or the vectors.
        rows: numbers of the rows [m].
        map_shards: computes parts of the rows, on whatever machines.
        given: features that are there already; None: the run's network computes them.
    """
    if given is not None:
        return given.of_store.vectors(rows)
    if reads_vectors(run, store):
        return store.vectors(rows)
    starts = range(0, len(rows), _PART_ROWS)
    parts = [RowsPart(n, rows[start : start + _PART_ROWS]) for n, start in enumerate(starts)]
    function = functools.partial(part_features, store=store, run=as_location(run))
    features = dict((map_locally if len(parts) <= _LOCAL_PARTS else map_shards)(function, parts))
    return np.concatenate([features[number] for number in range(len(parts))]).astype(np.float32)


class RowFeatures:
    """Features of rows of a store; those of a row are computed once.

    Args:
        run: see ``features_of``.
        store: see ``features_of``.
        map_shards: see ``features_of``.
        given: see ``features_of``.
    """

    def __init__(
        self,
        run: Path | str,
        store: Store,
        map_shards: MapShards,
        given: GivenFeatures | None = None,
    ) -> None:
        self._compute = functools.partial(
            features_of, run, store, map_shards=map_shards, given=given
        )
        self._rows = np.zeros(0, np.int64)
        self._features: Features | None = None

    def of(self, rows: NDArray[np.int64]) -> Features:
        """Return the features of rows [m, d]; rows: numbers [m], in any order."""
        missing = np.setdiff1d(rows, self._rows)
        if self._features is None or len(missing):
            computed = self._compute(missing)
            before = computed[:0] if self._features is None else self._features
            known = np.concatenate([self._rows, missing])
            order = np.argsort(known)
            self._rows, self._features = known[order], np.concatenate([before, computed])[order]
        return self._features[np.searchsorted(self._rows, rows)]


def given_features(location: Path | str, store: Store, hasher: Hasher) -> GivenFeatures:
    """Return stored features of all rows of a store; ``require_input`` compares the backbones.

    Args:
        location: a directory that ``embed`` finished, or its URI.
        store: has the images.
        hasher: the model.

    Raises:
        SchnRayError: the model takes vectors, or the store has a row without a feature or with
            another image.
    """
    if hasher.spec.preprocessing is None:
        raise SchnRayError(
            f"the model takes vectors, not images: evaluate it without the features of {location}"
        )
    stored = StoredFeatures(location)
    rows = stored.of_store(store, np.arange(len(store)))
    return GivenFeatures(stored.location, stored.manifest.fingerprint, rows)


def reads_vectors(run: Path | str, store: Store) -> bool:
    """Return whether the codes of a store come from its vectors, and not from its images.

    Args:
        run: a finished run.
        store: has what the run's model takes.
    """
    source = open_source(store.location, SourceConfig(kind="store"))
    return require_input(source, _loaded(as_location(run))) is not None


def part_features(
    part: RowsPart, store: Store, run: str, batch_size: int = 64
) -> tuple[int, NDArray[np.float16]]:
    """Compute the features of a part, on the worker that ``map_shards`` chooses.

    Args:
        part: the rows.
        store: has the images.
        run: a finished run.
        batch_size: images that go through the network at a time.

    Returns:
        The number of the part, and its features [rows, d_v].
    """
    hasher = _loaded(run)
    starts = range(0, part.rows, batch_size)
    batches = [part.store_rows[start : start + batch_size] for start in starts]
    features = [hasher.features(_views(store, batch, hasher)).numpy() for batch in batches]
    return part.number, np.concatenate(features).astype(np.float16)


@functools.lru_cache(maxsize=1)
def _loaded(run: str) -> Hasher:
    return load(run)


def _views(store: Store, rows: NDArray[np.int64], hasher: Hasher) -> NDArray[np.uint8]:
    preprocessing = hasher.of_images()
    return np.stack([evaluation_view(store.image(int(row)), preprocessing) for row in rows])
