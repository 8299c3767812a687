"""Run a suite: prepare and embed its data, then train and measure every cell that has not ended."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from schn_ray.core.directories import LOCK, AlreadyDone
from schn_ray.core.errors import SchnRayError, SourceHasChanged
from schn_ray.core.locks import locked
from schn_ray.core.settings import load_settings
from schn_ray.core.storage.cache import directory_kind
from schn_ray.core.storage.files import as_location, is_uri, join
from schn_ray.data.config import PrepareConfig
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store, require_settings
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.results import KIND
from schn_ray.models.embed import EmbedConfig, embed_source
from schn_ray.suites.cells import (
    CELLS,
    FEATURES,
    Ended,
    SuitePiece,
    cells_of,
    features_location,
    run_cell,
)
from schn_ray.suites.checks import check_suite
from schn_ray.suites.suite import DATA, STORE, DataSet, Suite, store_location
from schn_ray.suites.trials import (
    Tried,
    choices_of,
    trials_of,
    try_settings,
    tuned_cells,
)

TRAINING, TUNING = "training", "tuning"  # names of the work on cells, and on trials
UNQUANTISED = "unquantised"  # name of the evaluation that has the controls

Mapper = Callable[[str], MapShards]
"""The name of a piece of work -> what applies a function to its shards."""

Work = Callable[..., Ended | Tried]


def run_suite(
    suite: Suite,
    out: Path | str,
    mapper: Mapper = lambda _: map_locally,
    ended: Callable[[Ended | Tried, int, int], None] = lambda *_: None,
) -> None:
    """Run a suite, or go on with it; interrupted at any moment, the same call does only the rest.

    First all methods are trained with their published settings. If the suite has a budget, its
    trials follow, then the best settings of each method, with all seeds. A suite that has grown, by
    a method, a length, a seed or trials, trains what is new.

    Args:
        suite: as ``read_suite`` returned it.
        out: directory or URI to write.
        mapper: where data are prepared and embedded, and cells trained, one on a worker.
        ended: called with each cell and trial when it has ended, and which one of how many it is.

    Raises:
        SchnRayError: a source, a setting or features that cannot be used; a cell of this name was
            trained with other settings; another process runs the suite.
    """
    location = as_location(out)
    check_suite(suite, location)
    with _only_writer(location):
        for name, data in suite.placed.items():
            _prepare(data, join(location, f"{DATA}/{name}"), mapper)

        def done(what: str, work: Work, pieces: Sequence[SuitePiece]) -> list[Any]:
            results = []
            for one in mapper(what)(partial(work, suite=suite, out=location), pieces):
                results.append(one)
                ended(one, len(results), len(pieces))
            return results

        cells = done(TRAINING, run_cell, cells_of(suite))
        cells.sort(key=lambda one: one.cell.number)
        for name in suite.placed:
            _measure_features(suite, name, cells, location, mapper)
        tried = done(TUNING, try_settings, trials_of(suite, cells))
        done(TRAINING, run_cell, tuned_cells(suite, choices_of(suite, cells, tried)))


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
        store_location(data, location),
        out,
        load_settings(EvaluateConfig, base=suite.evaluate),
        mapper("measuring"),
        features,
    )


def _prepare(data: DataSet, folder: str, mapper: Mapper) -> None:
    config = load_settings(PrepareConfig, base=data.prepare)
    assert data.source is not None, "read_suite requires it"
    store = join(folder, STORE)
    if data.source == store:
        require_settings(store, config)
    else:
        source = open_source(data.source, config.source)
        try:
            prepare_store(source, config, store, mapper("preparing"))
        except AlreadyDone as done:
            if done.note:  # of the same size and another time: it may be the same
                what = f"{data.source} has changed since; figures are of the rows of then"
                print(f"schn-ray: {store}: {what}", file=sys.stderr)
        except SourceHasChanged as error:
            raise SchnRayError(
                f"{store} was made when {data.source} held other files. All figures of a suite are "
                "of the same rows: name another directory for the new ones"
            ) from error
    if data.embed is not None and data.images_of is None:
        embedding = load_settings(EmbedConfig, base=data.embed)
        with suppress(AlreadyDone):
            source = open_source(store, embedding.source)
            embed_source(source, join(folder, FEATURES), embedding, mapper("embedding"))
