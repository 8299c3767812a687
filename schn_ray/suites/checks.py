"""What can be checked of a suite before any work: a typing mistake should not show after hours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

from schn_ray.core.directories import LOCK, PROBE_PREFIX
from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import load_settings
from schn_ray.core.storage.files import is_uri
from schn_ray.data.config import PrepareConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.splits.protocols import find_protocol
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.models.embed import EmbedConfig
from schn_ray.suites.cells import CELLS, Cell, cell_config
from schn_ray.suites.suite import DATA, STORE, DataSet, Suite, store_location


def check_suite(suite: Suite, out: str) -> None:
    """Check the settings of all verbs of a suite, the places of its data, and its directory.

    Args:
        suite: as ``read_suite`` returned it.
        out: directory or URI of the suite.

    Raises:
        SchnRayError: a setting that its verb does not have, or that no method has; a data set that
            is not there; or ``out`` holds something else.
    """
    _require_own(out)
    for name, data in suite.placed.items():
        _check_data(name, data, store_location(name, out))
    with _named("evaluate"):
        load_settings(EvaluateConfig, base=deepcopy(suite.evaluate))
    cells = [Cell(0, "", name, suite.bits[0], suite.seeds[0]) for name in suite.method_names]
    errors = [error for cell in cells if (error := _error(cell, suite)) is not None]
    if len(errors) == len(cells):  # else a method that lacks a setting is named, and others go on
        raise errors[0]


def _check_data(name: str, data: DataSet, store: str) -> None:
    with _named(f"{DATA}.{name}.prepare"):
        config = load_settings(PrepareConfig, base=deepcopy(data.prepare))
        if config.split_from is None:
            find_protocol(config.protocol)
    if data.source is not None and data.source != store:
        with _named(f"{DATA}.{name}"):
            open_source(data.source, config.source)
    if data.embed is not None:
        with _named(f"{DATA}.{name}.embed"):
            load_settings(EmbedConfig, base=deepcopy(data.embed))


@contextmanager
def _named(part: str) -> Iterator[None]:
    """Say which part of the suite an error is about."""
    try:
        yield
    except SchnRayError as error:
        raise SchnRayError(f"{part}: {error}") from error


def _error(cell: Cell, suite: Suite) -> SchnRayError | None:
    try:
        cell_config(cell, suite, {})
    except SchnRayError as error:
        return error
    return None


def _require_own(out: str) -> None:
    """Refuse a directory that has content and no part of a suite."""
    path = Path(out)
    if is_uri(out) or not path.is_dir():
        return
    begun = (path / CELLS).is_dir() or any(path.glob(f"{DATA}/*/{STORE}"))
    others = [p for p in path.iterdir() if p.name != LOCK and not p.name.startswith(PROBE_PREFIX)]
    if others and not begun:
        raise SchnRayError(
            f"{out} holds something that schn-ray did not make; name a new or empty directory"
        )
