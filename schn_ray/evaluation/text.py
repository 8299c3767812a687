"""An evaluation's figures as lines of text."""

from __future__ import annotations

from pathlib import Path

from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.metrics.bootstrap import Interval
from schn_ray.evaluation.results import read_figures

_CONTROLS = {
    "model": "this model",
    "classifier": "classifier's codeword",
    "cosine": "features by cosine",
    "itq": "ITQ of the features",
    "pca_rotation": "PCA and random rotation",
    "lsh": "LSH",
    "random": "random codes",
}


def text_for_model(evaluation: Path | str, fingerprint: str) -> str:
    """Return an evaluation's figures as text, for the card of the model that it measured.

    Args:
        evaluation: a finished evaluation.
        fingerprint: of the model.

    Raises:
        SchnRayError: the evaluation measured another model.
    """
    figures = read_figures(evaluation)
    if figures.model != fingerprint:
        raise SchnRayError(
            f"{evaluation} measured another model; evaluate this one, or name its own evaluation"
        )
    return figures_text(figures)


def figures_text(figures: Figures) -> str:
    """Return the figures as lines of text.

    Args:
        figures: of one evaluation.
    """
    lines = _of_labels(figures) if figures.without_labels is None else _of_codes(figures)
    lines.append(f"  distinct codes in the gallery: {figures.unique_share:.1%}")
    lines += [f"  {line}" for line in _blocks(figures)]
    lines += [
        f"  tie rule '{rule}' of others: mAP {_rounded(value)}, by the order of the rows"
        for rule, value in figures.legacy.items()
    ]
    if (reid := figures.reidentification) is not None:
        ranks = ", ".join(f"rank {k} {_rounded(value)}" for k, value in reid.cmc.items())
        lines.append(f"  re-identification: mAP {_rounded(reid.map)}, CMC {ranks}")
    lines += [f"  audit: {finding}" for finding in figures.audit.findings]
    if figures.undefined_queries and figures.without_labels is None:
        lines.append(f"  left out: {figures.undefined_queries} queries with nothing relevant")
    if figures.gallery_without_code:
        lines.append(f"  left out: {figures.gallery_without_code} rows never sampled")
    return "\n".join(lines)


def _of_labels(figures: Figures) -> list[str]:
    return [
        f"mAP {_rounded(figures.map)}, gallery codes: {figures.gallery_codes}",
        *_measured_on(figures),
        f"  95 % interval over queries:{_bounds(figures.map_interval) or ' undefined'}",
        f"  ties: expected over their orders; worst order {_rounded(figures.map_worst)}, "
        f"best {_rounded(figures.map_best)}",
        f"  precision within radius {figures.radius}: "
        f"{_rounded(figures.precision_within_radius)}, empty balls "
        f"{_rounded(figures.empty_balls)}",
    ]


def _of_codes(figures: Figures) -> list[str]:
    recall = figures.main_recall
    title = (
        f"{recall.name} {recall.model.mean:.4f}{_bounds(recall.model)}" if recall else "no figures"
    )
    return [
        f"{title}, gallery codes: {figures.gallery_codes}",
        *_measured_on(figures),
        f"  {figures.without_labels}",
    ]


def _measured_on(figures: Figures) -> list[str]:
    return [
        f"  {figures.queries:,} queries, {figures.gallery:,} gallery images, "
        f"{figures.bits} bits, protocol {figures.protocol}"
    ]


def _galleries(figures: Figures) -> list[str]:
    return [
        f"{side.description}: mAP {_rounded(side.map)} over {side.gallery:,} gallery images"
        for side in figures.side_by_side
    ]


def _blocks(figures: Figures) -> list[str]:
    blocks = _lengths, _galleries, _rescored, _controls, _recall
    return [line for block in blocks for line in block(figures)]


def _lengths(figures: Figures) -> list[str]:
    """Return a table: nested codes by length, and what each loses against the longest."""
    if not figures.by_length:
        return []
    lines = ["by length, the first bits of the same codes:", f"  {'bits':>5}  mAP"]
    for each in figures.by_length:
        line = f"  {each.bits:5}  {_rounded(each.map)}{_bounds(each.map_interval)}"
        if each.less_longest is not None and each.bits < figures.bits:
            gap = each.less_longest.interval
            line += f", less {figures.bits} bits: {gap.mean:+.4f}{_bounds(gap)}"
        lines.append(line)
    return lines


def _rescored(figures: Figures) -> list[str]:
    lines = []
    for each in figures.rescored:
        ground = f"{each.queries:,} queries and {each.gallery:,} gallery images"
        mean, plain = (score.mean if score else None for score in (each.map, each.plain))
        if each.candidates is not None:
            ground += f", the nearest {each.candidates:,.0f} of each"
        line = f"rescored by {each.by}, {ground}: mAP {_rounded(mean)}{_bounds(each.map)}"
        if each.gain is not None:
            gain = each.gain.interval
            line += f", by distance {_rounded(plain)}, gain {gain.mean:+.4f}{_bounds(gain)}"
        lines.append(line)
    return lines


def _controls(figures: Figures) -> list[str]:
    controls = figures.controls
    if controls is None:
        return []
    ground = f"{controls.queries:,} queries and {controls.gallery:,} gallery images"
    lines = []
    if controls.model:
        scores = ", ".join(
            f"{_CONTROLS[name]} {_rounded(score.mean)}"
            for name, score in controls.scores.items()
            if score is not None
        )
        lines.append(f"controls, {ground}: {scores}")
    for name, gap in (
        ("classifier", controls.model_less_classifier),
        ("ITQ", controls.model_less_itq),
    ):
        if gap is not None:
            lines.append(f"model less {name}: {gap.interval.mean:+.4f}{_bounds(gap.interval)}")
    return lines


def _recall(figures: Figures) -> list[str]:
    """Return a table: recall of the model and of each control at each pair of ranks."""
    main, controls = figures.main_recall, figures.controls
    if main is None or controls is None:
        return []
    lines = [
        "recall k@R, of the k rows with the nearest features the share among the first R:",
        f"  {'':23}" + "".join(f"{f'{each.k}@{each.first}':>9}" for each in controls.recall),
    ]
    for name in main.scores:
        scores = [each.scores[name] for each in controls.recall]
        if any(scores):
            cells = "".join(f"{score.mean:9.4f}" if score else f"{'':9}" for score in scores)
            lines.append(f"  {_CONTROLS[name]:23}{cells}".rstrip())
    if main.model_less_itq is not None:
        gap = main.model_less_itq.interval
        lines.append(f"  model less ITQ, {main.name}: {gap.mean:+.4f}{_bounds(gap)}")
    return lines


def _bounds(interval: Interval | None) -> str:
    return "" if interval is None else f" [{interval.low:.4f}, {interval.high:.4f}]"


def _rounded(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
