"""The figures of an evaluation in words: sentences and table rows of a report."""

from __future__ import annotations

from collections.abc import Mapping

from schn_ray.evaluation.figures import Controls, Figures
from schn_ray.evaluation.metrics.bootstrap import Interval
from schn_ray.report.diagrams import Bar, Bars

Row = tuple[str, str, str]  # label, value, note

RECALL_MEANING = (
    "Recall k@R: of the k gallery images whose unquantised features have the highest cosine with "
    "those of the query, the share among the first R by Hamming distance, with its 95 % interval. "
    "It needs no labels."
)
_GALLERY_CODES = {
    "encoded": "computed by the network from each image alone, as for any new image",
    "learned": "solved from the gallery's labels in training; compare with published tables only",
    "given": "made by another program; the files do not say how",
}
_CONTROLS = {
    "model": ("This model", "codes of the network, on the same rows as the controls"),
    "classifier": (
        "Classifier's codeword",
        "a linear classifier on the network's features; a code is that of the predicted class",
    ),
    "cosine": ("Features by cosine", "the network's features themselves, before they become codes"),
    "itq": ("ITQ", "the features quantised without labels (Gong and Lazebnik 2011), as many bits"),
    "pca_rotation": ("PCA, random rotation", "the same, with the rotation left to chance"),
    "lsh": ("LSH", "random hyperplanes through the features, as many bits"),
    "random": ("Random codes", "random bits of the same length: the lower bound"),
}


def headline(figures: Figures | None) -> str:
    """Return the result in one sentence, and how much it was measured on.

    Args:
        figures: of an evaluation; None where there is none.

    >>> headline(None)
    'This report holds no evaluation.'
    """
    result = _result(figures) if figures else None
    if figures is None or result is None:
        return "This report holds no evaluation."
    return (
        f"{result}: {figures.queries:,} queries against {figures.gallery:,} gallery images, "
        f"{figures.bits}-bit codes."
    )


def gallery_codes(figures: Figures) -> str:
    """Return how the gallery's codes were made, and what that means, in one sentence.

    Args:
        figures: of an evaluation.
    """
    return f"Gallery codes: {figures.gallery_codes} ({_GALLERY_CODES[figures.gallery_codes]})."


def metric_rows(figures: Figures) -> list[Row]:
    """Return (label, value, note) of every metric that is defined.

    Args:
        figures: of an evaluation.
    """
    rows = [_map(figures), _mrr(figures), *_map_at(figures)]
    note = "by how many labels are shared; 1 is the best order"
    rows += _at(figures.ndcg_at, "NDCG@{}", note)
    rows += _at(figures.precision_at, "Precision@{}", "right among the {} nearest")
    rows += _at(figures.recall_at, "Recall@{}", "share of all right images among the {} nearest")
    rows.append(_precision_within_radius(figures))
    rows.append(("Distinct codes", f"{figures.unique_share:.1%}", "of all gallery codes"))
    rows += _reidentification(figures)
    rows += _legacy(figures)
    if figures.without_labels is None:
        note = "no gallery image shares a label with them; not counted"
        rows.append(("Queries left out", f"{figures.undefined_queries:,}", note))
    return [row for row in rows if row is not None]


def galleries(figures: Figures) -> list[Row]:
    """Return (gallery codes, mAP, note) of each gallery that was measured side by side.

    Args:
        figures: of an evaluation.

    Returns:
        No rows where only one gallery was measured.
    """
    if not figures.side_by_side:
        return []
    rows = [_row("encoded, whole gallery", figures.map, f"{figures.gallery:,} images")]
    rows += [
        _row(
            f"{side.gallery_codes}, rows with a learned code",
            side.map,
            f"{side.gallery:,} images; {_GALLERY_CODES[side.gallery_codes]}",
        )
        for side in figures.side_by_side
    ]
    return [row for row in rows if row is not None]


def control_rows(controls: Controls | None) -> list[Row]:
    """Return (what, mAP with its interval, note) of the model and of each control.

    Args:
        controls: of an evaluation; None where they were left out.
    """
    return [
        (_CONTROLS[name][0], _with_interval(score), _CONTROLS[name][1])
        for name, score in control_scores(controls).items()
    ]


def control_scores(controls: Controls | None) -> dict[str, Interval]:
    """Return the mAP of the model and of each control that has one.

    Args:
        controls: of an evaluation; None where they were left out.
    """
    scores = controls.scores.items() if controls else ()
    return {name: score for name, score in scores if score is not None}


def control_bars(figures: Figures) -> Bars | None:
    """Return the model's figure beside those of the controls, as bars.

    Args:
        figures: of an evaluation.

    Returns:
        mAP; without labels the recall of the nearest images; None where neither was measured.
    """
    scores, recall = control_scores(figures.controls), figures.main_recall
    what = "mAP"
    if not scores and recall is not None:
        what = recall.name
        scores = {name: score for name, score in recall.scores.items() if score is not None}
    if not scores:
        return None
    bars = tuple(
        Bar(_CONTROLS[name][0], score.mean, (score.low, score.high), name == "model")
        for name, score in scores.items()
    )
    caption = (
        f"The {what} of this model, and of simple methods on the very same images. Lines are 95 % "
        "intervals over queries."
    )
    return Bars("Against simple methods", caption, what, bars, "codes", shares=True)


def recall_rows(controls: Controls | None) -> list[tuple[str, ...]]:
    """Return the recall of the exact nearest images: the header of a table, and its rows.

    Args:
        controls: of an evaluation; None where they were left out.

    Returns:
        Codes and their recall at each pair of ranks; no rows where none was measured.
    """
    if controls is None or not controls.recall:
        return []
    rows: list[tuple[str, ...]] = [("Codes", *(each.name.capitalize() for each in controls.recall))]
    for name, (label, _) in _CONTROLS.items():
        scores = [each.scores.get(name) for each in controls.recall]
        if any(scores):
            rows.append((label, *("" if each is None else _with_interval(each) for each in scores)))
    return rows


def itq_verdict(figures: Figures) -> str:
    """Return in one sentence whether the model's recall beats that of ITQ.

    Args:
        figures: of an evaluation.

    Returns:
        Empty where the difference is not known.
    """
    recall = figures.main_recall
    if recall is None or recall.model_less_itq is None:
        return ""
    gap = recall.model_less_itq.interval
    size = f"{gap.mean:+.3f} {recall.name}, between {gap.low:+.3f} and {gap.high:+.3f}"
    if gap.low > 0:
        return f"The model finds more of the nearest images than ITQ ({size})."
    if gap.high < 0:
        return f"ITQ finds more of the nearest images than the model ({size})."
    return f"The model does not differ from ITQ ({size})."


def classifier_verdict(controls: Controls | None) -> str:
    """Return in one sentence whether the model beats the classifier's codeword.

    Args:
        controls: of an evaluation; None where they were left out.

    Returns:
        Empty where the difference is not known.
    """
    if controls is None or controls.model_less_classifier is None:
        return ""
    gap = controls.model_less_classifier.interval
    size = f"{gap.mean:+.3f} mAP, between {gap.low:+.3f} and {gap.high:+.3f}"
    ground = f"on {controls.queries:,} queries and {controls.gallery:,} gallery images"
    if gap.low > 0:
        return f"The model beats the classifier's codeword {ground} ({size})."
    if gap.high < 0:
        return (
            f"The classifier's codeword beats the model {ground} ({size}): these codes are worth "
            "less than knowing the class."
        )
    return (
        f"The model does not differ from the classifier's codeword {ground} ({size}): as far as "
        "this shows, it has learned classes, not similarity."
    )


def length_rows(figures: Figures) -> list[Row]:
    """Return (length, mAP with its interval, the difference to the longest) of nested codes.

    Args:
        figures: of an evaluation.
    """
    return [
        (
            f"{each.bits} bits",
            _with_interval(each.map_interval),
            _with_interval(each.less_longest.interval, "+.3f"),
        )
        for each in figures.by_length
        if each.map_interval is not None and each.less_longest is not None
    ]


def class_rows(figures: Figures) -> list[Row]:
    """Return (class, mAP with its interval, queries), the worst class first.

    Args:
        figures: of an evaluation.
    """
    known = [(each.map, each) for each in figures.by_class if each.map is not None]
    return [
        (each.name, f"{score:.3f} [{each.low:.3f}, {each.high:.3f}]", f"{each.queries:,} queries")
        for score, each in sorted(known, key=lambda pair: pair[0])
    ]


def _result(figures: Figures) -> str | None:
    """Return the figure that is named first."""
    if figures.map is not None:
        return f"mAP {figures.map:.3f}"
    recall = figures.main_recall
    return f"{recall.name.capitalize()} {recall.model.mean:.3f}" if recall else None


def _map(figures: Figures) -> Row | None:
    note = "equally distant images count as the average over all their orders"
    if figures.map_worst is not None and figures.map_best is not None:
        note += f"; the worst order gives {figures.map_worst:.3f}, the best {figures.map_best:.3f}"
    known = figures.map_interval
    if known is not None:
        note += (
            f". With other queries of the same kind it would lie between {known.low:.3f} and "
            f"{known.high:.3f} in {known.level:.0%} of cases (bootstrap)"
        )
    return _row("mAP", figures.map, note)


def _mrr(figures: Figures) -> Row | None:
    note = "mean of 1 / rank of the first right image; 1 if it is always the first"
    return _row("MRR", figures.mrr, note)


def _reidentification(figures: Figures) -> list[Row | None]:
    reid = figures.reidentification
    if reid is None:
        return []
    note = "the same identity on another camera; its own camera's images are left out"
    rows = [_row("Re-identification mAP", reid.map, note)]
    return rows + _at(reid.cmc, "CMC, rank {}", "share of queries with a hit among the first {}")


def _legacy(figures: Figures) -> list[Row | None]:
    note = "for comparison with others only: it depends on the order of the gallery's rows"
    return [_row(f"mAP, tie rule '{rule}'", value, note) for rule, value in figures.legacy.items()]


def _map_at(figures: Figures) -> list[Row | None]:
    rows = []
    for k, at in sorted(figures.map_at.items()):
        note = f"over the first {k} ranks, divided by all right images in the gallery"
        rows.append(_row(f"mAP@{k}, relevant", at.relevant, note))
        note = f"the same, divided by the right images that {k} ranks can hold"
        rows.append(_row(f"mAP@{k}, min", at.min, note))
        note = "the same, divided by the right images in these ranks; as most published tables"
        rows.append(_row(f"mAP@{k}, hits", at.hits, note))
    return rows


def _at(values: Mapping[int, float | None], label: str, note: str) -> list[Row | None]:
    return [_row(label.format(k), value, note.format(k)) for k, value in sorted(values.items())]


def _precision_within_radius(figures: Figures) -> Row | None:
    bits = f"{figures.radius} bits"
    note = f"right among all images within {bits}"
    if figures.empty_balls is not None:
        note += f"; {figures.empty_balls:.1%} of queries have none there and count as 0"
    return _row(f"Precision within {bits}", figures.precision_within_radius, note)


def _with_interval(score: Interval, style: str = ".3f") -> str:
    return f"{score.mean:{style}} [{score.low:{style}}, {score.high:{style}}]"


def _row(label: str, value: float | None, note: str) -> Row | None:
    return (label, f"{value:.3f}", note) if value is not None else None
