"""Names for the classes of a source that only numbers them: a file with a name a line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from schn_ray.core.errors import SchnRayError
from schn_ray.data.shards.rows import BadRow, Row, Shard, Source, shards_after
from schn_ray.data.shards.vectors import VectorFormat, vectors_of
from schn_ray.data.sources.listing import read_lines


@dataclass(frozen=True)
class NamedClasses:
    """A source whose labels are class numbers, read with class names instead.

    Attributes:
        source: the source with numbers.
        names: the name of class 0, 1, ...
        file: where the names were read, for messages.
    """

    source: Source
    names: tuple[str, ...]
    file: str

    @property
    def kind(self) -> str:
        """Name of the layout."""
        return self.source.kind

    @property
    def location(self) -> str:
        """The source's location."""
        return self.source.location

    @property
    def vectors(self) -> VectorFormat | None:
        """The format of the source's vectors."""
        return vectors_of(self.source)

    def shards(self) -> Iterable[Shard]:
        """List the source's shards."""
        return self.source.shards()

    def shards_after(self, last: Shard) -> Iterable[Shard]:
        """List the source's shards that follow one of them."""
        return shards_after(self.source, last)

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's rows; a row whose label has no name becomes a ``BadRow``."""
        for row in self.source.read(shard):
            yield self._named(row) if isinstance(row, Row) else row

    def _named(self, row: Row) -> Row | BadRow:
        unnamed = [label for label in row.labels if not self._has(label)]
        if unnamed:
            reason = (
                f"label {unnamed[0]!r} has no name: {self.file} names 0 to {len(self.names) - 1}"
            )
            return BadRow(row.id, row.uri, "read", reason)
        return replace(row, labels=tuple(self.names[int(label)] for label in row.labels))

    def _has(self, label: str) -> bool:
        number = label.isascii() and label.isdigit() and len(label) < 10
        return number and int(label) < len(self.names)


def with_class_names(source: Source, file: str) -> NamedClasses:
    """Replace a source's class numbers by the names in a file.

    Args:
        source: its labels are numbers.
        file: a name a line, the first for class 0.

    Raises:
        SchnRayError: the file cannot be read, a line is empty, or a name is repeated.
    """
    names = tuple(line.strip() for line in read_lines(file))
    for number, name in enumerate(names):
        if not name or name in names[:number]:
            raise SchnRayError(
                f"{file}:{number + 1}: {'no name' if not name else f'{name!r} is repeated'}; "
                "expected a name on each line, the first for class 0"
            )
    return NamedClasses(source, names, file)
