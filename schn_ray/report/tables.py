"""What was measured, in words: the sentence and the table that a report opens with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from schn_ray.report.contents import number

Metrics = Mapping[str, Any]
Row = tuple[str, str, str]  # label, value, note

_GALLERY_CODES = {
    "encoded": "computed by the network from each image alone, as for any new image",
    "learned": "solved from the gallery's labels in training; compare with published tables only",
}
_CONTROLS = {
    "model": ("This model", "codes of the network, on the same rows as the controls"),
    "classifier": (
        "Classifier's codeword",
        "a linear classifier on the network's features; a code is that of the predicted class",
    ),
    "cosine": ("Features by cosine", "the network's features themselves, before they become codes"),
    "random": ("Random codes", "coin tosses of the same length: the floor"),
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


def metric_rows(metrics: Metrics) -> list[Row]:
    """Return (label, value, note) of every measure that is there."""
    rows = [_map(metrics), _mrr(metrics), *_map_at(metrics)]
    rows += _at(metrics, "ndcg_at", "NDCG@{}", "by how many labels are shared; 1 is the best order")
    rows += _at(metrics, "precision_at", "Precision@{}", "right among the {} nearest")
    rows += _at(
        metrics, "recall_at", "Recall@{}", "of all right images, found among the {} nearest"
    )
    rows.append(_precision_within_radius(metrics))
    rows.append(_share(metrics, "unique_share", "Distinct codes", "of all gallery codes"))
    rows += _reidentification(metrics)
    rows += _legacy(metrics)
    rows.append(_dropped_queries(metrics))
    return [row for row in rows if row is not None]


def galleries(metrics: Metrics) -> list[Row]:
    """Return (gallery codes, mAP, note) of an evaluation of both kinds; empty without."""
    beside = metrics.get("side_by_side") or ()
    if not beside:
        return []
    rows = [_row("encoded, whole gallery", metrics.get("map"), f"{metrics['gallery']:,} images")]
    rows += [
        _row(
            f"{side['gallery_codes']}, rows with a learned code",
            side.get("map"),
            f"{side['gallery']:,} images; {_GALLERY_CODES[side['gallery_codes']]}",
        )
        for side in beside
    ]
    return [row for row in rows if row is not None]


def control_rows(metrics: Metrics) -> list[Row]:
    """Return (what, mAP with its interval, note) of the model and its controls; empty without."""
    found = metrics.get("controls") or {}
    rows = []
    for name, (label, note) in _CONTROLS.items():
        known = found.get(name)
        if known:
            score = f"{known['mean']:.3f} [{known['low']:.3f}, {known['high']:.3f}]"
            rows.append((label, score, note))
    return rows


def verdict_lines(metrics: Metrics) -> str:
    """Say whether the model beats the classifier's codeword; empty where that is not known."""
    found = metrics.get("controls") or {}
    gap = (found.get("model_less_classifier") or {}).get("interval")
    if not gap:
        return ""
    size = f"{gap['mean']:+.3f} mAP, between {gap['low']:+.3f} and {gap['high']:+.3f}"
    ground = f"on {found['queries']:,} queries and {found['gallery']:,} gallery images"
    if gap["low"] > 0:
        return f"The model beats the classifier's codeword {ground} ({size})."
    if gap["high"] < 0:
        return (
            f"The classifier's codeword beats the model {ground} ({size}): these codes are worth "
            "less than knowing the class."
        )
    return (
        f"The model is not told apart from the classifier's codeword {ground} ({size}): as far as "
        "this shows, it has learned classes, not similarity."
    )


def class_rows(metrics: Metrics) -> list[tuple[str, str, str]]:
    """Return (class, mAP with its interval, queries), the worst first; empty without."""
    known = [each for each in metrics.get("by_class") or () if each.get("map") is not None]
    return [
        (
            each["class"],
            f"{each['map']:.3f} [{each['low']:.3f}, {each['high']:.3f}]",
            f"{each['queries']:,} queries",
        )
        for each in sorted(known, key=lambda each: float(each["map"]))
    ]


def audit_lines(metrics: Metrics) -> list[str]:
    """Return what the split audit found, a line each."""
    return list((metrics.get("audit") or {}).get("findings") or ())


def _map(metrics: Metrics) -> Row | None:
    worst, best = number(metrics.get("map_worst")), number(metrics.get("map_best"))
    note = "equally distant images count as the average over all their orders"
    if worst is not None and best is not None:
        note += f"; the worst order gives {worst:.3f}, the best {best:.3f}"
    known = metrics.get("map_interval")
    if known:
        note += (
            f". With other queries of the same kind it would lie between {known['low']:.3f} and "
            f"{known['high']:.3f} in {known['level']:.0%} of cases (bootstrap)"
        )
    return _row("mAP", metrics.get("map"), note)


def _mrr(metrics: Metrics) -> Row | None:
    note = "mean of 1 / rank of the first right image; 1 if it is always the first"
    return _row("MRR", metrics.get("mrr"), note)


def _reidentification(metrics: Metrics) -> list[Row | None]:
    found = metrics.get("reidentification")
    if not found:
        return []
    note = "the same identity on another camera; its own camera's images are left out"
    rows = [_row("Re-identification mAP", found["map"], note)]
    told = "found among the first {}"
    return rows + [_row(f"CMC, rank {k}", v, told.format(k)) for k, v in found["cmc"].items()]


def _legacy(metrics: Metrics) -> list[Row | None]:
    note = "for comparison with others only: it depends on the order of the gallery's rows"
    return [
        _row(f"mAP, tie rule '{rule}'", value, note)
        for rule, value in (metrics.get("legacy") or {}).items()
    ]


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
