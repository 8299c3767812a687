"""What was measured, in words: the sentence and the table that a report opens with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schn_ray.report.data import number

Metrics = Mapping[str, Any]
Row = tuple[str, str, str]  # label, value, note

_GALLERY_CODES = {
    "encoded": "computed by the network from each image alone, as for any new image",
    "learned": "solved from the gallery's labels in training; compare with published tables only",
}
_DENOMINATORS = {
    "relevant": "over the first {} places, divided by all right images in the gallery",
    "min": "the same, divided by the right images that {} places can hold",
    "hits": "the same, divided by the right images found there; what most published tables use",
}


def headline(metrics: Metrics) -> str:
    """Say in one sentence what was measured, on how much.

    >>> headline({"map": 0.97, "queries": 180, "gallery": 500, "bits": 32})
    'mAP 0.970: 180 queries against 500 gallery images, 32-bit codes.'
    """
    score = number(metrics.get("map"))
    if score is None:
        return "This report holds no evaluation."
    asked, gallery, bits = (number(metrics.get(k)) for k in ("queries", "gallery", "bits"))
    parts = [f"{asked:,} queries" if asked is not None else ""]
    parts.append(f"against {gallery:,} gallery images" if gallery is not None else "")
    where = " ".join(part for part in parts if part)
    codes = f"{bits}-bit codes" if bits is not None else ""
    tail = ", ".join(part for part in (where, codes) if part)
    return f"mAP {score:.3f}" + (f": {tail}." if tail else ".")


def gallery_codes(metrics: Metrics) -> str:
    """Say how the gallery was coded, and what that means.

    >>> gallery_codes({"gallery_codes": "encoded"})
    'Gallery codes: encoded (computed by the network from each image alone, as for any new image).'
    """
    how = metrics.get("gallery_codes")
    meaning = _GALLERY_CODES.get(str(how))
    return (f"Gallery codes: {how}" + (f" ({meaning})." if meaning else ".")) if how else ""


def table(metrics: Metrics) -> list[Row]:
    """Return (label, value, note) of every measure that is there."""
    rows = [_map(metrics), *_map_at(metrics)]
    rows += _at(metrics, "precision_at", "Precision@{}", "right among the {} nearest")
    rows += _at(
        metrics, "recall_at", "Recall@{}", "of all right images, found among the {} nearest"
    )
    rows.append(_precision_within_radius(metrics))
    rows.append(_share(metrics, "unique_share", "Distinct codes", "of all gallery codes"))
    rows.append(_dropped_queries(metrics))
    return [row for row in rows if row is not None]


def _map(metrics: Metrics) -> Row | None:
    worst, best = number(metrics.get("map_worst")), number(metrics.get("map_best"))
    note = "equally distant images count as the average over all their orders"
    if worst is not None and best is not None:
        note += f"; the worst order gives {worst:.3f}, the best {best:.3f}"
    return _row("mAP", metrics.get("map"), note)


def _map_at(metrics: Metrics) -> list[Row | None]:
    return [
        _row(f"mAP@{k}, {name}", values.get(name), note.format(k))
        for k, values in _by_k(metrics, "map_at")
        for name, note in _DENOMINATORS.items()
    ]


def _at(metrics: Metrics, key: str, label: str, note: str) -> list[Row | None]:
    return [_row(label.format(k), value, note.format(k)) for k, value in _by_k(metrics, key)]


def _by_k(metrics: Metrics, key: str) -> list[tuple[str, Any]]:
    return sorted((metrics.get(key) or {}).items(), key=lambda item: int(item[0]))


def _precision_within_radius(metrics: Metrics) -> Row | None:
    radius, empty = number(metrics.get("radius")), number(metrics.get("empty_balls"))
    if radius is None:
        return None
    bits = f"{radius} bits"
    note = f"right among all images within {bits}"
    if empty is not None:
        note += f"; {empty:.1%} of queries find none there and count as 0"
    return _row(f"Precision within {bits}", metrics.get("precision_within_radius"), note)


def _dropped_queries(metrics: Metrics) -> Row | None:
    dropped = number(metrics.get("undefined_queries"))
    note = "no gallery image shares a label with them; not counted"
    return ("Queries left out", f"{dropped:,}", note) if dropped is not None else None


def _row(label: str, value: object, note: str) -> Row | None:
    known = number(value)
    return (label, f"{known:.3f}", note) if known is not None else None


def _share(metrics: Metrics, key: str, label: str, note: str) -> Row | None:
    known = number(metrics.get(key))
    return (label, f"{known:.1%}", note) if known is not None else None
