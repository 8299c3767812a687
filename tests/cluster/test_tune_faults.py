"""``tune`` under the faults of ``support.faults``; in place of Ray Tune, this process trains."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from support.fault_verbs import SETTINGS, prepared
from support.faults import (
    Verb,
    check_damage,
    check_full_disk,
    check_kills,
    check_signals,
    check_two,
)
from support.image_files import write_tree
from support.trials import on_trial, takes_minutes

from schn_ray.cluster import tune
from schn_ray.cluster.tune import SearchBudget, tune_on_ray
from schn_ray.core.artefacts import open_artefact
from schn_ray.core.settings import validated
from schn_ray.data.shards.map_shards import map_locally
from schn_ray.tuning.results import study_text
from schn_ray.tuning.space import Space, base_config
from schn_ray.tuning.study import Search
from schn_ray.tuning.trial import run_trial, train_trial

pytestmark = pytest.mark.slow

SPACE = validated(
    Space,
    {
        "preset": "digits",
        "fixed": dict(line.split("=") for line in SETTINGS),
        "parameters": {
            "method.quantization": {"log": [0.1, 100]},
            "method.initial_codes": {"choices": ["zeros", "random"]},
        },
    },
)
BASE = base_config(SPACE, None, None, ())


def fit_here(searcher: Any, jobs: int, at_once: int, settings: dict[str, Any], _: str) -> None:
    queue = searcher._queue
    while (job := queue.next()) is not None:
        report: Callable[[int, float], object] = partial(queue.report_score, job.number)
        outcome = run_trial(
            job.config, settings["store"], job.directory, report, train_trial, ["validation_map"]
        )
        queue.finish(job.number, outcome)


def search(root: Path, out: Path, trials: int = 2) -> None:
    tune_on_ray(SPACE, BASE, root / "store", out / "search", SearchBudget(trials))


def described(root: Path, out: Path) -> None:
    (out / "text").write_text(study_text(root / "search").replace(str(root), ""))


def content(out: Path) -> object:
    """Return what was tried and what came of it; seconds and folders' names are other ones."""
    artefact = open_artefact(out / "search", "search")
    artefact.check()
    rows = Search(out / "search", SPACE, BASE).rows()
    assert not list((out / "search").rglob("*.partial"))
    tried = [(row.number, row.state, row.values, row.figures, row.curve) for row in rows]
    return tried, artefact.manifest.files["best.yaml"], artefact.manifest.counts["best_trial"]


VERBS = {
    "tune": Verb(search, ("store",), content=content),
    "more trials": Verb(partial(search, trials=3), ("store",), ("search",), content),
    "its text": Verb(described, ("search",)),
}


@pytest.fixture(scope="module", autouse=True)
def in_this_process() -> Iterator[None]:
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tune, "fit", fit_here)
        patch.setattr(tune, "ray_session", nullcontext)
        patch.setattr(tune, "trials_at_once", lambda _: 1)
        patch.setattr(tune, "require_shared", lambda _: None)
        patch.setattr(tune, "RayShards", lambda _: map_locally)
        patch.setattr(tune, "report_search", lambda *_: None)  # drawing takes seconds
        yield


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    write_tree(folder / "photos", {"cat": 14, "dog": 14})
    prepared(folder, folder)
    search(folder, folder)
    return folder


def test_killed_at_every_file(root: Path, tmp_path: Path) -> None:
    assert check_kills(VERBS["tune"], root, tmp_path, on_trial(1, 40)) > 0


@takes_minutes
def test_a_signal_at_every_file(root: Path, tmp_path: Path) -> None:
    assert check_signals(VERBS["tune"], root, tmp_path, on_trial(1, 60)) > 0


@takes_minutes
def test_a_full_disk_at_every_file(root: Path, tmp_path: Path) -> None:
    assert check_full_disk(VERBS["tune"], root, tmp_path, on_trial(1, 60)) > 0


@takes_minutes
@pytest.mark.parametrize("name", ["more trials", "its text"])
def test_damage_of_every_file(name: str, root: Path, tmp_path: Path) -> None:
    assert check_damage(VERBS[name], root, tmp_path, on_trial(200, 1)) > 1


@takes_minutes
def test_two_at_once(root: Path, tmp_path: Path) -> None:
    first, second = VERBS["tune"], VERBS["tune"]
    assert check_two(first, second, root, tmp_path, on_trial(1, 60)) > 0
