"""The page of a map: every distinct code a point, with pictures, colours and a search by id.

All of it is in the one file: the points as compressed arrays, the drawing as our own script, which
the page's policy names by its hash. Points are sorted by the cells of a grid, so that the script
looks only at the cells in view. A page has thumbnails of some points, spread over the map so that
every region has its own; the picture of another is read from its file, if it is one.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from schn_ray.core.atomic_files import writing
from schn_ray.core.directories import scratch_folder
from schn_ray.core.errors import SchnRayError
from schn_ray.core.progress import Progress
from schn_ray.core.storage.files import is_uri
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.store.reader import open_store
from schn_ray.report.page import write_page
from schn_ray.report.thumbnails import inline
from schn_ray.retrieval.duplicates.groups import index_of
from schn_ray.retrieval.map.atlas_table import write_atlas_table
from schn_ray.retrieval.map.colours import (
    Colouring,
    colour_by_copies,
    colour_by_group,
    colour_by_label,
)
from schn_ray.retrieval.map.gallery_map import GalleryMap, MapCounts, draw_rows, lay_out_rows
from schn_ray.retrieval.map.layout import require_layout

_CELLS = 256  # along a side of the grid
_SIDE = 112  # pixels of a thumbnail
_THREADS = 8  # they wait for the disk or the network
_FINEST = 4096  # cells along a side, of those that thumbnails are spread over


def write_map(
    path: Path | str,
    out: Path,
    labels: str | None,
    radius: int | None,
    most: int,
    pictures: int,
    seed: int,
) -> MapCounts:
    """Map a gallery: write the page, and its points as Parquet beside it.

    Both appear when they are complete, the page last.

    Args:
        path: a ``codes`` directory or an index, a path or a URI.
        out: the HTML file; the other has its name, with ``.parquet``.
        labels: a store of the same images, to colour by label; None for none.
        radius: colour by groups of near codes of this radius; None for none.
        most: images of the map; of a larger gallery so many are drawn at random.
        pictures: thumbnails in the page.
        seed: of the draw and of the layout.

    Raises:
        SchnRayError: ``path`` is neither codes nor an index, damaged codes, ``out`` is a directory,
            or a store without labels of these images.
    """
    table = out.with_suffix(".parquet")
    for file in (out, table):
        if file.is_dir() or out == table:
            raise SchnRayError(f"{file} cannot be written: name an HTML file, such as map.html")
    require_layout()
    with scratch_folder(out) as folder, index_of(path, folder / "index") as index:
        store = None if labels is None else open_store(labels)
        rows = draw_rows(index, most, seed)
        for column in index.columns():  # one that is damaged is refused before the work
            column.take_bytes(rows)
        colourings = [] if store is None else [colour_by_label(index, rows, store)]
        if radius is not None:
            colourings.append(colour_by_group(index, rows, radius))
        gallery = lay_out_rows(index, rows, seed)
        colourings.append(colour_by_copies(gallery.points))
        write_atlas_table(gallery, colourings, folder / table.name)
        write_map_page(gallery, colourings, pictures, folder / out.name)
        with writing(out):
            (folder / table.name).rename(table)
            (folder / out.name).rename(out)
    return gallery.counts


def write_map_page(
    gallery: GalleryMap, colourings: Sequence[Colouring], pictures: int, out: Path
) -> None:
    """Write the page.

    Args:
        gallery: the map.
        colourings: of its rows, at least one; the first is shown first.
        pictures: thumbnails at most.
        out: the HTML file.

    Raises:
        SchnRayError: ``out`` is a directory, or a damaged index.
    """
    positions = _in_unit_square(gallery.positions)
    cells = np.minimum((positions * _CELLS).astype(np.int64), _CELLS - 1)
    order = np.argsort(cells[:, 1] * _CELLS + cells[:, 0], kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    points = rank[gallery.points]
    by_point = np.argsort(points, kind="stable")
    rows = gallery.rows[by_point]
    ids, uris = gallery.index.ids(rows), _absolute(gallery.index.uris(rows))
    positions = positions[order]
    starts = np.append(0, np.cumsum(np.bincount(points)))
    ranked = [_ranked(colouring, points, len(positions)) for colouring in colourings]
    arrays: dict[str, bytes] = {
        "x": positions[:, 0].astype("<f4").tobytes(),
        "y": positions[:, 1].astype("<f4").tobytes(),
        "starts": starts.astype("<u4").tobytes(),
        **_strings("ids", ids),
        **{f"colour-{i}": values.astype("<u4").tobytes() for i, (values, _) in enumerate(ranked)},
    }
    prefix = _common_prefix(ids, uris)
    if prefix is None:
        arrays |= _strings("uris", uris)
    about = {
        "cells": _CELLS,
        "prefix": prefix,
        "colourings": [legend for _, legend in ranked],
        "pictures": _thumbnails(positions, starts, uris, pictures),
    }
    arrays["about"] = json.dumps(about).encode()
    _write(out, str(gallery.counts), arrays)


def _write(out: Path, lead: str, arrays: dict[str, bytes]) -> None:
    script = Path(__file__).with_name("map.js").read_text()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    write_page(
        out,
        "map.html.jinja",
        title="Map of the codes",
        lead=lead,
        script=Markup(script),
        script_digest=digest,
        arrays={name: _packed(data) for name, data in arrays.items()},
    )


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _in_unit_square(positions: NDArray[np.float32]) -> NDArray[np.float32]:
    """Move and scale positions into 0 to 1, both axes by the same scale, centred."""
    low, high = positions.min(axis=0), positions.max(axis=0)
    side = max(float((high - low).max()), 1e-12)
    result: NDArray[np.float32] = (positions - (low + high) / 2) / side + np.float32(0.5)
    return np.clip(result, 0, 1)


def _absolute(uris: list[str]) -> list[str]:
    """Return paths of files as the browser needs them; a row of a file has a ``#``."""
    return [
        uri if uri[:1] == "/" or "#" in uri or is_uri(uri) else os.path.abspath(uri) for uri in uris
    ]


def _common_prefix(ids: list[str], uris: list[str]) -> str | None:
    """Return what comes before the id in every uri; None where a uri is not made so."""
    prefix = uris[0].removesuffix(ids[0])
    same = all(uri == prefix + id for id, uri in zip(ids, uris, strict=True))
    return prefix if same else None


def _strings(name: str, texts: list[str]) -> dict[str, bytes]:
    """Return strings as one text and where each ends, in bytes."""
    encoded = [text.encode("utf-8", "replace") for text in texts]
    ends = np.cumsum([len(text) for text in encoded])
    return {name: b"".join(encoded), f"{name}-ends": ends.astype("<u4").tobytes()}


def _ranked(
    colouring: Colouring, points: NDArray[np.int64], count: int
) -> tuple[NDArray[np.int64], dict[str, Any]]:
    """Return a value of each point, 0 for none and then by falling size, and the legend."""
    values = colouring.of_points(points, count) + 1
    sizes = np.bincount(colouring.values + 1, minlength=len(colouring.names) + 1)
    falling = 1 + np.argsort(-sizes[1:], kind="stable")
    falling = falling[sizes[falling] > 0]
    rank = np.zeros(len(sizes), np.int64)
    rank[falling] = np.arange(1, len(falling) + 1)
    legend = {
        "title": colouring.title,
        "names": [colouring.nothing, *(colouring.names[value - 1] for value in falling)],
        "sizes": [int(sizes[0]), *sizes[falling].tolist()],
    }
    return rank[values], legend


def _thumbnails(
    positions: NDArray[np.float32], starts: NDArray[np.int64], uris: list[str], most: int
) -> list[tuple[int, str]]:
    """Return points with a data URI each: of the first image of the point that can be read."""
    chosen = _spread(positions, np.diff(starts), most)
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        Progress("reading pictures", total=len(chosen), unit="pictures") as progress,
    ):
        pictures = []
        for point, picture in zip(
            chosen.tolist(), pool.map(_thumbnail, [uris[starts[p]] for p in chosen]), strict=True
        ):
            progress.advance(1)
            if picture is not None:
                pictures.append((point, picture))
    return pictures


def _thumbnail(uri: str) -> str | None:
    try:
        picture = inline(fetch(uri), _SIDE)
    except (SchnRayError, OSError):
        return None  # the file was moved or deleted
    return picture.uri if picture else None


def _spread(
    positions: NDArray[np.float32], sizes: NDArray[np.int64], most: int
) -> NDArray[np.int64]:
    """Choose points: the one of the most images of each cell, of ever finer grids."""
    chosen = np.zeros(len(positions), np.bool_)
    order = np.argsort(-sizes, kind="stable")
    cells = 1
    while cells <= _FINEST and (left := most - int(chosen.sum())) > 0 and not chosen.all():
        at = np.minimum((positions[order] * cells).astype(np.int64), cells - 1)
        _, first = np.unique(at[:, 1] * cells + at[:, 0], return_index=True)
        new = order[first][~chosen[order[first]]]
        chosen[new[np.argsort(-sizes[new], kind="stable")][:left]] = True
        cells *= 2
    return np.flatnonzero(chosen)
