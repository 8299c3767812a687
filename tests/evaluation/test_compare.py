"""Runs side by side: the same queries or none, spreads over seeds, and paired differences."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support.evaluations import figures

from schn_ray.core.atomic_files import write_json
from schn_ray.core.directories import new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.compare import as_table, compare_runs
from schn_ray.evaluation.metrics.bootstrap import paired_difference
from schn_ray.evaluation.results import DIAGRAMS, EXAMPLES, KIND, METRICS, write_queries

QUERIES = 60


def evaluated(path: Path, ap: np.ndarray, seed: int = 0, bits: int = 32, **other: Any) -> Path:
    """Write an evaluation as ``evaluate`` would, of the figures that a comparison reads."""
    trained = {"bits": bits, "seed": seed, "method": {"initial_codes": other.pop("init", "random")}}
    measured = {
        "run": path.name,
        "trained": trained,
        "bits": bits,
        "queries": QUERIES,
        "gallery": 500,
        "map": float(np.nanmean(ap)),
        "mrr": 0.9,
        "precision_within_radius": None,
        "map_at": {"10": {"relevant": 0.1, "min": 0.2, "hits": 0.5}},
        "precision_at": {"10": 0.25 + seed},
        "controls": {
            "queries": QUERIES,
            "gallery": 500,
            "train_rows": 10,
            "model": None,
            "classifier": score(0.5 + seed / 10),
            "cosine": score(0.6),
            "random": None,
            "model_less_classifier": None,
        },
    } | other
    with new_directory(path, KIND, {"name": path.name}, {}) as draft:
        write_json(draft.path / METRICS, figures(**measured).to_json())
        write_json(draft.path / EXAMPLES, [])
        write_json(draft.path / DIAGRAMS, {})
        ids = pa.array([f"q{i}" for i in range(len(ap))])
        write_queries(draft.path, ids, {"average_precision": ap})
    return path


def score(mean: float) -> dict[str, float]:
    return {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "queries": QUERIES}


def scores(shift: float, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    hard = np.random.default_rng(99).random(QUERIES) / 2  # what is hard is so for everyone
    return np.clip(hard + shift + rng.normal(0, 0.02, QUERIES), 0, 1)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return [
        *(evaluated(tmp_path / f"a{s}", scores(0.2, s), s) for s in range(3)),
        *(evaluated(tmp_path / f"b{s}", scores(0.25, 10 + s), s, init="zeros") for s in range(2)),
    ]


def test_seeds_of_one_method_are_a_mean_and_a_deviation(paths: list[Path]) -> None:
    found = compare_runs(paths)
    first, second = found.methods
    assert (first.name, second.name) == (
        "32 bits, method.initial_codes=random",
        "32 bits, method.initial_codes=zeros",
    )
    assert (first.runs, first.seeds) == (("a0", "a1", "a2"), (0, 1, 2))
    maps = [scores(0.2, seed).mean() for seed in range(3)]
    assert first.figures["map"].mean == pytest.approx(np.mean(maps), rel=1e-12)
    assert first.figures["map"].deviation == pytest.approx(np.std(maps, ddof=1), rel=1e-9)
    assert first.figures["precision@10"].mean == pytest.approx(1.25)
    assert first.figures["map@10, hits"].deviation == 0
    assert "precision_within_radius" not in first.figures
    assert first.controls == {"classifier": pytest.approx(0.6), "cosine": pytest.approx(0.6)}


def test_a_difference_is_paired_with_seeds_averaged_query_by_query(paths: list[Path]) -> None:
    (gap,) = compare_runs(paths).gaps
    ours = paired_difference(
        np.mean([scores(0.2, s) for s in range(3)], axis=0),
        np.mean([scores(0.25, 10 + s) for s in range(2)], axis=0),
    )
    assert gap.difference == ours
    assert gap.difference.interval.mean == pytest.approx(0.05, abs=0.01)
    assert gap.difference.p_value < 0.001
    text = as_table(compare_runs(paths))
    assert "method.initial_codes=zeros less 32 bits, method.initial_codes=random: +0.0" in text
    assert "+-" in text


def test_bits_are_methods_of_their_own(tmp_path: Path) -> None:
    both = [evaluated(tmp_path / str(b), scores(0.2, b), bits=b) for b in (16, 32)]
    found = compare_runs(both)
    assert [method.name for method in found.methods] == ["16 bits", "32 bits"]
    assert found.methods[0].figures["map"].deviation is None


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"queries_sha256": "other"}, "other queries"),
        ({"gallery_sha256": "other"}, "another gallery"),
        ({"gallery_codes": "learned"}, "another kind"),
    ],
)
def test_other_ground_is_refused(tmp_path: Path, other: dict[str, str], words: str) -> None:
    first = evaluated(tmp_path / "a", scores(0, 0))
    second = evaluated(tmp_path / "b", scores(0, 1), **other)
    with pytest.raises(SchnRayError, match=words) as caught:
        compare_runs([first, second])
    assert str(second) in str(caught.value)


def test_a_run_counts_once(paths: list[Path]) -> None:
    with pytest.raises(SchnRayError, match="twice"):
        compare_runs([paths[0], paths[1], paths[0]])


def test_a_query_that_one_leaves_undefined_is_left_out_of_the_difference(tmp_path: Path) -> None:
    first, second = scores(0.2, 0), scores(0.3, 1)
    second[5] = np.nan
    pair = [
        evaluated(tmp_path / "a", first),
        evaluated(tmp_path / "b", second, init="zeros"),
    ]
    (gap,) = compare_runs(pair).gaps
    assert gap.difference.interval.queries == QUERIES - 1


def test_the_command(schn_ray: Any, paths: list[Path]) -> None:
    answer = schn_ray("compare", *paths)
    assert answer.code == 0, answer.err
    assert "paired bootstrap" in answer.out
    answer = schn_ray("compare", *paths, "--json")
    assert '"gaps"' in answer.out
    missing = schn_ray("compare", paths[0].parent)
    assert missing.code == 2
    assert "schn-ray evaluate" in missing.err
