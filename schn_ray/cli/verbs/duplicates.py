"""The verb on near-duplicates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from schn_ray.cli.album.parts import part_of
from schn_ray.cli.verbs.arguments import Workers, location_of, shards_mapper
from schn_ray.cli.verbs.results import DuplicateGroups

if TYPE_CHECKING:
    from schn_ray.retrieval.duplicates.groups import DuplicateCounts
    from schn_ray.retrieval.duplicates.leaks import LeakCounts
    from schn_ray.retrieval.index.index import Index


def duplicates(
    path: Path | str | Index,
    out: Path | str,
    *,
    radius: int = 0,
    against: Path | str | Index | None = None,
    keep: Literal["best"] | None = None,
    html: Path | str | None = None,
    workers: Workers | None = None,
) -> DuplicateGroups:
    """Group near-duplicates: images that are connected by a chain of close codes.

    Args:
        path: codes, an index, or an album of ``build``.
        out: the Parquet file to write: ``group``, ``id``, ``uri``, and ``distance`` in bits to the
            group's first image, or to its best.
        radius: bits in which neighbours in a chain may differ.
        against: other codes, or another index, of the same model: list the images of ``path`` that
            have a near-duplicate there, with the nearest one: ``id``, ``uri``, ``distance``,
            ``against_id``, ``against_uri``.
        keep: ``"best"``: say which image of each group to keep, the one of the most pixels, then
            bytes, then the oldest; their sizes and dates are columns of the file, and beside it are
            ``.keep.txt`` and ``.remove.txt``, of ids, and ``.remove-paths.txt``.
        html: a page to write, with the images.
        workers: None: in this process. ``4`` or ``"all"``: so many on Ray, for codes that do not
            fit one machine; they and ``out`` must be where all machines see them.

    Returns:
        The file, with the number of groups and images.

    Raises:
        SchnRayError: neither codes nor an index, a radius below 0, other models, or options that
            do not go together.

    Example:
        >>> duplicates("codes", "groups.parquet", radius=2).counts.groups  # doctest: +SKIP
        14
    """
    from schn_ray.core.errors import SchnRayError

    file, page = Path(out), None if html is None else Path(html)
    if page is not None and page.is_dir():
        raise SchnRayError(f"{page} is a directory; name the HTML file to write")
    if against is not None and (keep or workers is not None):
        raise SchnRayError(
            "--against compares two galleries, on this machine: leave --keep and --workers out"
        )
    against = None if against is None else part_of(location_of(against), "index")
    counts = _counts(part_of(location_of(path), "index"), against, file, radius, keep, workers)
    if page is not None:
        from schn_ray.report.duplicates import write_groups_page, write_leaks_page

        write = write_groups_page if against is None else write_leaks_page
        write(file, str(counts), page)
    return DuplicateGroups(str(out), counts)


def _counts(
    path: str,
    against: Path | str | Index | None,
    out: Path,
    radius: int,
    keep: Literal["best"] | None,
    workers: Workers | None,
) -> DuplicateCounts | LeakCounts:
    if against is not None:
        from schn_ray.retrieval.duplicates.leaks import find_leaks

        return find_leaks(path, location_of(against), radius, out)
    if workers is None:
        from schn_ray.retrieval.duplicates.groups import find_duplicates

        return find_duplicates(path, radius, out, keep)
    from schn_ray.retrieval.duplicates.partitions import find_duplicates_in_parts

    shards = shards_mapper("grouping", workers, writes=str(out.parent))
    return find_duplicates_in_parts(path, radius, out, keep, shards)
