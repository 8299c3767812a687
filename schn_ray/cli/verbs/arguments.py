"""What verbs accept: paths or opened objects, settings, numbers of workers."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from schn_ray.cli.verbs.results import Output

if TYPE_CHECKING:
    from schn_ray.core.answered import AnsweredRequest
    from schn_ray.core.manifest import Manifest
    from schn_ray.data.shards.map_shards import MapShards, Numbered
    from schn_ray.data.shards.rows import Source
    from schn_ray.data.store.reader import Store
    from schn_ray.retrieval.index.index import Index

T = TypeVar("T")
Piece = TypeVar("Piece", bound="Numbered")
ALL = "all"  # as many workers as the cluster has CPUs
Settings = Mapping[str, Any] | Sequence[str] | None
Workers = int | str | tuple[int, int]


def location_of(path: Path | str | Store | Index) -> str:
    """Return the path or URI of a directory, given as such or opened.

    Args:
        path: a path, a URI, a ``Store`` or an ``Index``. An index that was opened at a URI has
            the path of its copy on this machine.

    Returns:
        The text as it came, if it was text.

    Raises:
        SchnRayError: an index with a filter, which its path does not have.
    """
    if isinstance(path, str):
        return str(path)
    if getattr(path, "is_filtered", False):
        from schn_ray.core.errors import SchnRayError

        raise SchnRayError(
            "a verb would forget the filter of this index: give it the index, and where=..., or "
            "call the index's own search"
        )
    from schn_ray.core.storage.files import as_location

    if isinstance(path, Path):
        text = str(path)
        # pathlib makes s3:/bucket of s3://bucket
        return as_location(path) if ":/" in text else text
    return str(getattr(path, "location", None) or path.path)


def source_of(source: Path | str | Source, config: Any) -> Source:
    """Return an opened source of images.

    Args:
        source: a path, a URI, ``"digits"``, a data set of Hugging Face's ``datasets``, or a source
            that is open already.
        config: a ``SourceConfig``: limits, and the kind of the source if it is not to be guessed.

    Raises:
        SchnRayError: nothing at this address, or no layout that is known.
    """
    if not isinstance(source, str | Path):
        from schn_ray.data.sources.dataset_objects import is_dataset, open_dataset

        return open_dataset(source, config) if is_dataset(source) else source
    from schn_ray.data.sources.kinds import open_source

    return open_source(location_of(source), config)


def setting_lines(settings: Settings, options: Mapping[str, Any] | None = None) -> tuple[str, ...]:
    """Return options and settings as ``key=value`` lines, the settings last, so that they win.

    Args:
        settings: ``{"schedule.iterations": 5}``, nested or with dots, or lines as after ``--set``.
        options: name of a setting -> the value of an option; None where it was not given.

    >>> setting_lines({"loss": {"cycle": 0}, "bits": 16}, {"seed": 3, "protocol": None})
    ('seed=3', 'loss={"cycle": 0}', 'bits=16')
    """
    given = {key: value for key, value in (options or {}).items() if value is not None}
    lines = tuple(f"{key}={json.dumps(value, default=str)}" for key, value in given.items())
    if isinstance(settings, Mapping):
        return lines + setting_lines(None, settings)
    return lines + tuple(settings or ())


def listed(values: Any) -> list[Any]:
    """Return one value or more as a list: a string or a path is one.

    Args:
        values: one, a sequence of them, or None for none.

    >>> listed("a.jpg"), listed(None), listed(("a", "b"))
    (['a.jpg'], [], ['a', 'b'])
    """
    if values is None:
        return []
    return [values] if isinstance(values, str | Path) else list(values)


def worker_range(workers: Workers) -> tuple[int, int] | None:
    """Return the fewest and the most workers; None for ``"all"``.

    Args:
        workers: 4, "4", "2:8", (2, 8) or "all".

    Raises:
        SchnRayError: none of these.
    """
    from schn_ray.core.settings import parse_workers

    if workers == ALL:
        return None
    if isinstance(workers, tuple):
        workers = ":".join(map(str, workers))
    return parse_workers(str(workers))


def shards_mapper(
    what: str,
    workers: Workers | None,
    gpus: bool = False,
    writes: str | None = None,
    unit: str = "rows",
) -> MapShards:
    """Return what applies a function to all shards: this process, or actors on Ray.

    Args:
        what: the work's name on the progress line.
        workers: None for this process; else see ``worker_range``.
        gpus: whether actors share the cluster's GPUs.
        writes: the output; every node must see it.
        unit: name of what the progress line counts.

    Raises:
        SchnRayError: not a number of workers, or Ray is not installed.
    """
    if workers is None:
        from schn_ray.data.shards.map_shards import map_locally

        return map_locally
    require_ray(what)
    size = worker_range(workers)

    def map_on_ray(function: Callable[[Piece], T], shards: Iterable[Piece]) -> Iterable[T]:
        # not before there is work: "finished already" is said without Ray
        from schn_ray.cluster.map_shards import RayShards

        return RayShards(what, size, gpus, writes, unit)(function, shards)

    return map_on_ray


def require_ray(what: str) -> None:
    """Refuse work on Ray where Ray is not installed.

    Args:
        what: the work, such as "tuning".

    Raises:
        SchnRayError: with the install line.
    """
    from schn_ray.core.errors import SchnRayError

    if importlib.util.find_spec("ray") is None:
        raise SchnRayError(
            f"{what} on workers needs Ray, which is not installed: pip install 'schn-ray[ray]'. "
            "Most verbs run in this process without: leave --workers out"
        )


def finish(
    out: Path | str, work: Callable[[], Manifest], request: AnsweredRequest | None = None
) -> Output:
    """Run ``work``, which writes ``out``; an output that is finished already is returned as it is.

    Args:
        out: the directory or URI.
        work: returns the manifest, or raises ``AlreadyDone``.
        request: to be known again without work; None: it is compared each time.
    """
    from schn_ray.core.directories import AlreadyDone
    from schn_ray.core.manifest import read_manifest

    try:
        output = Output(location_of(out), work())
    except AlreadyDone as done:
        output = Output(location_of(out), read_manifest(done.path, done.kind), str(done))
    if request is not None:
        request.remember()
    return output


def finished_before(request: AnsweredRequest | None, kind: str) -> Output | None:
    """Return the output of a request that is known to be finished.

    Args:
        request: see ``finish``.
        kind: of the output, see ``Manifest``.
    """
    if request is None or not request.is_finished():
        return None
    from schn_ray.core.directories import AlreadyDone

    def work() -> Manifest:
        raise AlreadyDone(request.out, kind)

    return finish(str(request.out), work)
