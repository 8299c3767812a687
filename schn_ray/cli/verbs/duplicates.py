"""The verb on near-duplicates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from schn_ray.cli.album.parts import part_of
from schn_ray.cli.verbs.arguments import Workers, location_of, shards_mapper
from schn_ray.cli.verbs.results import DuplicateGroups

if TYPE_CHECKING:
    from schn_ray.retrieval.duplicates.evidence import Verification, VerifyBy
    from schn_ray.retrieval.duplicates.groups import DuplicateCounts
    from schn_ray.retrieval.duplicates.leaks import LeakCounts
    from schn_ray.retrieval.index.index import Index


def duplicates(
    path: Path | str | Index,
    out: Path | str,
    *,
    radius: int = 0,
    verify: VerifyBy = "perceptual",
    features: Path | str | None = None,
    against: Path | str | Index | None = None,
    keep: Literal["best"] | None = None,
    html: Path | str | None = None,
    plant: int | None = None,
    model: Path | str | None = None,
    workers: Workers | None = None,
) -> DuplicateGroups:
    """Group near-duplicates: images with near codes that are copies, and chains of these.

    Near codes only make candidates, since all images of a class may have one code.

    Args:
        path: codes, an index, or an album of ``build``.
        out: the Parquet file to write: ``group``, ``id``, ``uri``, and ``distance`` in bits to the
            group's first image, or to its best; ``verified`` (``bytes``, ``perceptual``,
            ``features`` or ``chain``) and ``difference`` say how the two were compared.
        radius: bits in which neighbours in a chain may differ.
        verify: ``"perceptual"``: of the same bytes, or pictures that look the same when resized,
            recompressed, mirrored or cropped a little; the images are read where they lie.
            ``"bytes"``: the same bytes only; no image is read. ``"features"``: the same bytes, or
            near features. ``"none"``: all near codes are grouped, copies or not.
        features: for ``verify="features"``: what ``embed`` wrote of these images.
        against: other codes, or another index, of the same model: list the images of ``path`` that
            have a near-duplicate there, with the nearest one: ``id``, ``uri``, ``distance``,
            ``against_id``, ``against_uri``.
        keep: ``"best"``: say which image of each group to keep, the one of the most pixels, then
            bytes, then the oldest; their sizes and dates are columns of the file, and beside it are
            ``.keep.txt`` and ``.remove.txt``, of ids, and ``.remove-paths.txt``.
        html: a page to write, with the images.
        plant: instead: how many copies would be recovered? Copies of so many random images are
            made (resized, recompressed, cropped, mirrored), encoded, and looked for; the file has
            a row for each pair, and the counts recall by kind and precision.
        model: with ``plant``: the run or model that encoded the images.
        workers: None: in this process. ``4`` or ``"all"``: so many on Ray, for codes that do not
            fit one machine, or many images to read; codes, images and ``out`` must be where all
            machines see them.

    Returns:
        The file, with the number of groups and images.

    Raises:
        SchnRayError: neither codes nor an index, a radius below 0, other models, options that do
            not go together, or nothing to verify with: no image can be read, say.

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
    from schn_ray.retrieval.duplicates.evidence import Verification

    located = None if features is None else location_of(features)
    verification = Verification(verify, located)
    gallery = part_of(location_of(path), "index")
    if plant is not None or model is not None:
        if plant is None or model is None or plant < 1 or against or keep or page or workers:
            raise SchnRayError(
                "--plant N, of 1 or more, and --model RUN go together, and without --against, "
                "--keep, --html and --workers"
            )
        from schn_ray.retrieval.duplicates.planted import plant_copies

        planted = plant_copies(gallery, location_of(model), plant, radius, file, verification)
        return DuplicateGroups(str(out), planted)
    against = None if against is None else part_of(location_of(against), "index")
    counts = _counts(gallery, against, file, radius, keep, verification, workers)
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
    verification: Verification,
    workers: Workers | None,
) -> DuplicateCounts | LeakCounts:
    if against is not None:
        from schn_ray.retrieval.duplicates.leaks import find_leaks

        return find_leaks(path, location_of(against), radius, out, verification)
    if workers is None:
        from schn_ray.retrieval.duplicates.groups import find_duplicates

        return find_duplicates(path, radius, out, keep, verification)
    from schn_ray.retrieval.duplicates.partitions import find_duplicates_in_parts

    shards = shards_mapper("grouping", workers, writes=str(out.parent))
    verification = replace(verification, map_shards=shards)
    return find_duplicates_in_parts(path, radius, out, keep, verification, shards)
