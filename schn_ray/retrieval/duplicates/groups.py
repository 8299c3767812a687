"""The file of groups: from an index or codes to Parquet, with lists of what to keep and remove.

Two images are candidates if their codes differ in at most r bits, and neighbours if they are
verified, too (see ``evidence``). A group is a connected component of the graph of neighbours
(single linkage), so two of its images may be farther apart. Components by codes alone come first:
an image that is alone there is never read.
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
from schn_ray.retrieval.duplicates.evidence import (
    DIFFERENT,
    NOT_VERIFIED,
    SAME_BYTES,
    WAYS,
    Evidence,
    Verification,
    VerifyBy,
    gather_evidence,
)
from schn_ray.retrieval.duplicates.verify import verified_labels
from schn_ray.retrieval.index.build import write_bare_index
from schn_ray.retrieval.index.index import Index, open_index
from schn_ray.retrieval.index.scan import Bytes

_ROWS_AT_ONCE = 1 << 16
_SMALL = 20  # images; of such a gallery most may well be copies
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
        verify: how the groups were verified, see ``evidence.Verification``.
        candidates: images with a near code.
        unverified: of these, those that could not be read, or have no features.
        warning: that codes connect most of the gallery, and why; None if they do not.
    """

    rows: int
    groups: int
    in_groups: int
    largest: int
    removable: int | None = None
    unreadable: int | None = None
    verify: VerifyBy = "none"
    candidates: int = 0
    unverified: int = 0
    warning: str | None = None

    def __str__(self) -> str:
        what = "of near codes" if self.verify == "none" else "of near-duplicates"
        text = (
            f"{self.groups:,} groups {what}, the largest of {self.largest:,}; they hold "
            f"{self.in_groups:,} of {self.rows:,} images"
        )
        if self.verify == "none":
            text += "; not verified by the images: they may just be of one class"
        else:
            text += f"; verified among {self.candidates:,} images with near codes"
        if self.unverified:
            text += f", {self.unverified:,} of which could not be verified"
        if self.removable is not None:
            text += f"; {self.removable:,} of them to remove"
        if self.unreadable:
            text += f"; {self.unreadable:,} could not be read, so their size is unknown"
        return text + (f"\nwarning: {self.warning}" if self.warning else "")


class GroupedRows(Protocol):
    """Images of a gallery, each with its group.

    Attributes:
        groups: int64 [m]. Of candidates, equal for those that codes connect; these are sorted by
            id. Of groups, from 0 on, in the order of their first ids; sorted by group, then by id.
    """

    groups: NDArray[np.int64]

    def names(self, at: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        """Return ids and uris of images; at: int64 [a], from 0 to m - 1."""

    def codes(self, at: NDArray[np.int64]) -> Bytes:
        """Return the packed codes of images: uint8 [a, w]."""

    def contents(self, at: NDArray[np.int64]) -> Bytes:
        """Return digests of their bytes: uint8 [a, 16], zeros where they are not known."""

    def chosen(self, at: NDArray[np.int64], groups: NDArray[np.int64]) -> GroupedRows:
        """Return chosen images, of these groups."""


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

    def contents(self, at: NDArray[np.int64]) -> Bytes:
        return self.index.contents(self.rows[at])

    def chosen(self, at: NDArray[np.int64], groups: NDArray[np.int64]) -> GroupedRows:
        return _IndexedRows(groups, self.index, self.rows[at])


@dataclass(frozen=True, eq=False)
class Request:
    """What is looked for, and where it is written.

    Attributes:
        bits: of a code.
        radius: bits in which neighbours may differ.
        verification: what else makes them neighbours.
        gallery: images in all.
        out: the Parquet file.
        folder: an existing folder to write to, on the same disk.
        described: metadata of the file.
        keep: see ``write_groups``.
    """

    bits: int
    radius: int
    verification: Verification
    gallery: int
    out: Path
    folder: Path
    described: dict[str, str]
    keep: Keep | None = None


def find_duplicates(
    path: Path | str,
    radius: int,
    out: Path,
    keep: Keep | None = None,
    verification: Verification = NOT_VERIFIED,
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
        verification: what makes candidates copies; without, all candidates are grouped.

    Raises:
        SchnRayError: ``path`` is neither codes nor an index, ``out`` is a directory, a negative
            radius, or as ``gather_evidence``.

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
        candidates = _IndexedRows(label_of_row[rows].astype(np.int64), index, rows)
        described = {"radius": str(radius), "codes": index.manifest.fingerprint}
        sizes_and_files = index.bits, radius, verification, len(index), out, folder, described
        return group_candidates(candidates, Request(*sizes_and_files, keep))


def group_candidates(candidates: GroupedRows, request: Request) -> DuplicateCounts:
    """Verify the images that codes connect, and write the groups.

    Args:
        candidates: sorted by id, with the component of each one's code.
        request: what is looked for, and where it is written.

    Raises:
        SchnRayError: as ``gather_evidence`` and ``write_groups``.
    """
    m, verification = len(candidates.groups), request.verification
    evidence, labels = None, candidates.groups
    everyone = np.arange(m)
    if verification.by != "none":
        evidence = gather_evidence(verification, candidates.contents(everyone), candidates.names)
        codes = np.ascontiguousarray(candidates.codes(everyone))
        labels = verified_labels(codes, request.bits, request.radius, evidence).astype(np.int64)
    _, inverse, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    at = np.flatnonzero(sizes[inverse] > 1) if m else everyone
    groups, order = number_groups(labels[at])
    grouped = candidates.chosen(at[order], groups)
    counts = write_groups(grouped, request, None if evidence is None else evidence.at(at[order]))
    return replace(
        counts,
        verify=verification.by,
        candidates=m,
        unverified=0 if evidence is None else evidence.unread,
        warning=_warning(candidates, request),
    )


def _warning(candidates: GroupedRows, request: Request) -> str | None:
    """Say why codes connect most of the gallery, if they do."""
    labels, counts = np.unique(candidates.groups, return_counts=True)
    largest = int(counts.max(initial=0))
    if request.gallery < _SMALL or 2 * largest < request.gallery:
        return None
    members = np.flatnonzero(candidates.groups == labels[counts.argmax()])
    distinct = len(np.unique(candidates.codes(members), axis=0))
    text = f"codes within {request.radius} bits connect {largest:,} of {request.gallery:,} images"
    if 2 * distinct < largest:
        text += (
            f", which have only {distinct:,} distinct codes: the codes have collapsed, as of a "
            "model that gives each class one code, or that was trained too little"
        )
    else:
        text += f": the radius is large for codes of {request.bits} bits"
    if request.verification.by == "none":
        return text + ". A group of them says nothing of duplicates: use --verify perceptual"
    return text + ". Groups are verified all the same, but that takes longer"


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


def write_groups(rows: GroupedRows, request: Request, evidence: Evidence | None) -> DuplicateCounts:
    """Write the file of groups; with ``keep``, also the lists beside it.

    With ``keep``, the file has also ``keep`` (whether this is the group's image to keep),
    ``width``, ``height``, ``bytes`` and ``modified``, and distances are to the image to keep. The
    lists are named after the file: ``groups.keep.txt`` and ``groups.remove.txt`` have an id on each
    line, ``groups.remove-paths.txt`` the location of an image.

    Verified groups also have ``verified``: how the image was verified against the first image, or
    the one to keep: ``bytes``, ``perceptual``, ``features``, or ``chain``, if only others of the
    group link them, null for that image itself; and ``difference``, from 0 on, null if unknown.

    Args:
        rows: the images that are in groups.
        request: the Parquet file, which is moved there last; ``keep``: ``best``, or None for no
            lists.
        evidence: of the images; None of groups that are not verified.

    Raises:
        SchnRayError: an id or path to list has a line break.
    """
    groups, out, folder, keep = rows.groups, request.out, request.folder, request.keep
    files = [out.name]
    sizes = np.bincount(groups)
    counts = DuplicateCounts(request.gallery, len(sizes), len(groups), int(sizes.max(initial=0)))
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
    _write_table(rows, first, facts, evidence, request)
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
    evidence: Evidence | None,
    request: Request,
) -> None:
    path = request.folder / request.out.name
    columns = {"group": pa.int64(), "id": pa.string(), "uri": pa.string(), "distance": pa.int32()}
    if facts is not None:
        columns |= {"keep": pa.bool_(), "width": pa.int32(), "height": pa.int32()}
        columns |= {"bytes": pa.int64(), "modified": pa.timestamp("ns", "UTC")}
    if evidence is not None:
        columns |= {"verified": pa.string(), "difference": pa.float32()}
    described = {"verify": request.verification.by}
    schema = pa.schema(columns, metadata=request.described | described)
    with writing(path), pq.ParquetWriter(path, schema) as writer:
        for at in row_chunks(len(rows.groups)):
            reference = first[rows.groups[at]]
            codes, references = word_view(rows.codes(at)), word_view(rows.codes(reference))
            distances = distances_between(codes, references)
            values = [rows.groups[at], *rows.names(at), distances]
            if facts is not None:
                known = [pa.array(fact[at], mask=fact[at] == UNKNOWN) for fact in facts]
                values += [at == reference, *known]
            if evidence is not None:
                values += verified_columns(evidence, at, reference, distances > request.radius)
            arrays = [
                pa.array(value).cast(field.type)
                for value, field in zip(values, schema, strict=True)
            ]
            writer.write_table(pa.table(arrays, schema=schema))


def verified_columns(
    evidence: Evidence,
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    far: NDArray[np.bool_],
) -> list[pa.Array]:
    """Return the columns ``verified`` and ``difference`` of pairs of images.

    Args:
        evidence: of the images.
        first: int64 [p], their positions.
        second: int64 [p]; equal to the first for an image itself.
        far: bool [p], whether codes are too far apart for a pair.
    """
    ways, difference = evidence.compare(first, second)
    itself = first == second
    linked = (ways == SAME_BYTES) | ((ways != DIFFERENT) & ~far)
    names = np.where(linked, np.array(WAYS)[ways], "chain")
    unknown = itself | np.isnan(difference)
    return [pa.array(names, pa.string(), mask=itself), pa.array(difference, mask=unknown)]


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
