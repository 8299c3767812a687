"""WebDataset: tars of samples, a sample being the files that share a name up to its first dot.

An image is ``key.jpg`` (or another image format), its label ``key.cls`` (a class number or name) or
a field of ``key.json``.
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

_MOST_OF_A_FIELD = 1 << 20  # bytes of a .cls or .json; more is no label


class Member(NamedTuple):
    """A file of a sample: its extension, and where in the tar its bytes are."""

    extension: str
    start: int
    size: int


class Sample(NamedTuple):
    """The files that share a key."""

    key: str
    members: tuple[Member, ...]


@dataclass(frozen=True)
class WebDataset:
    """A tar or a folder of them; a row's id is ``name.tar/key``.

    A folder or tar that is called train, test ... says so of its rows. Compressed tars are refused,
    as nothing in them can be looked up.
    """

    location: str
    config: SourceConfig
    kind: str = "webdataset"

    def shards(self) -> list[Shard]:
        """List the samples, tar by tar.

        Raises:
            SchnRayError: no tar, a damaged one, or no samples.
        """
        shards: list[Shard] = []
        for name in self._names():
            size, at = size_and_stamp(self._place(name))
            count = len(samples_of(self._place(name), at))
            for start, rows in cut(count, self.config.shard_rows):
                shards.append(Shard(len(shards), rows, start, (name,), size, (at,)))
        if not shards:
            raise SchnRayError(f"{self.location}: no samples in there")
        return shards

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's samples."""
        for unit in units_of(shard):
            place = self._place(unit.file)
            samples = samples_of(place, unit.stamp)[unit.start : unit.start + unit.rows]
            with _opened(place) as file:
                for row, sample in enumerate(samples, unit.start):
                    yield self._row(file, unit.file, f"{place}#{row}", sample)

    def _row(self, file: IO[bytes], name: str, uri: str, sample: Sample) -> Row | BadRow:
        row_id = f"{name}/{sample.key}"
        image = image_of(sample)
        if image is None:
            there = ", ".join(sorted(member.extension for member in sample.members))
            return BadRow(row_id, uri, "read", f"no image in this sample, only: {there}")
        try:
            labels = _labels(file, sample, self.config.label_column)
        except ValueError as error:
            return BadRow(row_id, uri, "read", str(error))
        words = (split_word(part.split(".")[0]) for part in reversed(name.split("/")))
        word = next((word for word in words if word), None)
        return Row(row_id, _bytes_of(file, image), labels, uri, word)

    def _names(self) -> list[str]:
        if kind_at(self.location) == "file":
            return [posixpath.basename(self.location)]
        here = names_in(self.location)
        below = [f"{d}/{n}" for d in here if split_word(d) for n in names_in(self._place(d))]
        found = sorted(name for name in [*here, *below] if name.endswith(".tar"))
        if not found:
            raise SchnRayError(f"{self.location}: no .tar files in there")
        return found

    def _place(self, name: str) -> str:
        is_it = name == posixpath.basename(self.location) and kind_at(self.location) == "file"
        return self.location if is_it else join(self.location, name)


def has_tars(place: str, names: frozenset[str]) -> bool:
    """Tell whether a folder has tars."""
    return any(name.endswith(".tar") for name in names)


def tar_image(place: str, row: int) -> bytes:
    """Return one image; ``IndexError`` where there is no such sample.

    Raises:
        SchnRayError: a damaged tar, or a sample without an image.
    """
    image = image_of(samples_of(place, size_and_stamp(place)[1])[row])
    if image is None:
        raise SchnRayError(f"{place}: sample {row} has no image")
    with _opened(place) as file:
        return _bytes_of(file, image)


@functools.lru_cache(maxsize=4)
def samples_of(place: str, at: str) -> tuple[Sample, ...]:
    """List the samples of a tar, read from its headers alone; ``at`` is its stamp."""
    found: dict[str, list[Member]] = {}
    with _opened(place) as file, tarfile.open(fileobj=file, mode="r:") as tar:
        end = 0
        for info in tar:
            end = max(end, info.offset_data + info.size)
            folder, name = posixpath.split(info.name.removeprefix("./"))
            key, dot, extension = name.partition(".")
            if info.isfile() and key and dot:
                member = Member(f".{extension.lower()}", info.offset_data, info.size)
                found.setdefault(posixpath.join(folder, key), []).append(member)
        # a tar ends with blocks of zeros; without them it may have been cut between two samples
        if file.seek(0, os.SEEK_END) < end + tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it is cut short")
    return tuple(Sample(key, tuple(members)) for key, members in found.items())


def image_of(sample: Sample) -> Member | None:
    """Return the sample's image, the first in the tar, or None."""
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
        raise ValueError("its .json is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"its .json is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"its .json holds a {type(values).__name__}; wanted an object")
    return label_names(values.get(column, values.get("labels")))


def _text_of(file: IO[bytes], member: Member) -> str:
    if member.size > _MOST_OF_A_FIELD:
        raise ValueError(f"its {member.extension} has {member.size:,} bytes, too many for a label")
    return _bytes_of(file, member).decode()


def _bytes_of(file: IO[bytes], member: Member) -> bytes:
    file.seek(member.start)
    return file.read(member.size)


@contextlib.contextmanager
def _opened(place: str) -> Iterator[Any]:
    try:
        if not is_uri(place):
            with open(place, "rb") as local:
                yield local
            return
        filesystem, path = filesystem_of(place)
        with filesystem.open_input_file(path) as remote:
            yield remote
    except (tarfile.TarError, EOFError, OSError) as error:
        raise SchnRayError(
            f"{place} cannot be read as a tar ({error}); compressed ones have to be unpacked first"
        ) from error
