"""Images named by a list: a text file with a path a line, or a CSV with a column of paths.

A text line is ``path``, ``path class`` (a whole number), or ``path l1 ... lC`` of 0 and 1 as
HashNet's lists have them; labels are then the places of the ones. The first line says which. A CSV
has a header with ``path``, and perhaps ``labels`` (with ``;`` between them) and ``id``.

Paths are relative to ``source.root``, by default the list's folder, after ``source.strip_prefix``
has been cut off. ``../`` and absolute paths are followed as long as they stay below that folder;
what leads out of it is put aside, so that a list from elsewhere cannot have other files read,
unless ``source.allow_outside`` says so.
"""

from __future__ import annotations

import csv
import io
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from schn_ray.config import SourceConfig
from schn_ray.errors import SchnRayError, nearest
from schn_ray.sources.folder import printable
from schn_ray.sources.places import OutsideRootError, Root, is_uri, read_file, size_and_stamp
from schn_ray.sources.rows import BadRow, Entry, Row, Shard, Unit, cut, units_of

_LINE = re.compile(r"(.*?\S)((?:\s+[0-9]+)*)\s*")
_Listed = tuple[str, Entry]  # the path, and what the list says of it


@dataclass(frozen=True)
class Listed:
    """Images of a list; a row's id is its path as the list has it, or the CSV's column of ids.

    The list and the images may be at URIs. The stamp of a local image is its size and time of
    change; images at URIs have none, as asking for a million of them takes hours: there, an
    update notices what is new in the list and what is gone from it.
    """

    location: str
    config: SourceConfig
    kind: str = "list"

    def shards(self) -> list[Shard]:
        """List the lines.

        Raises:
            SchnRayError: nothing listed, or no CSV with a column of paths.
        """
        try:
            text = read_file(self.location).decode("utf-8-sig", "surrogateescape")
        except OSError as error:
            reason = error.strerror or error
            raise SchnRayError(f"{self.location} cannot be read: {reason}") from error
        read = self._csv if self.kind == "csv" else _lines
        listed = list(read(text))
        if not listed:
            raise SchnRayError(f"{self.location}: no images listed in there")
        runs = cut(len(listed), self.config.shard_rows)
        return [
            self._shard(number, listed[start : start + count])
            for number, (start, count) in enumerate(runs)
        ]

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Read the shard's images."""
        root = root_of(self.location, self.config)
        for unit in units_of(shard):
            yield self._row(root, unit)

    def _row(self, root: Root, unit: Unit) -> Row | BadRow:
        entry = unit.entry
        assert entry is not None
        line = f"{self.location}:{entry.line}"
        if entry.problem:
            return BadRow(printable(entry.id), line, "read", f"line {entry.line}: {entry.problem}")
        found = fetch_listed(root, unit.file, entry.id)
        if isinstance(found, BadRow):
            return BadRow(found.id, line, "read", f"line {entry.line}: {found.reason}")
        place, image = found
        return Row(entry.id, image, entry.labels, place)

    def _shard(self, number: int, listed: list[_Listed]) -> Shard:
        root = root_of(self.location, self.config)
        found = [_size_and_stamp(root, path) for path, _ in listed]
        # another id in the list is a change, too
        stamps = tuple(
            at if entry.id == path else f"{at} {printable(entry.id)}"
            for (_, at), (path, entry) in zip(found, listed, strict=True)
        )
        files, entries = zip(*listed, strict=True)
        size = sum(size for size, _ in found)
        return Shard(number, len(listed), 0, files, size, stamps, entries)

    def _csv(self, text: str) -> Iterator[_Listed]:
        reader = csv.reader(io.StringIO(text, newline=""))
        try:
            header = [name.strip() for name in next(reader, [])]
            columns = self._columns(header)
            for cells in reader:
                if cells:
                    yield _record(cells, columns, len(header), reader.line_num)
        except csv.Error as error:
            raise SchnRayError(f"{self.location}:{reader.line_num}: not CSV: {error}") from error

    def _columns(self, header: list[str]) -> tuple[int, int | None, int | None]:
        """Return the places of path, labels and id."""
        config = self.config
        if config.path_column not in header:
            raise SchnRayError(
                f"{self.location}: no column '{config.path_column}'"
                f"{nearest(config.path_column, header)} Its first line is: {', '.join(header)}; "
                "wanted a header. Say which column holds the paths with --set "
                "source.path_column=NAME"
            )
        labels = config.label_column if config.label_column in header else "labels"
        places = {name: place for place, name in enumerate(header)}
        return places[config.path_column], places.get(labels), places.get(config.id_column)


def root_of(location: str, config: SourceConfig) -> Root:
    """Return the folder that the paths of a list, or of a Parquet file, lie in."""
    return Root(
        config.root or posixpath.dirname(location), config.strip_prefix, not config.allow_outside
    )


def fetch_listed(root: Root, path: str, row_id: str) -> tuple[str, bytes] | BadRow:
    """Return the place and the bytes of an image that a list names, or why there are none."""
    place = path
    try:
        path.encode()
        place = root.place(path)
        return place, read_file(place)
    except UnicodeEncodeError:
        reason = "its name is not UTF-8; rename the file"
    except OutsideRootError as error:
        reason = str(error)
    except (OSError, ValueError, SchnRayError) as error:
        reason = getattr(error, "strerror", None) or str(error)
    return BadRow(printable(row_id), printable(place), "read", reason)


def _lines(text: str) -> Iterator[_Listed]:
    wanted: int | None = None
    for number, line in enumerate(text.split("\n"), 1):
        if found := _LINE.fullmatch(line):
            path, fields = found[1], found[2].split()
            wanted = len(fields) if wanted is None else wanted
            yield path, _entry(path, fields, wanted, number)


def _entry(path: str, fields: list[str], wanted: int, line: int) -> Entry:
    if len(fields) != wanted:
        problem = f"{1 + len(fields)} fields, where the first line has {1 + wanted}"
        return Entry(path, (), line, problem)
    if wanted < 2:
        return Entry(path, tuple(str(int(field)) for field in fields), line)
    if not set(fields) <= {"0", "1"}:
        return Entry(path, (), line, "labels other than 0 and 1")
    return Entry(path, tuple(str(c) for c, field in enumerate(fields) if field == "1"), line)


def _record(
    cells: list[str], columns: tuple[int, int | None, int | None], wanted: int, line: int
) -> _Listed:
    if len(cells) != wanted:
        problem = f"{len(cells)} fields, where the header has {wanted}"
        return cells[0], Entry(cells[0], (), line, problem)
    path, labels, row_id = (None if column is None else cells[column] for column in columns)
    names = [name.strip() for name in (labels or "").split(";")]
    entry = Entry(row_id or path or "", tuple(dict.fromkeys(filter(None, names))), line)
    return path or "", entry if path else entry._replace(problem="no path")


def _size_and_stamp(root: Root, path: str) -> tuple[int, str]:
    try:
        place = root.place(path)
        return (0, "") if is_uri(place) else size_and_stamp(place)
    except (OSError, ValueError):
        return 0, "unreadable"
