"""Names for classes that a source only numbers: a file with a name a line, the first for 0."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from schn_ray.core.errors import SchnRayError
from schn_ray.data.shards.rows import BadRow, Row, Shard, Source
from schn_ray.data.sources.listing import read_lines


@dataclass(frozen=True)
class NamedClasses:
    """A source whose labels are numbers, with names in their place."""

    source: Source
    names: tuple[str, ...]
    file: str

    @property
    def kind(self) -> str:
        """Name of the layout."""
        return self.source.kind

    @property
    def location(self) -> str:
        """Where the source is."""
        return self.source.location

    def shards(self) -> list[Shard]:
        """List the source's rows."""
        return self.source.shards()

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's rows; a label that is no line's number puts its row aside."""
        for row in self.source.read(shard):
            yield self._named(row) if isinstance(row, Row) else row

    def _named(self, row: Row) -> Row | BadRow:
        wrong = [label for label in row.labels if not self._has(label)]
        if wrong:
            reason = f"label {wrong[0]!r} is no number of the {len(self.names)} in {self.file}"
            return BadRow(row.id, row.uri, "read", reason)
        return replace(row, labels=tuple(self.names[int(label)] for label in row.labels))

    def _has(self, label: str) -> bool:
        number = label.isascii() and label.isdigit() and len(label) < 10
        return number and int(label) < len(self.names)


def with_class_names(source: Source, file: str) -> NamedClasses:
    """Give a source's classes the names in a file.

    Raises:
        SchnRayError: it cannot be read, or a name is missing or there twice.
    """
    names = tuple(line.strip() for line in read_lines(file))
    for number, name in enumerate(names):
        if not name or name in names[:number]:
            raise SchnRayError(
                f"{file}:{number + 1}: {'no name' if not name else f'{name!r} is there twice'}; "
                "wanted a name a line, the first for class 0"
            )
    return NamedClasses(source, names, file)
