"""Run a suite: prepare and embed its data, then train and measure every cell that has not ended."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from schn_ray.core.directories import LOCK, AlreadyDone
from schn_ray.core.locks import locked
from schn_ray.core.settings import load_settings
from schn_ray.core.storage.cache import directory_kind
from schn_ray.core.storage.files import as_location, is_uri, join
from schn_ray.data.config import PrepareConfig
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.results import KIND
from schn_ray.models.embed import EmbedConfig, embed_source
from schn_ray.suites.cells import (
    CELLS,
    DATA,
    FEATURES,
    STORE,
    Ended,
    cells_of,
    features_location,
    run_cell,
)
from schn_ray.suites.suite import DataSet, Suite

TRAINING = "training"  # name of the work on cells
UNQUANTISED = "unquantised"  # name of the evaluation that has the controls

Mapper = Callable[[str], MapShards]
"""The name of a piece of work -> what applies a function to its shards."""


def run_suite(
    suite: Suite,
    out: Path | str,
    mapper: Mapper = lambda _: map_locally,
    ended: Callable[[Ended], None] = lambda _: None,
) -> list[Ended]:
    """Run a suite, or go on with it; interrupted at any moment, the same call does only the rest.

    A suite that has grown, by a method, a length or a seed, trains what is new.

    Args:
        suite: as ``read_suite`` returned it.
        out: directory or URI to write.
        mapper: where data are prepared and embedded, and cells trained, one on a worker.
        ended: called with each cell when it has ended.

    Returns:
        All cells, in their order.

    Raises:
        SchnRayError: a source, a setting or features that cannot be used; a cell of this name was
            trained with other settings; another process runs the suite.
    """
    location = as_location(out)
    with _only_writer(location):
        for name, data in suite.placed.items():
            _prepare(data, join(location, f"{DATA}/{name}"), mapper)
        work = functools.partial(run_cell, suite=suite, out=location)
        finished = []
        for one in mapper(TRAINING)(work, cells_of(suite)):
            ended(one)
            finished.append(one)
        finished.sort(key=lambda one: one.cell.number)
        for name in suite.placed:
            _measure_features(suite, name, finished, location, mapper)
    return finished


@contextmanager
def _only_writer(location: str) -> Iterator[None]:
    if is_uri(location):  # each cell's directory is marked by who writes it
        yield
        return
    path = Path(location)
    with locked(path / LOCK, path):
        yield


def _measure_features(
    suite: Suite, data: str, finished: list[Ended], location: str, mapper: Mapper
) -> None:
    """Measure what the features of a data set reach without a code; any run on them will do."""
    runs = [one.cell.name for one in finished if one.cell.data == data and one.cost is not None]
    out = join(location, f"{CELLS}/{data}/{UNQUANTISED}")
    features = features_location(data, suite, location)
    if features is None or not runs or directory_kind(out) == KIND:
        return
    evaluate_run(
        join(location, runs[0]),
        join(location, f"{DATA}/{data}/{STORE}"),
        out,
        load_settings(EvaluateConfig, base=suite.evaluate),
        mapper("measuring"),
        features,
    )


def _prepare(data: DataSet, folder: str, mapper: Mapper) -> None:
    config = load_settings(PrepareConfig, base=data.prepare)
    assert data.source is not None, "read_suite requires it"
    store = join(folder, STORE)
    with suppress(AlreadyDone):
        prepare_store(open_source(data.source, config.source), config, store, mapper("preparing"))
    if data.embed is not None and data.images_of is None:
        embedding = load_settings(EmbedConfig, base=data.embed)
        with suppress(AlreadyDone):
            source = open_source(store, embedding.source)
            embed_source(source, join(folder, FEATURES), embedding, mapper("embedding"))
