"""Settings of ``check`` and ``prepare``: how a source is read, how its rows are split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from schn_ray.core.settings import Count, Section, Share


class SourceConfig(Section):
    """How to read what a user has; ``auto`` guesses the kind from the path.

    ``root`` is the folder that the paths of a list lie in, by default the list's own;
    ``strip_prefix`` is cut off the paths; those that lead out of it are put aside, unless
    ``allow_outside``. ``class_names`` is a file with a name a line, for labels that are numbers.
    """

    kind: Literal[
        "auto",
        "digits",
        "folder",
        "list",
        "lists",
        "paired",
        "csv",
        "metadata",
        "parquet",
        "arrow",
        "webdataset",
        "cifar10",
        "cifar100",
        "nuswide",
        "mirflickr",
        "coco",
        "voc",
        "market1501",
        "veri776",
        "store",
    ] = "auto"
    class_names: str | None = None
    root: str | None = None
    strip_prefix: str = ""
    allow_outside: bool = False
    path_column: str = "path"
    id_column: str = "id"
    image_column: str = "image"
    label_column: str = "label"
    split_column: str = "split"
    max_bad_share: Share = 0.01
    max_pixels: Count = 100_000_000
    shard_rows: Count = 2048


class SourceReader(Section):
    """Settings of a verb that reads a source.

    Attributes:
        source: how it is read.
    """

    source: SourceConfig = SourceConfig()

    def recorded(self) -> dict[str, Any]:
        """Return the settings that decide what is written, as a manifest records them."""
        values = self.model_dump(mode="json")
        del values["source"]["max_bad_share"]  # decides when to stop
        return values


class CheckConfig(SourceReader):
    """What ``check`` reads."""


class PrepareConfig(SourceReader):
    """What ``prepare`` writes: the rows of a source, and who is query, gallery and training.

    ``split_from`` is a file with the ids of a split that is there already. ``keep_unlabelled`` has
    rows without a label in the gallery. Images with a side above ``largest_side`` are stored
    smaller, as JPEGs of ``quality``. The protocol ``unseen-classes`` holds ``unseen_share`` of the
    classes out.
    """

    protocol: str = "random"
    split_from: str | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    query_share: Share = 0.1
    train_share: Share = 0.5
    validation_share: Share = 0.1
    unseen_share: Share = 0.25
    keep_unlabelled: bool = False
    largest_side: Count | None = None
    quality: Annotated[int, Field(ge=1, le=95)] = 90
