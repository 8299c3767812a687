"""WebDataset: tar files of samples. A sample is the files that share a name up to the first dot.

Its image is ``key.jpg`` (or another image format). Its label is ``key.cls``, a class number or
name, or a field of ``key.json``.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import posixpath
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any, NamedTuple

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import (
    filesystem_of,
    is_uri,
    join,
    kind_at,
    names_in,
    size_and_stamp,
)
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import BadRow, Row, Shard, cut, units_of
from schn_ray.data.sources.folder import EXTENSIONS
from schn_ray.data.sources.listing import label_names, split_word
from schn_ray.data.sources.tables import next_rows

_MAX_FIELD_BYTES = 1 << 20  # of a .cls or .json; a longer one is not a label


class Member(NamedTuple):
    """A file of a sample: its extension, and the position and size of its bytes in the tar."""

    extension: str
    start: int
    size: int


class Sample(NamedTuple):
    """The files that share a key."""

    key: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class WebDataset:
    """A tar file or a folder of them; a row's id is ``name.tar/key``.

    A tar or folder that is called train, test and so on sets the split of its rows. Compressed tars
    are refused, as a sample cannot be read without unpacking all before it.
    """

    location: str
    config: SourceConfig
    kind: str = "webdataset"

    def shards(self) -> Iterator[Shard]:
        """List the samples, tar by tar; a tar is opened when its turn comes.

        Raises:
            SchnRayError: no tar, a damaged one, or no samples.
        """
        return self._shards_after(None)

    def shards_after(self, last: Shard) -> Iterator[Shard]:
        """List the shards that follow one of ``shards``; tars before it are not opened."""
        return self._shards_after(last)

    def _shards_after(self, last: Shard | None) -> Iterator[Shard]:
        names = self._names()
        number, first_tar, first_sample = next_rows(last, names)
        for name in names[first_tar:]:
            size, stamp = size_and_stamp(self._tar(name))
            count = len(samples_of(self._tar(name), stamp))
            for start, rows in cut(count, self.config.shard_rows, first_sample, number):
                yield Shard(number, rows, start, (name,), size, (stamp,))
                number += 1
            first_sample = 0
        if not number:
            raise SchnRayError(f"{self.location}: no samples in there")

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's samples."""
        for unit in units_of(shard):
            location = self._tar(unit.file)
            samples = samples_of(location, unit.stamp)[unit.start : unit.start + unit.rows]
            with _opened(location) as file:
                for row, sample in enumerate(samples, unit.start):
                    yield self._row(file, unit.file, f"{location}#{row}", sample)

    def _row(self, file: IO[bytes], name: str, uri: str, sample: Sample) -> Row | BadRow:
        row_id = f"{name}/{sample.key}"
        image = image_of(sample)
        if image is None:
            extensions = ", ".join(sorted(member.extension for member in sample.members))
            return BadRow(row_id, uri, "read", f"no image in this sample, only: {extensions}")
        try:
            labels = _labels(file, sample, self.config.label_column)
        except ValueError as error:
            return BadRow(row_id, uri, "read", str(error))
        splits = (split_word(part.split(".")[0]) for part in reversed(name.split("/")))
        split = next((split for split in splits if split), None)
        return Row(row_id, _bytes_of(file, image), labels, uri, split)

    def _names(self) -> list[str]:
        if kind_at(self.location) == "file":
            return [posixpath.basename(self.location)]
        names = names_in(self.location)
        below = [f"{d}/{n}" for d in names if split_word(d) for n in names_in(self._tar(d))]
        tars = sorted(name for name in [*names, *below] if name.endswith(".tar"))
        if not tars:
            raise SchnRayError(f"{self.location}: no .tar files in there")
        return tars

    def _tar(self, name: str) -> str:
        # a folder may have a file of its own name, so that the name alone does not decide
        is_tar = name == posixpath.basename(self.location) and kind_at(self.location) == "file"
        return self.location if is_tar else join(self.location, name)


def has_tars(location: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has tar files.

    Args:
        location: the folder.
        names: the names in it.
    """
    return any(name.endswith(".tar") for name in names)


def tar_image(location: str, row: int) -> bytes:
    """Return the image of one sample.

    Args:
        location: a tar file, a path or a URI.
        row: the sample's number in the tar, from 0.

    Raises:
        IndexError: the tar has no such sample.
        SchnRayError: a damaged tar, or a sample without an image.
    """
    image = image_of(samples_of(location, size_and_stamp(location)[1])[row])
    if image is None:
        raise SchnRayError(f"{location}: sample {row} has no image")
    with _opened(location) as file:
        return _bytes_of(file, image)


@functools.lru_cache(maxsize=4)
def samples_of(location: str, stamp: str) -> tuple[Sample, ...]:
    """List the samples of a tar; only its headers are read.

    Args:
        location: a tar file, a path or a URI.
        stamp: of the file; another stamp reads it again.

    Raises:
        SchnRayError: a damaged or compressed tar.
    """
    members_of: dict[str, list[Member]] = {}
    with _opened(location) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        end = 0
        for info in tar:
            end = max(end, info.offset_data + info.size)
            folder, name = posixpath.split(info.name.removeprefix("./"))
            key, dot, extension = name.partition(".")
            if info.isfile() and key and dot:
                member = Member(f".{extension.lower()}", info.offset_data, info.size)
                members_of.setdefault(posixpath.join(folder, key), []).append(member)
        # a tar ends with blocks of zeros; without them it may have been cut between two samples
        if file.seek(0, os.SEEK_END) < end + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is cut short")
    return tuple(Sample(key, tuple(members)) for key, members in members_of.items())


def image_of(sample: Sample) -> Member | None:
    """Return the sample's first image in the order of the tar; None if it has none.

    Args:
        sample: its files.
    """
    images = (m for m in sample.members if f".{m.extension.rsplit('.')[-1]}" in EXTENSIONS)
    return next(images, None)


def _labels(file: IO[bytes], sample: Sample, column: str) -> tuple[str, ...]:
    fields = {member.extension: member for member in sample.members}
    if ".cls" in fields:
        return label_names(_text_of(file, fields[".cls"]).strip() or None)
    if ".json" not in fields:
        return ()
    try:
        values = json.loads(_text_of(file, fields[".json"]))
    except RecursionError as error:
        raise ValueError("its .json is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"its .json is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"its .json holds a {type(values).__name__}; expected an object")
    return label_names(values.get(column, values.get("labels")))


def _text_of(file: IO[bytes], member: Member) -> str:
    if member.size > _MAX_FIELD_BYTES:
        raise ValueError(f"its {member.extension} has {member.size:,} bytes, too many for a label")
    return _bytes_of(file, member).decode()


def _bytes_of(file: IO[bytes], member: Member) -> bytes:
    file.seek(member.start)
    return file.read(member.size)


@contextlib.contextmanager
def _opened(location: str) -> Iterator[Any]:
    try:
        if not is_uri(location):
            with open(location, "rb") as local:
                yield local
            return
        filesystem, path = filesystem_of(location)
        with filesystem.open_input_file(path) as remote:
            yield remote
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SchnRayError(
            f"{location} cannot be read as a tar ({error}); if it is compressed, unpack it first"
        ) from error
