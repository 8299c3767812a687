"""The verb on the map of a gallery."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from schn_ray.cli.album.parts import part_of, store_of_labels
from schn_ray.cli.verbs.arguments import location_of
from schn_ray.cli.verbs.results import MapFiles

if TYPE_CHECKING:
    from schn_ray.data.store.reader import Store
    from schn_ray.retrieval.index.index import Index


def map_codes(
    path: Path | str | Index,
    out: Path | str,
    *,
    labels: Path | str | Store | None = None,
    radius: int | None = None,
    most: int = 1_000_000,
    pictures: int = 1_000,
    seed: int = 0,
) -> MapFiles:
    """Write a page that shows codes as a map to zoom into: near codes are near points.

    Every distinct code is a point. Its place comes from its nearest other codes, which are exact,
    by t-SNE. Beside the page its points are written as Parquet, a row for each image: ``id``,
    ``uri``, ``x``, ``y``, ``neighbors`` and, if given, ``label`` and ``group``.

    Args:
        path: codes, an index, or an album of ``build``.
        out: the HTML file to write; the Parquet file has its name, with ``.parquet``.
        labels: a store of the same images, to colour by their labels; default: the album's own.
        radius: colour by groups of near codes, as ``duplicates`` with this radius and
            ``verify="none"``.
        most: images of the map; of a larger gallery so many are drawn at random.
        pictures: thumbnails in the page, spread over the map; other images are shown if they are
            files where the page is looked at.
        seed: of the draw and of the layout; the same seed gives the same map on a machine.

    Returns:
        The files, with the number of images and points.

    Raises:
        SchnRayError: neither codes nor an index, damaged codes, a store without labels of these
            images, or openTSNE is not installed.

    Example:
        >>> map_codes("codes", "map.html", radius=2).counts.codes  # doctest: +SKIP
        19691
    """
    from schn_ray.report.map import write_map

    store = store_of_labels(location_of(path), None if labels is None else location_of(labels))
    gallery = part_of(location_of(path), "codes")
    counts = write_map(gallery, Path(out), store, radius, most, pictures, seed)
    return MapFiles(str(out), str(Path(out).with_suffix(".parquet")), counts)
