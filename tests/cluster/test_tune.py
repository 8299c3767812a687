"""The verb tune as a user types it, on Ray Tune, with tiny trials.

Each start of Ray Tune imports torch for seconds; what tests without Ray say too, of failures and of
several objectives, is tried here with SCHN_RAY_TRIALS=1.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from support.image_files import write_tree
from support.processes import started, wait_for
from support.trials import takes_minutes
from support.users import TINY, Run

import schn_ray
from schn_ray.cluster.session import WorkerRequest
from schn_ray.cluster.train import train_on_ray
from schn_ray.cluster.tune import SearchBudget, trials_at_once, tune_on_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.core.settings import validated
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.training.config import train_config
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.run import train_locally
from schn_ray.tuning.rows import TrialRow
from schn_ray.tuning.space import Space, base_config
from schn_ray.tuning.study import Search

pytestmark = pytest.mark.usefixtures("cluster")

FIXED = dict(setting.split("=") for setting in TINY)
SPACE: dict[str, Any] = {
    "preset": "digits",
    "fixed": {key: int(value) for key, value in FIXED.items()}
    | {"schedule.iterations": 3, "schedule.epochs": 1, "schedule.batch_size": 8},
    "parameters": {
        "optimiser.learning_rate": {"log": [1e-4, 1e-2]},
        "method.initial_codes": {"choices": ["zeros", "random"]},
    },
    "start": [{"method.initial_codes": "zeros"}],
    "pruning": {"grace": 1, "factor": 2},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tune")
    tree = write_tree(folder / "photos", {"cat": 16, "dog": 16, "owl": 16})
    some_validated = PrepareConfig(validation_share=0.3)
    prepare_store(open_source(str(tree), SourceConfig()), some_validated, folder / "store")
    return folder / "store"


@pytest.fixture(scope="module")
def space_file(store: Path) -> Path:
    file = store.parent / "space.yaml"
    file.write_text(yaml.safe_dump(SPACE))
    return file


def rows_of(out: Path, values: dict[str, Any]) -> list[TrialRow]:
    space = validated(Space, values)
    return Search(out, space, base_config(space, None, None, ())).rows()


def test_a_search_of_two_trials(
    schn_ray: Run, store: Path, space_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "search"
    command = ["tune", store, "--space", space_file, "--out", out, "--at-once", 1, "--trials", 2]
    answer = schn_ray(*command)
    assert answer.code == 0, answer.err
    rows = rows_of(out, SPACE)
    assert [row.number for row in rows] == [0, 1]
    assert rows[0].values == {"optimiser.learning_rate": 1e-3, "method.initial_codes": "zeros"}
    best = read_manifest(out, "search").counts["best_validation_map"]
    assert best == max(row.figures["validation_map"] for row in rows if row.state == "complete")
    assert train_config(None, out / "best.yaml").bits == 12
    assert "is finished already" in schn_ray(*command).err


@pytest.mark.slow
def test_a_search_then_more_of_it_then_its_settings_retrained(
    schn_ray: Run, store: Path, space_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "search"
    # one at once: a second process would import torch for seconds, to train for tenths
    command = ["tune", store, "--space", space_file, "--out", out, "--at-once", 1]
    answer = schn_ray(*command, "--trials", 3)
    assert answer.code == 0, answer.err
    before = rows_of(out, SPACE)
    assert [row.number for row in before] == [0, 1, 2]
    assert before[0].values == {"optimiser.learning_rate": 1e-3, "method.initial_codes": "zeros"}
    assert "is finished already" in schn_ray(*command, "--trials", 2).err

    answer = schn_ray(*command, "--trials", 5, "--repeats", 2, "--json")
    assert answer.code == 0, answer.err
    rows = rows_of(out, SPACE)
    assert rows[:3] == before
    assert len(rows) == 5
    counts = json.loads(answer.out)["counts"]
    assert counts["trials"] == counts["complete"] + counts["pruned"] == 5
    for row in rows:
        run = out / "trials" / f"{row.number:04}"
        assert (row.state == "complete") == (run / "manifest.json").is_file()
        assert len(read_metrics(run)) == row.iterations
    assert "<h3>All trials</h3>" in (out / "report.html").read_text()
    assert len((out / "trials.csv").read_text().splitlines()) == 6
    assert json.loads((out / "confirmed.json").read_text())["winner"] == counts["best_trial"]

    best = train_config(None, out / "best.yaml")
    train_locally(best, store, tmp_path / "again")
    measured = read_manifest(tmp_path / "again", "run").counts["best_validation_map"]
    winner = rows[counts["best_trial"]]
    assert measured == pytest.approx(winner.figures["validation_map"], abs=1e-6)
    other = schn_ray(*command, "--trials", 5, "--set", "method.beta=1")
    assert other.code == 2
    assert "config.base.method.beta: 0.1 there, 1.0 now" in other.err


@takes_minutes
def test_a_failed_trial_has_its_reason_and_the_search_goes_on(store: Path, tmp_path: Path) -> None:
    values = SPACE | {
        "parameters": {"method.hash_latent": {"choices": [1.0, 1e38]}},
        "start": [{"method.hash_latent": 1e38}, {}],
        "fixed": SPACE["fixed"] | {"optimiser.learning_rate": 1e30, "schedule.iterations": 1},
        "pruning": None,
    }
    # with this learning rate the first trial is not finite from its first step on
    space = validated(Space, values)
    tune_on_ray(
        space, base_config(space, None, None, ()), store, tmp_path / "s", SearchBudget(2, at_once=1)
    )
    first, second = rows_of(tmp_path / "s", values)
    assert first.state == "failed"
    assert "is not finite" in first.reason
    assert second.number == 1
    assert "is not finite" in (tmp_path / "s" / "trials.csv").read_text()


@takes_minutes
def test_two_objectives_leave_a_front_of_settings(store: Path, tmp_path: Path) -> None:
    values = SPACE | {
        "parameters": {
            "bits": {"choices": [8, 12]},
            "backbone.base_channels": {"integer": [4, 6], "step": 2},
        },
        "start": [{}],
        "fixed": SPACE["fixed"] | {"schedule.iterations": 1},
        "objectives": ["validation_map", "encoding_cost"],
        "pruning": None,
    }
    for key in values["parameters"]:
        values["fixed"].pop(key)
    values["start"] = [{"bits": 8, "backbone.base_channels": 4}]
    space = validated(Space, values)
    out = tmp_path / "s"
    tune_on_ray(space, base_config(space, None, None, ()), store, out, SearchBudget(9, at_once=1))
    rows = rows_of(out, values)
    assert len(rows) == 4  # of nine asked for: there are no others
    cost = {row.values["backbone.base_channels"]: row.figures["encoding_cost"] for row in rows}
    assert 0 < cost[4] < cost[6]
    on_front = read_manifest(out, "search").counts["pareto_front"]
    files = sorted((out / "pareto").iterdir())
    assert [file.stem for file in files] == [f"trial-{number:04}" for number in on_front]
    for file, number in zip(files, on_front, strict=True):
        assert train_config(None, file).bits == rows[number].values["bits"]


@takes_minutes
def test_trials_of_two_workers_go_on_after_a_kill(store: Path, tmp_path: Path) -> None:
    values = SPACE | {
        "start": [{"method.initial_codes": "zeros"}, {"optimiser.learning_rate": 1e-4}]
    }
    space_file, out = tmp_path / "space.yaml", tmp_path / "search"
    space_file.write_text(yaml.safe_dump(values))
    shape = ["--trials", 4, "--at-once", 1, "--workers-per-trial", 2]
    command = ["tune", store, "--space", space_file, "--out", out, *shape]
    second = out / "trials" / "0001"
    with started(*command) as process:
        wait_for(lambda: bool(read_metrics(second)), 400)
        process.kill()
    before, heard = rows_of(out, values), read_metrics(second)
    assert [row.state for row in before] == ["complete", "running"]
    with started(*command) as process:
        assert process.stderr
        said = process.stderr.read()
        assert process.wait(600) == 0, said
    rows = rows_of(out, values)
    assert rows[0] == before[0]
    assert read_metrics(second)[: len(heard)] == heard
    assert [row.number for row in rows] == [0, 1, 2, 3]
    stopped = [row for row in rows if row.state == "pruned"]
    assert stopped
    assert all(row.iterations < 3 for row in stopped)
    assert all(row.state == "complete" for row in rows if row not in stopped)

    best = train_config(None, out / "best.yaml")
    train_on_ray(best, store, tmp_path / "again", WorkerRequest(2, 2))
    again = read_manifest(tmp_path / "again", "run").counts["best_validation_map"]
    assert again == read_manifest(out, "search").counts["best_validation_map"]


def test_more_than_the_cluster_has_is_refused_at_once(
    schn_ray: Run, store: Path, space_file: Path, tmp_path: Path
) -> None:
    cpus = int(ray.cluster_resources()["CPU"])
    command = ["tune", store, "--space", space_file, "--out", tmp_path / "s", "--trials", 3]
    answer = schn_ray(*command, "--at-once", cpus + 1)
    assert answer.code == 2
    assert f"want {cpus + 1} CPUs, the cluster has {cpus}" in answer.err
    answer = schn_ray(*command, "--at-once", cpus, "--workers-per-trial", 2)
    assert f"want {2 * cpus} CPUs, the cluster has {cpus}" in answer.err
    with pytest.raises(SchnRayError, match="1 trials at once of 1 workers with 99 CPUs"):
        trials_at_once(SearchBudget(3, cpus=99))
    assert trials_at_once(SearchBudget(3)) == cpus
    assert WorkerRequest(cpus, cpus).resources()["CPU"] == 1
    assert not (tmp_path / "s" / "trials").exists()


def test_a_store_without_validation_rows_is_refused(
    schn_ray: Run, store: Path, space_file: Path, tmp_path: Path
) -> None:
    photos, bare = store.parent / "photos", tmp_path / "bare"
    prepare_store(open_source(str(photos), SourceConfig()), PrepareConfig(validation_share=0), bare)
    assert not len(open_store(bare).rows("validation"))
    answer = schn_ray("tune", bare, "--space", space_file, "--trials", 3, "--out", tmp_path / "s")
    assert answer.code == 2
    assert "the store has no validation rows" in answer.err
    few = tmp_path / "few"
    prepare_store(
        open_source(str(photos), SourceConfig()), PrepareConfig(validation_share=0.1), few
    )
    answer = schn_ray("tune", few, "--space", space_file, "--trials", 3, "--out", tmp_path / "s")
    assert answer.code == 2
    assert "no two of its 3 validation rows share a label" in answer.err
    assert not (tmp_path / "s").exists()


def test_a_method_is_searched_on_features_that_trials_share(cluster: None, tmp_path: Path) -> None:
    photos = write_tree(tmp_path / "photos", {"cat": 20, "dog": 20, "owl": 20})
    store = schn_ray.prepare(photos, tmp_path / "store", settings={"validation_share": 0.4})
    small = {"backbone.name": "small", "backbone.weights": "none", "backbone.frozen": True}
    short = {"schedule.iterations": 2, "schedule.epochs": 1, "schedule.batch_size": 8}
    study = schn_ray.tune(
        store, "method", 3, tmp_path / "search", method="csq", settings=small | short, at_once=1
    )
    assert study.counts["trials"] == 3
    best = train_config(None, tmp_path / "search" / "best.yaml")
    assert (best.method.name, best.backbone.frozen) == ("csq", True)
    assert not (tmp_path / "search" / "features").exists()
