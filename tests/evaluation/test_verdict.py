"""Figures in words: the grade, the sentence, and what to do."""

from typing import Any

import pytest
from support.evaluations import figures

from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.plot_data import Confusion
from schn_ray.evaluation.verdict import verdict_of


def by_class(**maps: float) -> list[dict[str, Any]]:
    return [
        {"class": name, "queries": 9, "map": value, "low": value, "high": value}
        for name, value in maps.items()
    ]


def interval(mean: float) -> dict[str, Any]:
    return {"mean": mean, "low": mean, "high": mean, "queries": 9}


def controls(model: float, cosine: float) -> dict[str, Any]:
    scores = {"model": interval(model), "cosine": interval(cosine)}
    return {"queries": 9, "gallery": 99, "train_rows": 9} | scores


def labelled(precision: float, recall: float = 0.1, **changes: Any) -> Figures:
    at = {"precision_at": {10: precision}, "recall_at": {10: recall}}
    classes = by_class(cat=0.2, dog=0.3, owl=0.95, fox=0.9)
    return figures(**{"by_class": classes, "unique_share": 0.9} | at | changes)


def without_labels(near: float, far: float) -> Figures:
    recall = [
        {"model": interval(value), "k": 10, "first": first}
        for first, value in ((10, near), (100, far))
    ]
    empty = {"queries": 9, "gallery": 999, "train_rows": 9, "recall": recall}
    return figures(map=None, controls=empty, without_labels="none", unique_share=1.0)


@pytest.mark.parametrize(
    ("precision", "grade"), [(0.91, "good"), (0.8, "good"), (0.79, "fair"), (0.49, "poor")]
)
def test_the_grade_is_the_share_of_right_results(precision: float, grade: str) -> None:
    verdict = verdict_of(labelled(precision))
    assert (verdict.grade, verdict.share) == (grade, precision)
    assert f"{round(10 * precision)} of the first 10 results are of the same class" in str(verdict)


def test_classes_smaller_than_a_page_are_not_blamed() -> None:
    verdict = verdict_of(labelled(0.38, recall=0.95))
    assert verdict.grade == "good"
    assert "10 of 10 images of the same class are among the first 10" in verdict.summary


def test_a_poor_one_says_what_to_do() -> None:
    text = str(verdict_of(labelled(0.3, controls=controls(0.4, 0.8))))
    assert "0.50 of that of the unquantised features" in text
    assert "weakest classes are cat (0.20), dog (0.30), fox (0.90)" in text
    assert "--bits 64" in text
    text = str(verdict_of(labelled(0.3, controls=controls(0.79, 0.8))))
    assert "better backbone" in text
    assert "--bits" not in text
    collapsed = verdict_of(labelled(0.3, unique_share=0.01, controls=controls(0.4, 0.8)))
    assert "only 1.0% of the codes differ" in collapsed.advice[0]
    assert len(collapsed.advice) == 1
    assert verdict_of(labelled(0.9, controls=controls(0.4, 0.8))).advice == ()


def test_without_labels_the_features_are_the_judge() -> None:
    verdict = verdict_of(without_labels(0.42, 0.86))
    assert (verdict.grade, verdict.share) == ("good", 0.86)
    assert "4 of 10 nearest by the features are among the first 10 results, and 9" in str(verdict)
    assert "--bits 64" in str(verdict_of(without_labels(0.1, 0.4)))


def test_nothing_measured_is_no_praise() -> None:
    assert verdict_of(figures(map=None, without_labels="none")).grade == "unknown"


def test_one_class_is_no_proof() -> None:
    """All results are right where there is one class: the features decide."""
    one = without_labels(0.1, 0.3).to_json() | {"map": 1.0, "by_class": by_class(cat=1.0)}
    assert verdict_of(Figures.model_validate(one)).grade == "poor"


def test_classes_that_are_mixed_up_are_named() -> None:
    share = [[0.6, 0.3, 0.1], [0.1, 0.9, 0.0], [0.0, 0.05, 0.95]]
    mixed = Confusion(classes=("cat", "dog", "owl"), share=share, neighbours=10)
    line = "cat and dog are mixed up most: 3 of 10 results for cat are dog"
    assert line in verdict_of(labelled(0.3, controls=controls(0.4, 0.8)), mixed).advice
    clear = Confusion(classes=("cat", "dog"), share=[[0.95, 0.05], [0, 1]], neighbours=10)
    assert "mixed" not in str(verdict_of(labelled(0.3, controls=controls(0.4, 0.8)), clear))
    assert "mixed" not in str(verdict_of(labelled(0.9), mixed))  # good ones need no advice
