"""The file of groups: from an index or codes to Parquet, with lists of what to keep and remove.

Two distinct codes are neighbours if they differ in at most r bits. A group is a connected component
of the graph of neighbours (single linkage), so two of its codes may be farther apart than r.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.atomic_files import FileWriter, writing
from schn_ray.core.directories import scratch_folder
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.cache import directory_kind
from schn_ray.core.storage.files import as_location
from schn_ray.retrieval.duplicates.bands import distances_between, group_starts, word_view
from schn_ray.retrieval.duplicates.best import (
    UNKNOWN,
    ImageFacts,
    choose_best,
    id_lines,
    read_facts,
)
from schn_ray.retrieval.duplicates.connected import connected_labels
from schn_ray.retrieval.index.build import write_bare_index
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.index.scan import Bytes

_ROWS_AT_ONCE = 1 << 16
_LISTS = ("keep.txt", "remove.txt", "remove-paths.txt")
Keep = Literal["best"]


@dataclass(frozen=True)
class DuplicateCounts:
    """Sizes of the groups.

    Attributes:
        rows: images of the gallery.
        groups: groups of at least two images.
        in_groups: images in any group.
        largest: images of the largest group.
        removable: images that the lists say to remove; None without lists.
        unreadable: images in groups whose size could not be read; None without lists.
    """

    rows: int
    groups: int
    in_groups: int
    largest: int
    removable: int | None = None
    unreadable: int | None = None

    def __str__(self) -> str:
        text = (
            f"{self.groups:,} groups, the largest of {self.largest:,}; they hold "
            f"{self.in_groups:,} of {self.rows:,} images"
        )
        if self.removable is not None:
            text += f"; {self.removable:,} of them to remove"
        if self.unreadable:
            text += f"; {self.unreadable:,} could not be read, so their size is unknown"
        return text


class GroupedRows(Protocol):
    """The m images that are in groups: sorted by group, then by id.

    Attributes:
        groups: int64 [m], from 0 on, in the order of their first ids.
    """

    groups: NDArray[np.int64]

    def names(self, at: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        """Return ids and uris of images; at: int64 [a], from 0 to m - 1."""

    def codes(self, at: NDArray[np.int64]) -> Bytes:
        """Return the packed codes of images: uint8 [a, w]."""


@dataclass(eq=False)
class _IndexedRows:
    """The ``GroupedRows`` of an index."""

    groups: NDArray[np.int64]
    index: Index
    rows: NDArray[np.int64]

    def names(self, at: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        return self.index.ids(self.rows[at]), self.index.uris(self.rows[at])

    def codes(self, at: NDArray[np.int64]) -> Bytes:
        return self.index.codes(self.rows[at])


def find_duplicates(
    path: Path | str, radius: int, out: Path, keep: Keep | None = None
) -> DuplicateCounts:
    """Write the groups of a gallery as Parquet: ``group``, ``id``, ``uri``, ``distance``.

    Groups are numbered in the order of their first ids. Rows are sorted by group, then by id.
    Images without a near-duplicate are left out. The distance is to the group's first image. See
    ``write_groups`` for ``keep``.

    Args:
        path: a ``codes`` directory or an index, a path or a URI.
        radius: bits in which neighbours may differ.
        out: file to write; it appears complete or not at all.
        keep: ``best``: also say which image of each group to keep.

    Raises:
        SchnRayError: ``path`` is neither codes nor an index, ``out`` is a directory, or a negative
            radius.

    Example:
        ``find_duplicates("codes", 2, Path("groups.parquet")).groups``
    """
    refuse_bad_request(radius, out, keep)
    with scratch_folder(out) as folder, index_of(path, folder / "index") as index:
        codes, postings = index.distinct()
        labels = connected_labels(codes, index.bits, radius)
        sizes = np.bincount(labels, postings.all_counts(), len(codes)).astype(np.int64)
        label_of_row = labels[index.numbers()]
        rows = np.flatnonzero(sizes[label_of_row] > 1)
        groups, order = number_groups(label_of_row[rows])
        grouped = _IndexedRows(groups, index, rows[order])
        described = {"radius": str(radius), "codes": index.manifest.fingerprint}
        return write_groups(grouped, len(index), out, folder, described, keep)


def refuse_bad_request(radius: int, out: Path, keep: Keep | None = None) -> None:
    """Refuse what cannot be done, before anything is.

    Args:
        radius: bits in which neighbours may differ.
        out: the Parquet file to write.
        keep: see ``find_duplicates``.

    Raises:
        SchnRayError: a negative radius, ``out`` is a directory, ``keep`` is unknown, or lists of
            other groups lie beside ``out``.
    """
    if keep not in (None, "best"):
        raise SchnRayError(f"keep is {keep!r}; it can be 'best'")
    if radius < 0:
        raise SchnRayError(f"radius {radius} is negative; give 0 or more bits")
    if out.is_dir():
        raise SchnRayError(f"{out} is a directory; name the Parquet file to write")
    for path in () if keep else (out.with_name(name) for name in _list_names(out)):
        if path.exists():  # it would seem to belong to the new groups
            raise SchnRayError(
                f"{path} is a list of other groups: remove it, name another file to write, or "
                "write lists again with --keep best"
            )


def _list_names(out: Path) -> list[str]:
    return [f"{out.stem}.{name}" for name in _LISTS]


@contextlib.contextmanager
def index_of(path: Path | str, scratch: Path) -> Iterator[Index]:
    """Open an index, or make one of codes for the length of a block.

    Args:
        path: a ``codes`` directory or an index, a path or a URI.
        scratch: where to make it.

    Raises:
        SchnRayError: ``path`` is neither.
    """
    if directory_kind(as_location(path)) != "index":
        write_bare_index(path, scratch)
        path = scratch
    yield open_index(path)


def number_groups(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number groups in the order of their first rows, and sort the rows by group.

    Args:
        labels: [m], equal for rows of the same group.

    Returns:
        The group of each sorted row, int64 [m], and the sorted rows' positions, int64 [m].

    Example:
        >>> groups, order = number_groups(np.array([9, 2, 9, 2]))
        >>> groups.tolist(), order.tolist()
        ([0, 0, 1, 1], [0, 2, 1, 3])
    """
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    group = np.argsort(np.argsort(first))[inverse]
    order = np.argsort(group, kind="stable")
    return group[order], order


def write_groups(
    rows: GroupedRows,
    gallery: int,
    out: Path,
    folder: Path,
    described: dict[str, str],
    keep: Keep | None = None,
) -> DuplicateCounts:
    """Write the file of groups; with ``keep``, also the lists beside it.

    With ``keep``, the file has also ``keep`` (whether this is the group's image to keep),
    ``width``, ``height``, ``bytes`` and ``modified``, and distances are to the image to keep. The
    lists are named after the file: ``groups.keep.txt`` and ``groups.remove.txt`` have an id on each
    line, ``groups.remove-paths.txt`` the location of an image.

    Args:
        rows: the images that are in groups.
        gallery: images in all.
        out: the Parquet file; it is moved there last.
        folder: an existing folder to write to, on the same disk.
        described: metadata of the file.
        keep: ``best``, or None for no lists.

    Raises:
        SchnRayError: an id or path to list has a line break.
    """
    groups, files = rows.groups, [out.name]
    sizes = np.bincount(groups)
    counts = DuplicateCounts(gallery, len(sizes), len(groups), int(sizes.max(initial=0)))
    facts = None
    first = group_starts(groups)[:-1]
    if keep is not None:
        uris = (rows.names(at)[1] for at in row_chunks(len(groups)))
        facts = read_facts(uris, len(groups))
        first = choose_best(groups, facts)
        files += _write_lists(rows, first, folder, out)
        counts = replace(
            counts,
            removable=len(groups) - len(first),
            unreadable=int((facts.width == UNKNOWN).sum()),
        )
    _write_table(rows, first, facts, folder / out.name, described)
    with writing(out):
        for name in reversed(files):
            (folder / name).rename(out.with_name(name))
    return counts


def row_chunks(rows: int) -> Iterator[NDArray[np.int64]]:
    """Yield the numbers from 0 to ``rows`` - 1, as many at a time as are written at once.

    Args:
        rows: how many.
    """
    for start in range(0, rows, _ROWS_AT_ONCE):
        yield np.arange(start, min(rows, start + _ROWS_AT_ONCE))


def _write_table(
    rows: GroupedRows,
    first: NDArray[np.int64],
    facts: ImageFacts | None,
    path: Path,
    described: dict[str, str],
) -> None:
    columns = {"group": pa.int64(), "id": pa.string(), "uri": pa.string(), "distance": pa.int32()}
    if facts is not None:
        columns |= {"keep": pa.bool_(), "width": pa.int32(), "height": pa.int32()}
        columns |= {"bytes": pa.int64(), "modified": pa.timestamp("ns", "UTC")}
    schema = pa.schema(columns, metadata=described)
    with writing(path), pq.ParquetWriter(path, schema) as writer:
        for at in row_chunks(len(rows.groups)):
            reference = first[rows.groups[at]]
            codes, references = word_view(rows.codes(at)), word_view(rows.codes(reference))
            values = [rows.groups[at], *rows.names(at), distances_between(codes, references)]
            if facts is not None:
                known = [pa.array(fact[at], mask=fact[at] == UNKNOWN) for fact in facts]
                values += [at == reference, *known]
            arrays = [
                pa.array(value).cast(field.type)
                for value, field in zip(values, schema, strict=True)
            ]
            writer.write_table(pa.table(arrays, schema=schema))


def _write_lists(rows: GroupedRows, best: NDArray[np.int64], folder: Path, out: Path) -> list[str]:
    """Write the lists into the folder; return their names."""
    names = _list_names(out)
    others = np.ones(len(rows.groups), np.bool_)
    others[best] = False
    with contextlib.ExitStack() as stack:
        keep, remove, paths = (stack.enter_context(FileWriter(folder / name)) for name in names)
        for at in row_chunks(len(rows.groups)):
            removed_ids, removed_uris = rows.names(at[others[at]])
            for file, lines in (
                (keep, id_lines(rows.names(at[~others[at]])[0], "id")),
                (remove, id_lines(removed_ids, "id")),
                (paths, id_lines(removed_uris, "path")),
            ):
                file.write("".join(lines).encode())
    return names


def read_removable(path: Path) -> list[str]:
    """Return the ids to remove of a Parquet file.

    Args:
        path: of a file with a column ``id``; with a column ``keep``, such as ``write_groups``
            makes, only the rows that are not to be kept.

    Raises:
        SchnRayError: not Parquet, or without ``id``.
    """
    try:
        names = pq.read_schema(path).names
        table = pq.read_table(path, columns=[name for name in ("id", "keep") if name in names])
        if "keep" in names:
            table = table.filter(pc.invert(table["keep"]))
        ids: list[str] = table["id"].to_pylist()
    except (pa.ArrowException, KeyError) as error:
        raise SchnRayError(
            f"{path} is not a Parquet file with a column id of the ids to remove: {error}"
        ) from error
    return ids
