"""What was requested of ``build``: recorded in the album, so that the next call does the same."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from schn_ray.cli.album.parts import ALBUM
from schn_ray.cli.album.survey import Survey
from schn_ray.core.atomic_files import write_json, writing
from schn_ray.core.directories import difference
from schn_ray.core.documents import parse_json
from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import Count, Section, Share, load_settings
from schn_ray.data.config import CheckConfig, SourceConfig
from schn_ray.data.shards.rows import Source
from schn_ray.data.sources.kinds import open_source
from schn_ray.models.backbones.backbone import DEFAULT
from schn_ray.models.backbones.efficientnet_lite0 import EFFICIENTNET_LITE0
from schn_ray.models.config import BackboneConfig

_QUERIES, _TRAINED = 1_000, 20_000  # rows that are enough to measure on, and to train a head on
_FEWEST_QUERIES = 30
_SHARDS = 32  # at least, of a small source: so many can be worked on at once, and be resumed
_SMALLEST_SHARD, _LARGEST_SHARD = 64, 2_048
_OF_SOURCE = "source."


class BuildOptions(Section):
    """What the user named; None: ``build`` decides.

    Attributes:
        source: absolute path or URI of the photos or embeddings.
        backbone: computes the features of photos.
        weights: of the backbone.
        method: learns the codes.
        bits: of a code.
        fine_tune: whether the backbone is trained, too.
        settings: lines such as ``source.kind=list``, as after ``--set``.
    """

    source: str
    backbone: str | None = None
    weights: str | None = None
    method: str | None = None
    bits: Count | None = None
    fine_tune: bool = False
    settings: tuple[str, ...] = ()

    @property
    def backbone_config(self) -> BackboneConfig:
        """The backbone of photos."""
        name = self.backbone or EFFICIENTNET_LITE0
        return BackboneConfig(name=name, weights=self.weights or DEFAULT, frozen=True)

    @property
    def source_settings(self) -> tuple[str, ...]:
        """Those of the settings that say how the photos are read."""
        return tuple(line for line in self.settings if line.startswith(_OF_SOURCE))

    @property
    def training_settings(self) -> tuple[str, ...]:
        """The other settings."""
        return tuple(line for line in self.settings if not line.startswith(_OF_SOURCE))

    def open_source(self) -> tuple[Source, SourceConfig]:
        """Open the photos; return them and how they are read.

        Raises:
            SchnRayError: there is no such source, or an unknown setting of it.
        """
        config = load_settings(CheckConfig, settings=self.source_settings).source
        return open_source(self.source, config), config


class AlbumRequest(Section):
    """The content of ``album.json``.

    Attributes:
        options: what the user named.
        vectors: whether the source has embeddings and no images.
        query_share: share of the rows that are queries of the evaluation.
        train_share: share of the rows that the model is trained on.
        shard_rows: rows that are worked on, and done again after a kill, at once.
        seconds_each: that an image took when the album was begun.
        format: of this file.
    """

    options: BuildOptions
    vectors: bool
    query_share: Share
    train_share: Share
    shard_rows: Count
    seconds_each: float
    format: int = 1

    @property
    def backbone(self) -> BackboneConfig | None:
        """The backbone of photos; None for embeddings."""
        return None if self.vectors else self.options.backbone_config


def sized_request(options: BuildOptions, survey: Survey) -> AlbumRequest:
    """Return the request of a new album, with shares and shards for this many rows.

    Args:
        options: what the user named.
        survey: of the source.

    Raises:
        SchnRayError: an option that embeddings have no use for.
    """
    named = [name for name in ("backbone", "weights", "fine_tune") if getattr(options, name)]
    if survey.vectors and named:
        raise SchnRayError(
            f"{options.source} has embeddings and no images: leave "
            f"--{named[0].replace('_', '-')} out"
        )
    rows = survey.rows
    return AlbumRequest(
        options=options,
        vectors=survey.vectors,
        query_share=min(0.25, max(_FEWEST_QUERIES / rows, min(0.1, _QUERIES / rows))),
        train_share=min(0.5, _TRAINED / rows),
        shard_rows=min(_LARGEST_SHARD, max(_SMALLEST_SHARD, rows // _SHARDS)),
        seconds_each=survey.seconds_each,
    )


def require_free(album: Path) -> None:
    """Refuse a directory that has content.

    Args:
        album: the directory of a new album.

    Raises:
        SchnRayError: it is a file, or holds something.
    """
    if album.is_file() or (album.is_dir() and any(album.iterdir())):
        raise SchnRayError(
            f"{album} holds something that schn-ray build did not make; name a new or empty "
            "directory"
        )


def write_request(album: Path, request: AlbumRequest) -> None:
    """Write ``album.json``: from now on, the directory is an album.

    Args:
        album: the directory; created if missing.
        request: of this album.

    Raises:
        CannotWrite: it cannot be written.
    """
    with writing(album):
        album.mkdir(parents=True, exist_ok=True)
    write_json(album / ALBUM, request.model_dump(mode="json"))


def read_request(album: Path, options: BuildOptions) -> AlbumRequest | None:
    """Read the request of an album, if there is one.

    Args:
        album: the directory.
        options: what the user names now; what is None is as before. The photos may lie elsewhere:
            the verbs that read them know them by their files.

    Raises:
        SchnRayError: the album was made with other options, or the file is damaged.
    """
    file = album / ALBUM
    if not file.is_file():
        return None
    try:
        request = AlbumRequest.model_validate(parse_json(file.read_bytes(), str(file)))
    except (ValueError, ValidationError, SchnRayError) as error:
        raise SchnRayError(f"{file} is damaged; remove {album} to build it again") from error
    moved = request.options.model_copy(update={"source": options.source})
    before = moved.model_dump(mode="json")
    named = {key: value for key, value in options.model_dump(mode="json").items() if value}
    if lines := difference(before, before | named):
        raise SchnRayError(
            f"{album} was built with other options; name another directory, or remove it.\n  "
            + "\n  ".join(lines)
        )
    return request.model_copy(update={"options": moved})
