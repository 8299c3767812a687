"""Verbs on images and stores: check, prepare."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schn_ray.cli.verbs.arguments import (
    Settings,
    Workers,
    finish,
    location_of,
    setting_lines,
    shards_mapper,
    source_of,
)
from schn_ray.cli.verbs.results import CheckResult, Output

if TYPE_CHECKING:
    from schn_ray.data.shards.rows import Source


def check(
    source: Path | str | Source, *, html: Path | str | None = None, settings: Settings = None
) -> CheckResult:
    """Count the rows and classes of a source, and list bad ones and duplicates.

    Every image is decoded, every vector checked. Nothing is written but the page.

    Args:
        source: a folder of images or one for each class, a list, Parquet, Arrow, ``.npy``, what
            ``datasets`` saved, tars, a published data set, a store, or ``"digits"``; a path or a
            URI.
        html: a page to write, with a few images of each class.
        settings: such as ``{"source.kind": "folder"}``.

    Returns:
        The report. ``print(result)`` shows it; ``result.report`` has the counts.

    Raises:
        SchnRayError: there is no such source, or its layout is unknown.

    Example:
        >>> result = check("digits")  # doctest: +SKIP
        >>> result.report.rows  # doctest: +SKIP
        1797
    """
    from schn_ray.core.progress import Progress
    from schn_ray.core.settings import load_settings
    from schn_ray.data.check import check_source
    from schn_ray.data.config import CheckConfig

    config = load_settings(CheckConfig, settings=setting_lines(settings)).source
    opened = source_of(source, config)
    with Progress("checking") as progress:
        report = check_source(opened, config, progress.advance, html is not None)
    if html is not None:
        from schn_ray.report.check import write_check_page

        write_check_page(report, Path(html))
    return CheckResult(report)


def prepare(
    source: Path | str | Source,
    out: Path | str,
    *,
    protocol: str | None = None,
    download: bool = False,
    seed: int | None = None,
    split_from: Path | str | None = None,
    largest_side: int | None = None,
    quality: int | None = None,
    update: bool = False,
    unseen_classes: float | None = None,
    config: Path | str | None = None,
    settings: Settings = None,
    workers: Workers | None = None,
) -> Output:
    """Read and check every image or vector of a source; write the training store and its split.

    Interrupted at any moment, the same call does only the rest.

    Args:
        source: see ``check``.
        out: the store's directory or URI.
        protocol: how rows are split, such as ``"cifar10-54k"``; default: random, or unlabelled if
            no row has a label.
        download: fetch CIFAR-10 or -100 into ``source`` first.
        seed: of the split; default: 0.
        split_from: a Parquet, CSV or JSON file with the role of each id.
        largest_side: pixels; larger images are stored smaller.
        quality: 1 to 95, of their JPEGs; default: 90.
        update: take in what is new, changed or gone in the source.
        unseen_classes: share of the classes that training does not see, such as 0.25.
        config: a YAML file of settings.
        settings: such as ``{"validation_share": 0.2}``; they override the file.
        workers: None: in this process. ``4``, ``"2:8"`` or ``"all"``: so many on Ray.

    Returns:
        The store: its path, with ``counts`` of rows stored and quarantined.

    Raises:
        SchnRayError: ``out`` holds something else, or the rows do not make this split.
        TooManyBadRows: more rows are bad than ``source.max_bad_share`` allows.

    Example:
        >>> store = prepare("photos", "store", seed=1)  # doctest: +SKIP
        >>> store.counts["rows"]  # doctest: +SKIP
        1200
    """
    from schn_ray.core.settings import load_settings
    from schn_ray.data.config import PrepareConfig

    if unseen_classes is not None:
        protocol = protocol or "unseen-classes"
    options = {
        "protocol": protocol,
        "seed": seed,
        "unseen_share": unseen_classes,
        "split_from": None if split_from is None else str(split_from),
        "largest_side": largest_side,
        "quality": quality,
    }
    lines = setting_lines(settings, options)
    loaded = load_settings(PrepareConfig, None if config is None else Path(config), lines)
    if download:
        _download(source, loaded.source.kind)

    from schn_ray.data.store.prepare import prepare_store

    target = location_of(out)
    shards = shards_mapper("preparing", workers, writes=target)
    opened = source_of(source, loaded.source)
    store = finish(out, lambda: prepare_store(opened, loaded, target, shards, update))
    if "protocol" in store.counts:
        chosen = (
            f"no row has a label, so the split is that of --protocol {store.counts['protocol']}"
        )
        store.note = f"{store.note}; {chosen}" if store.note else chosen
    return store


def _download(source: Path | str | Source, kind: str) -> None:
    from schn_ray.core.errors import SchnRayError
    from schn_ray.data.sources.cifar import download

    if not isinstance(source, str | Path):
        raise SchnRayError("download fetches into a folder; got an opened source, not a path")
    download(Path(source), kind)
