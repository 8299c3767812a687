"""The pages of ``duplicates``: groups with their pictures, or images with their nearest elsewhere.

A page stays small whatever the gallery: the largest groups, a few images of each, and no more
pictures once they have 16 MB together; what is left out is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.core.errors import SchnRayError
from schn_ray.data.sources.fetch import fetch
from schn_ray.report.page import write_page
from schn_ray.report.thumbnails import Inlined, inline

_GROUPS, _IMAGES = 100, 10  # groups of a page, images of a group
_MEANING = (
    'The number after "looks the same" is the difference of the pictures: 0 for equal ones, 1 for '
    "ones that have nothing in common. By a chain: only others of the group link the two."
)
_NOT_VERIFIED = "The images were not compared: near codes may just be of one class."
_PICTURE_BYTES = 16_000_000  # of a page


@dataclass(frozen=True)
class Shown:
    """An image of a group on the page.

    Attributes:
        id: of the image.
        uri: its location.
        picture: its thumbnail; None if it cannot be read, or the page is full.
        lines: of the caption, such as its distance and size.
        keep: whether this is the one to keep; None if that was not asked for.
    """

    id: str
    uri: str
    picture: Inlined | None
    lines: Sequence[str]
    keep: bool | None = None


@dataclass(frozen=True)
class PageGroup:
    """A group on the page.

    Attributes:
        title: its number and size.
        members: the images that are shown.
        more: how many are not.
    """

    title: str
    members: Sequence[Shown]
    more: int = 0


def write_groups_page(groups: Path, lead: str, out: Path) -> None:
    """Write a page of the largest groups.

    Args:
        groups: the Parquet file of ``find_duplicates``.
        lead: the first line, with the counts.
        out: the HTML file.

    Raises:
        SchnRayError: ``out`` is a directory.
    """
    number = pq.read_table(groups, columns=["group"])["group"].to_numpy()
    sizes = np.bincount(number)
    starts = np.cumsum(sizes) - sizes
    largest = np.argsort(-sizes, kind="stable")[:_GROUPS]
    pictures, shown = _Pictures(), list[PageGroup]()
    with pq.ParquetFile(groups) as file:
        rows = _RowsOf(file)
        for group in largest.tolist():
            members = _best_first(rows.read(int(starts[group]), int(sizes[group])))
            shown.append(
                PageGroup(
                    f"Group {group}: {sizes[group]:,} images",
                    [_member(row, pictures, row is members[0]) for row in members],
                    int(sizes[group]) - len(members),
                )
            )
    verified = _verify(groups) != "none"
    linked = "verified copies whose codes" if verified else "codes that"
    note = (
        f"Images of a group are connected by chains of {linked} differ in at most "
        f"{_metadata(groups, 'radius')} bits. "
        + (_MEANING if verified else _NOT_VERIFIED)
        + " The distance, in bits, is to the first image of the row."
    )
    title = "Near-duplicates" if verified else "Images of near codes"
    _write(out, title, lead, note, shown, len(sizes), pictures)


def write_leaks_page(leaks: Path, lead: str, out: Path) -> None:
    """Write a page of images that have a near-duplicate in another gallery, the nearest first.

    Args:
        leaks: the Parquet file of ``find_leaks``.
        lead: the first line, with the counts.
        out: the HTML file.

    Raises:
        SchnRayError: ``out`` is a directory.
    """
    table = pq.read_table(leaks)
    nearest = np.argsort(table["distance"].to_numpy(), kind="stable")[:_GROUPS]
    pictures, shown = _Pictures(), list[PageGroup]()
    for row in table.take(pa.array(nearest)).to_pylist():
        own = Shown(row["id"], row["uri"], pictures.read(row["uri"]), [])
        bits = _bits(row["distance"])
        lines = [bits, *_how(row)]
        other = Shown(
            row["against_id"], row["against_uri"], pictures.read(row["against_uri"]), lines
        )
        shown.append(PageGroup(bits, [own, other]))
    note = (
        "On the left an image, beside it the nearest of the other gallery, at most "
        f"{_metadata(leaks, 'radius')} bits away. "
    )
    verified = _verify(leaks) != "none"
    note += _MEANING if verified else _NOT_VERIFIED
    title = f"{'Near-duplicates' if verified else 'Near codes'} in another gallery"
    _write(out, title, lead, note, shown, len(table), pictures)


def _write(
    out: Path,
    title: str,
    lead: str,
    note: str,
    shown: Sequence[PageGroup],
    total: int,
    pictures: _Pictures,
) -> None:
    write_page(
        out,
        "duplicates.html.jinja",
        title=title,
        lead=lead.partition("\n")[0],
        warnings=lead.splitlines()[1:],
        note=note,
        groups=shown,
        more=total - len(shown),
        full=pictures.full,
    )


class _RowsOf:
    """Reads rows of a Parquet file by their numbers; the last row group stays in memory."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self._file, self._group = file, -1
        self._table: pa.Table | None = None
        rows = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._starts = np.append(0, np.cumsum(rows))

    def read(self, start: int, count: int) -> pa.Table:
        parts = list[pa.Table]()
        while count > 0:
            group = int(np.searchsorted(self._starts, start, side="right")) - 1
            if self._table is None or group != self._group:
                self._group, self._table = group, self._file.read_row_group(group)
            part = self._table.slice(start - int(self._starts[group]), count)
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return pa.concat_tables(parts)


def _best_first(members: pa.Table) -> list[dict[str, Any]]:
    """Return the members to show: the one to keep, or the first, then by distance."""
    others = np.ones(len(members), np.bool_)
    if "keep" in members.column_names:
        others = ~members["keep"].to_numpy()
    nearest = np.lexsort((members["distance"].to_numpy(), others))[:_IMAGES]
    rows: list[dict[str, Any]] = members.take(pa.array(nearest)).to_pylist()
    return rows


class _Pictures:
    """Thumbnails until the page is full."""

    def __init__(self) -> None:
        self._bytes, self.full = 0, False

    def read(self, uri: str) -> Inlined | None:
        if self._bytes > _PICTURE_BYTES:
            self.full = True
            return None
        try:
            picture = inline(fetch(uri))
        except (SchnRayError, OSError):
            return None  # shown as a placeholder: the file was moved or deleted
        self._bytes += len(picture.uri) if picture else 0
        return picture


def _member(row: dict[str, Any], pictures: _Pictures, is_first: bool) -> Shown:
    # the others are compared with the first
    lines = [] if is_first else [_bits(row["distance"]), *_how(row)]
    if row.get("width") is not None:
        lines.append(f"{row['width']:,} x {row['height']:,}, {_size(row['bytes'])}")
    elif "keep" in row:
        lines.append("size unknown")
    if row.get("modified") is not None:
        lines.append(f"{row['modified']:%Y-%m-%d}")
    return Shown(row["id"], row["uri"], pictures.read(row["uri"]), lines, row.get("keep"))


def _bits(distance: int) -> str:
    return "same code" if distance == 0 else f"{distance} bit{'' if distance == 1 else 's'}"


def _how(row: dict[str, Any]) -> list[str]:
    """Say how an image was verified."""
    way, difference = row.get("verified"), row.get("difference")
    if way is None:
        return []
    if way == "bytes":
        return ["same bytes"]
    text = {"perceptual": "looks the same", "features": "near features"}.get(way, "by a chain")
    return [text if difference is None else f"{text}: {difference:.3f}"]


def _verify(file: Path) -> str:
    return _metadata(file, "verify")


def _size(count: int) -> str:
    return f"{count:,} B" if count < 1000 else f"{count / 1000:,.0f} kB"


def _metadata(file: Path, name: str) -> str:
    return pq.read_schema(file).metadata[name.encode()].decode()
