"""Figures in words: are the codes good, and what to do if they are not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.plot_data import Confusion

Grade = Literal["good", "fair", "poor", "unknown"]
_RANKS = 10  # a page of results
_GOOD, _FAIR = 0.8, 0.5  # share of right ones among them
_OF_FEATURES = 0.9  # of the unquantised features' own mAP: then more bits would add little
_COLLAPSED = 0.05  # distinct codes by images
_WEAK_CLASSES = 3
_MIXED = 0.1  # share of another class among the first results, from which two classes are mixed up


@dataclass(frozen=True)
class Verdict:
    """How good the codes are, in words.

    Attributes:
        grade: ``unknown`` where nothing could be measured.
        share: of the first results that are right, 0 to 1; None where nothing could be measured.
        summary: a sentence with the figures that decide.
        advice: what to do, a sentence each; empty if the codes are good.
    """

    grade: Grade
    share: float | None
    summary: str
    advice: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.grade}: {self.summary}", *(f"  {line}" for line in self.advice)])


def verdict_of(figures: Figures, confusion: Confusion | None = None) -> Verdict:
    """Say in words how good codes are.

    With labels of two classes or more, a result is right if it shares a label with the query.
    Otherwise it is right if it is one of the nearest by the cosine of the unquantised features.

    Args:
        figures: of one evaluation.
        confusion: of the same; with it the advice names the classes that are mixed up.

    Example:
        ``str(verdict_of(read_figures("evaluation")))`` ->
        ``good: 9 of the first 10 results are of the same class ...``
    """
    share, summary = _by_labels(figures) or _by_features(figures) or (None, "")
    if share is None:
        return Verdict("unknown", None, "too few images to measure anything: add more")
    grade: Grade = "good" if share >= _GOOD else "fair" if share >= _FAIR else "poor"
    return Verdict(grade, share, summary, _advice(figures, grade, confusion))


def _by_labels(figures: Figures) -> tuple[float, str] | None:
    """Return the share of right results among the first, and a sentence."""
    if figures.map is None or len(figures.by_class) < 2:
        return None
    precision, recall = figures.precision_at.get(_RANKS), figures.recall_at.get(_RANKS)
    end = f"(mAP {figures.map:.2f}{_of_cosine(figures)})"
    if precision is None or recall is None:  # a gallery of fewer images than a page
        return figures.map, f"mean average precision is {figures.map:.2f}"
    if recall > precision:  # classes of a few images cannot fill a page
        what = f"{_tenths(recall)} images of the same class are among the first {_RANKS} results"
        return recall, f"{what} {end}"
    return precision, f"{round(precision * _RANKS)} of the first {_RANKS} results are of the " + (
        f"same class {end}"
    )


def _by_features(figures: Figures) -> tuple[float, str] | None:
    recalls = figures.controls.recall if figures.controls else ()
    by_ranks = {(each.k, each.first): each.model.mean for each in recalls}
    near, far = by_ranks.get((_RANKS, _RANKS)), by_ranks.get((_RANKS, 10 * _RANKS))
    if near is None:
        return None
    text = f"{_tenths(near)} nearest by the features are among the first {_RANKS} results"
    if far is None:
        return near, text
    return far, f"{text}, and {_tenths(far)} among the first {10 * _RANKS}"


def _tenths(share: float) -> str:
    return f"{round(share * 10)} of 10"


def _of_cosine(figures: Figures) -> str:
    share = share_of_features(figures)
    return "" if share is None else f", {share:.2f} of that of the unquantised features"


def share_of_features(figures: Figures) -> float | None:
    """Return the codes' mAP by that of the unquantised features, on the very same rows.

    Args:
        figures: of one evaluation.

    Returns:
        Above 1 where the codes learned more than the features know; None without labels.
    """
    controls = figures.controls
    if controls is None or controls.model is None or controls.cosine is None:
        return None
    return controls.model.mean / controls.cosine.mean if controls.cosine.mean else None


def _of_embeddings(figures: Figures) -> bool:
    backbone = figures.trained.get("backbone", {})
    return str(backbone.get("name", "")).startswith("features:")


def mixed_up(confusion: Confusion | None) -> str:
    """Say which two classes are mixed up most; empty where none are.

    Args:
        confusion: of an evaluation.

    Example:
        ``cat and dog are mixed up most: 3 of 10 results for cat are dog``
    """
    if confusion is None:
        return ""
    pairs = [
        (share, query, other)
        for query, row in enumerate(confusion.share)
        for other, share in enumerate(row)
        if query != other and share >= _MIXED
    ]
    if not pairs:
        return ""
    share, query, other = max(pairs, key=lambda pair: pair[0])
    one, two = confusion.classes[query], confusion.classes[other]
    return f"{one} and {two} are mixed up most: {_tenths(share)} results for {one} are {two}"


def _advice(figures: Figures, grade: Grade, confusion: Confusion | None) -> tuple[str, ...]:
    if grade == "good":
        return ()
    if figures.unique_share < _COLLAPSED:
        return (
            f"only {figures.unique_share:.1%} of the codes differ: the training failed; try "
            "another --method, or more images",
        )
    lines = []
    if (share := share_of_features(figures)) is not None and len(figures.by_class) > 1:
        weak = sorted((c for c in figures.by_class if c.map is not None), key=lambda c: c.map or 0)
        names = ", ".join(f"{c.name} ({c.map:.2f})" for c in weak[:_WEAK_CLASSES])
        lines.append(f"the weakest classes are {names}; look at them in the report")
        lines += [line for line in [mixed_up(confusion)] if line]
    if share is not None and share < _OF_FEATURES:
        lines.append(
            f"the features know more than the codes: use more bits (--bits {2 * figures.bits})"
        )
    elif share is not None and _of_embeddings(figures):
        lines.append("the embeddings themselves are the limit: make better ones")
    elif share is not None:
        lines.append(
            "the features themselves are the limit: use a better backbone (--backbone timm:NAME), "
            "or let it learn from your images (--fine-tune)"
        )
    else:
        lines.append(f"use more bits (--bits {2 * figures.bits})")
    return tuple(lines)
