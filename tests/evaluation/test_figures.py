"""Figures as a typed model: the file is what it was, and a damaged one is refused."""

import ast
import json
from pathlib import Path
from typing import Any

import pytest
from support.evaluations import FIGURES, figures

from schn_ray.core.directories import new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.results import (
    DIAGRAMS,
    EXAMPLES,
    KIND,
    METRICS,
    read_examples,
    read_figures,
    read_plot_data,
)
from schn_ray.evaluation.text import figures_text

PACKAGE = Path(__file__).parents[2] / "schn_ray"
INTERVAL = {"mean": 0.75, "low": 0.7, "high": 0.8, "queries": 60}
OPTIONAL = ("by_length", "reidentification", "without_labels", "rescored")
GAP = {"interval": INTERVAL, "p_value": 0.01}
RECALL: dict[str, Any] = dict.fromkeys(("model", "itq", "pca_rotation", "lsh", "random"), INTERVAL)
RECALL |= {"classifier": None, "model_less_itq": GAP}
SIDE = ("bits", "queries", "undefined_queries", "gallery", "ties", "map", "map_best", "map_worst")
SIDE += ("map_at", "precision_at", "recall_at", "radius", "precision_within_radius")
SIDE += ("empty_balls", "pr_curve", "map_interval", "mrr", "ndcg_gain", "ndcg_at")
WHOLE: dict[str, Any] = FIGURES | {
    "run": "caf\udce9",  # a directory's name need not be valid text
    "trained": {"bits": 32, "loss": {"cycle": 0.1}},
    "audit": {"findings": ["1 x"], "spoiling": [], "rows": {"query": 3}},
    "map_at": {"10": {"relevant": 0.1, "min": None, "hits": 0.3}},
    "precision_at": {"10": 1 / 3, "100": None},
    "pr_curve": [{"threshold": 0, "precision": 0.1, "recall": 0.2, "empty": 0.3}],
    "map_interval": INTERVAL | {"level": 0.95},
    "by_class": [{"class": "cat", "queries": 3, "map": 0.5, "low": 0.4, "high": 0.6}],
    "by_length": [
        {"bits": 16, "map": 0.4, "map_interval": INTERVAL | {"level": 0.95}, "less_longest": GAP}
        | {"precision_at": {"10": 0.5}, "precision_within_radius": None, "unique_share": 0.2}
    ],
    "legacy": {"stable": 0.5},
    "reidentification": {"queries": 3, "undefined_queries": 0, "map": 0.1, "cmc": {"1": 0.2}},
    "side_by_side": [
        {"gallery_codes": "learned", "said": "learned codes"} | {key: FIGURES[key] for key in SIDE}
    ],
    "controls": {"queries": 3, "gallery": 5, "train_rows": 7}
    | dict.fromkeys(("model", "classifier", "cosine", "itq", "pca_rotation", "lsh"), INTERVAL)
    | {"random": None, "model_less_classifier": GAP, "model_less_itq": None}
    | {"recall": [RECALL | {"k": 1, "first": 1}, RECALL | {"k": 10, "first": 10}]},
}


def evaluation(path: Path, content: Any) -> Path:
    with new_directory(path, KIND, {}, {}) as draft:
        for name in (METRICS, EXAMPLES, DIAGRAMS):
            text = content if isinstance(content, str) else json.dumps(content)
            (draft.path / name).write_text(text)
    return path


def test_what_is_read_is_written_again_unchanged(tmp_path: Path) -> None:
    read = read_figures(evaluation(tmp_path / "e", WHOLE))
    assert json.loads(json.dumps(read.to_json())) == WHOLE
    assert read.precision_at[10] == 1 / 3
    assert read.by_class[0].name == "cat"
    assert read.controls is not None
    names = ["model", "classifier", "cosine", "itq", "pca_rotation", "lsh", "random"]
    assert list(read.controls.scores) == names
    assert list(read.controls.recall[0].scores) == [name for name in names if name != "cosine"]
    assert read.main_recall.name == "recall 10@10"


def test_figures_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        figures().map = 1.0


def test_an_evaluation_from_before_re_identification_is_read(tmp_path: Path) -> None:
    old = {key: value for key, value in WHOLE.items() if key != "reidentification"}
    assert read_figures(evaluation(tmp_path / "e", old)).reidentification is None


def test_an_evaluation_from_before_hashes_of_features_is_read(tmp_path: Path) -> None:
    names = ("queries", "gallery", "train_rows", "model", "classifier", "cosine", "random")
    names += ("model_less_classifier",)
    old = WHOLE | {"controls": {name: WHOLE["controls"][name] for name in names}}
    del old["without_labels"]
    read = read_figures(evaluation(tmp_path / "e", old))
    assert (read.without_labels, read.main_recall, read.controls.itq) == (None, None, None)
    assert "classifier's codeword 0.7500" in figures_text(read)


def refused(path: Path, *words: str) -> None:
    with pytest.raises(SchnRayError) as caught:
        read_figures(path)
    for word in (f"{path}/{METRICS}", "schn-ray evaluate", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize("key", [key for key in FIGURES if key not in OPTIONAL])
def test_a_file_without_a_key_is_refused(tmp_path: Path, key: str) -> None:
    values = {name: value for name, value in WHOLE.items() if name != key}
    refused(evaluation(tmp_path / "e", values), key, "required")


@pytest.mark.parametrize(
    "key",
    ["bits", "queries", "gallery", "undefined_queries", "radius", "unique_share", "gallery_codes"],
)
@pytest.mark.parametrize("value", [None, "many", []])
def test_a_value_of_another_kind_is_refused(tmp_path: Path, key: str, value: Any) -> None:
    refused(evaluation(tmp_path / "e", WHOLE | {key: value}), key)


@pytest.mark.parametrize("content", ["", "{", '"text"', "[]", "null", json.dumps(WHOLE)[:-9]])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    path = evaluation(tmp_path / "e", content)
    refused(path)
    with pytest.raises(SchnRayError, match="schn-ray evaluate"):
        read_plot_data(path)
    if content != "[]":  # no examples
        with pytest.raises(SchnRayError, match="schn-ray evaluate"):
            read_examples(path)


def test_an_unknown_key_is_refused(tmp_path: Path) -> None:
    refused(evaluation(tmp_path / "e", WHOLE | {"mpa": 0.5}), "mpa")


def read_by_key(tree: ast.AST) -> list[tuple[int, str]]:
    """Return line and key where figures are read by a key in place of a field."""
    keys = set(FIGURES)
    hits = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Subscript):
            holder, key = node.value, node.slice
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            holder, key = node.func.value, node.args[0]
            if node.func.attr != "get":
                continue
        else:
            continue
        if isinstance(holder, ast.Call):
            holder = holder.func
        if not isinstance(holder, ast.Name) or not isinstance(key, ast.Constant):
            continue
        if holder.id in ("figures", "measured", "metrics", "read_figures") and key.value in keys:
            hits.append((node.lineno, str(key.value)))
    return hits


def test_figures_are_read_by_field_and_never_by_key() -> None:
    assert set(FIGURES) == set(Figures.model_fields)
    control = 'measured["map"]; figures.get("mrr"); read_figures(out)["map"]; counts["queries"]'
    assert [key for _, key in read_by_key(ast.parse(control))] == ["map", "mrr", "map"]
    hits = {
        str(file): found
        for file in PACKAGE.rglob("*.py")
        if (found := read_by_key(ast.parse(file.read_text())))
    }
    assert not hits
