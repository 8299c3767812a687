"""A search over methods, confirmed: what is compared with what. No trial is trained, and no Ray."""

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import schn_ray
from schn_ray.cluster import tune
from schn_ray.cluster.tune import SearchBudget, tune_on_ray
from schn_ray.core.documents import parse_json
from schn_ray.data.shards.map_shards import map_locally
from schn_ray.training.config import train_config
from schn_ray.training.rows import settings_of_inputs
from schn_ray.tuning.confirm import CONFIRMED
from schn_ray.tuning.method_spaces import opened_space
from schn_ray.tuning.results import study_text
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.space import base_config

# mean validation mAP, how much a seed adds, mAP of the queries
METHODS = {"schn-plus": (0.5, 0.001, 0.4), "csq": (0.7, 0.01, 0.45), "itq-cca": (0.68, 0.02, 0.6)}


def figure(method: str, seed: int) -> float:
    mean, of_seed, _ = METHODS[method]
    lucky = 0.05 if (method, seed) == ("itq-cca", 0) else 0.0  # 0 is the seed of the search
    return mean + of_seed * (seed % 3) + lucky


def pretend(searcher: Any, jobs: int, at_once: int, settings: dict[str, Any], _: str) -> None:
    queue = searcher._queue
    while (job := queue.next()) is not None:
        scores = {"validation_map": figure(job.config.method.name, job.config.seed)}
        queue.finish(job.number, Outcome("complete", scores, iterations=1, seconds=1.0))


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tune, "fit", pretend)
    monkeypatch.setattr(tune, "ray_session", nullcontext)
    monkeypatch.setattr(tune, "trials_at_once", lambda _: 1)
    monkeypatch.setattr(tune, "require_shared", lambda _: None)
    monkeypatch.setattr(tune, "RayShards", lambda _: map_locally)
    monkeypatch.setattr(tune, "report_search", lambda *_: None)  # drawing takes seconds
    on_queries = lambda work, row, seed: METHODS[row.values["method.name"]][2]  # noqa: E731
    monkeypatch.setattr(tune._Work, "_on_queries", on_queries)
    return


@pytest.fixture
def store(tmp_path: Path) -> str:
    draw = np.random.default_rng(0)
    np.save(tmp_path / "v.npy", draw.normal(size=(60, 5)).astype(np.float32))
    (tmp_path / "v.labels.txt").write_text("".join(f"{i % 3}\n" for i in range(60)))
    return str(
        schn_ray.prepare(tmp_path / "v.npy", tmp_path / "s", settings={"validation_share": 0.3})
    )


def searched(store: str, out: Path, repeats: int) -> None:
    given = settings_of_inputs(store)
    space = opened_space("methods", "frozen", None, (), None, given, tuple(METHODS))
    base = base_config(space, "frozen", None, (), None, given)
    tune_on_ray(space, base, store, out, SearchBudget(8, repeats=repeats))


def test_the_winner_is_compared_with_the_next_method_on_fresh_seeds(
    pretended: None, store: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    searched(store, out, 3)
    confirmed = parse_json((out / CONFIRMED).read_bytes(), "")
    best = train_config(None, out / "best.yaml")
    # on the search's seed itq-cca is best (.73); over seeds 1 to 3 csq is (.71 to .70)
    assert best.method.name == "csq"
    assert len(confirmed["candidates"]) == 3
    second = confirmed["runner_up"]
    assert second["method"] == "itq-cca"
    judged = [figure("csq", seed) - figure("itq-cca", seed) for seed in (4, 5, 6)]
    assert second["validation"]["mean"] == pytest.approx(sum(judged) / 3)
    assert second["validation"]["pairs"] == 3
    # queries have no say in who wins: there, the second is better
    assert second["queries"]["mean"] == pytest.approx(0.45 - 0.6)
    assert confirmed["validation"]["baseline"] == pytest.approx(0.501)
    text = study_text(out)
    assert "csq against itq-cca, the next method: on validation it is" in text
    assert "itq-cca 0.7300" in text


def test_without_seeds_the_methods_are_ranked_and_nothing_more(
    pretended: None, store: str, tmp_path: Path
) -> None:
    searched(store, tmp_path / "out", 0)
    text = study_text(tmp_path / "out")
    assert "methods: itq-cca 0.7300 (" in text
    assert "not confirmed on other seeds" in text
    assert not (tmp_path / "out" / CONFIRMED).exists()
