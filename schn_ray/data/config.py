"""Settings of ``check`` and ``prepare``: how a source is read, and how its rows are split."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from schn_ray.core.settings import Count, Section, Share


class SourceConfig(Section):
    """How to read a source of images, vectors and labels.

    Attributes:
        kind: layout of the source; ``auto`` guesses it from the path.
        class_names: file with a class name per line, for labels that are numbers.
        root: folder that the paths of a list are relative to; by default the list's own folder.
        strip_prefix: removed from the start of the paths of a list.
        allow_outside: accept paths that lead out of ``root``; by default they are quarantined.
        path_column: column of a table with the path of the image.
        id_column: column with the id.
        image_column: column with the encoded image.
        vector_column: column with vectors, lists of numbers; by default the one that is called
            ``embedding``, ``vector``, ``features`` or so, or the only one. An empty name reads
            images alone.
        vector_width: numbers of a vector; by default what most of the first rows have.
        label_column: column with the labels.
        split_column: column with the role that the data set gives a row.
        max_bad_share: ``prepare`` and ``encode`` stop if more than this share of rows is bad.
        max_pixels: larger images are quarantined.
        shard_rows: rows of a shard, the unit of work, at most; of vectors alone, 16 times as many.
            The first shards are smaller, so that workers share a small source, too.
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
        "npy",
        "datasets",
        "store",
    ] = "auto"
    class_names: str | None = None
    root: str | None = None
    strip_prefix: str = ""
    allow_outside: bool = False
    path_column: str = "path"
    id_column: str = "id"
    image_column: str = "image"
    vector_column: str | None = None
    vector_width: Count | None = None
    label_column: str = "label"
    split_column: str = "split"
    max_bad_share: Share = 0.01
    max_pixels: Count = 100_000_000
    shard_rows: Count = 2048


class SourceReader(Section):
    """Settings of a verb that reads a source.

    Attributes:
        source: how to read it.
    """

    source: SourceConfig = SourceConfig()

    def recorded(self) -> dict[str, Any]:
        """Return the settings that a manifest records: those that change what is written."""
        values = self.model_dump(mode="json")
        del values["source"]["max_bad_share"]  # only decides when to stop
        for name in ("vector_column", "vector_width"):
            if values["source"][name] is None:  # not there before there were vectors
                del values["source"][name]
        return values


class CheckConfig(SourceReader):
    """Settings of ``check``."""


class PrepareConfig(SourceReader):
    """Settings of ``prepare``.

    Attributes:
        protocol: how rows are split into queries, training rows and gallery; docs/datasets.md lists
            them.
        split_from: file with the ids of an existing split; then nothing is drawn.
        seed: of the random draw of the split.
        query_share: share of rows that are queries, for protocols that draw shares.
        train_share: share of rows that are training rows.
        validation_share: share of training rows that are held out for validation.
        unseen_share: share of classes that training never sees, for ``unseen-classes``.
        keep_unlabelled: put rows without a label into the gallery.
        largest_side: images with a longer side are stored smaller, as JPEG; in pixels.
        quality: JPEG quality of images that are stored smaller.
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
