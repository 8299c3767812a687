"""A suite's budget: every method tries as many settings, judged without queries, resumable."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from scipy.sparse import csr_array
from support.kills import Killed

import schn_ray
from schn_ray.data.splits.protocols import held_out_rows
from schn_ray.data.store.reader import Store, open_store
from schn_ray.suites import cells, trials
from schn_ray.suites.cells import Cell, Cost, Ended, cell_config
from schn_ray.suites.draws import settings_to_try
from schn_ray.suites.suite import Budget, DataSet, Suite
from schn_ray.suites.table import suite_table
from schn_ray.suites.trials import SuiteTrial, Tried, choices_of, trials_of, tuned_cells
from schn_ray.tuning.method_spaces import own_parameters
from schn_ray.tuning.trial_settings import value_of

BUDGET = {"trials": 4, "held_out": 0.3, "seed": 1}  # whose draws better the published settings
SHORT: dict[str, Any] = {
    "schedule": {"iterations": 2, "epochs": 8, "batch_size": 16},
    "head": {"kind": "linear"},
}


def suite_of(methods: list[str], **budget: Any) -> Suite:
    return Suite(
        data={"x": DataSet(source="x.npy")},
        methods=tuple(methods),
        bits=(8,),
        seeds=(0, 1),
        preset="frozen",
        settings=SHORT,
        budget=Budget(**budget),
    )


def published(suite: Suite, method: str) -> Any:
    return cell_config(Cell(0, "x", method, 8, 0), suite, {})


def test_progress_has_the_tenths_of_the_table() -> None:
    cell = Cell(0, "x", "lsh", 8, 0)
    assert str(Ended(cell, Cost(0.24, 1.0))).endswith("trained, 0.2 s of CPU time")
    assert str(Ended(cell, Cost(None, 1.0))).endswith("trained")
    tried = Tried(SuiteTrial(0, "x", "lsh", 8, 0), 0.5, 12.34)
    assert str(tried).endswith("mAP 0.5000, 12 s of CPU time")


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A suite on 240 vectors of four classes, without validation rows."""
    folder = tmp_path_factory.mktemp("few")
    rng = np.random.default_rng(0)
    classes = np.arange(240) % 4
    means = rng.normal(size=(4, 12))
    np.save(folder / "x.npy", (means[classes] + rng.normal(size=(240, 12))).astype(np.float32))
    (folder / "x.labels.txt").write_text("".join(f"{c}\n" for c in classes))
    values = {
        "data": {
            "x": {
                "source": str(folder / "x.npy"),
                "prepare": {"train_share": 0.5, "query_share": 0.2, "validation_share": 0},
            }
        },
        "methods": ["csq", "lsh"],
        "preset": "frozen",
        "bits": [8],
        "seeds": [0, 1],
        "settings": SHORT,
    }
    (folder / "suite.yaml").write_text(yaml.safe_dump(values))
    return folder / "suite.yaml"


@pytest.fixture(scope="module")
def tuned(few: Path) -> Path:
    out = few.with_name("tuned")
    schn_ray.benchmark(few, out, settings={"budget": BUDGET})
    return out


def rows(out: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(out / "results.parquet").to_pylist())


def comparable(out: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if not k.endswith("_s")} for row in rows(out)]


def test_draws_begin_with_published_settings_and_stay_in_the_methods_own_space() -> None:
    suite = suite_of(["csq"], trials=12)
    config = published(suite, "csq")
    first, *drawn = settings_to_try(config, suite.budget, suite.settings)
    assert first == {}
    assert len({json.dumps(values) for values in drawn}) == 11
    space = own_parameters(config)
    assert all(space[key].holds(value) for values in drawn for key, value in values.items())
    assert all(set(values) == set(space) for values in drawn)


def test_a_larger_budget_begins_with_the_draws_of_a_smaller_one_on_any_data() -> None:
    draws = {
        (bits, trials): settings_to_try(
            published(suite_of(["dch"]), "dch").model_copy(update={"bits": bits}),
            Budget(trials=trials),
            {},
        )
        for bits, trials in ((8, 3), (8, 6), (64, 6))
    }
    assert draws[8, 6][:3] == draws[8, 3]
    assert draws[64, 6] == draws[8, 6]
    other = settings_to_try(published(suite_of(["dch"]), "dch"), Budget(trials=6, seed=1), {})
    assert other[1:] != draws[8, 6][1:]


def test_settings_that_the_suite_gives_all_methods_are_not_drawn() -> None:
    config = published(suite_of(["csq"]), "csq")
    drawn = settings_to_try(config, Budget(trials=3), {"optimiser": {"learning_rate": 1e-3}})
    assert [set(values) for values in drawn[1:]] == [{"method.quantization"}] * 2


def test_a_method_with_little_to_search_tries_what_it_has() -> None:
    config = published(suite_of(["tsdh"]), "tsdh")
    fixed = {"optimiser": {"learning_rate": 1e-3}}  # leaves three choices of one setting
    drawn = settings_to_try(config, Budget(trials=20), fixed)
    choices = own_parameters(config)["method.negative"].choices
    assert {value_of(config, "method.negative"), *(v["method.negative"] for v in drawn[1:])} == set(
        choices or ()
    )
    assert settings_to_try(published(suite_of(["lsh"]), "lsh"), Budget(trials=20), {}) == ({},)


def tried_with(scores: list[float | None]) -> Callable[[SuiteTrial], Tried]:
    def tried(trial: SuiteTrial) -> Tried:
        score = scores[trial.trial]
        return Tried(trial, score, 1.0, "" if score is not None else "the loss is not finite")

    return tried


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([0.5, 0.7, 0.6], 1),
        ([0.7, 0.7, 0.6], 0),  # of equal ones, the published settings
        ([0.5, None, 0.6], 2),
        ([None, 0.2, None], 1),
        ([None, None, None], 0),
    ],
)
def test_the_best_by_validation_is_trained_with_every_seed(
    scores: list[float | None], best: int
) -> None:
    suite = suite_of(["csq", "lsh"], trials=3)
    ended = [Ended(cell, Cost(1.0, 1.0)) for cell in cells.cells_of(suite)]
    planned = trials_of(suite, ended)
    assert [(one.method, one.trial) for one in planned] == [("csq", 0), ("csq", 1), ("csq", 2)]
    tried = [tried_with(scores)(trial) for trial in planned]
    csq, lsh = choices_of(suite, ended, reversed(tried))  # in any order
    assert (csq.trial, csq.failed) == (best, scores.count(None))
    failures = [(f"x, csq, 8 bits, trial {i}", "the loss is not finite") for i in range(3)]
    expected_failures = [failures[i] for i, score in enumerate(scores) if score is None]
    assert list(csq.failures) == expected_failures
    assert list(suite_table("", [], [csq]).refused) == expected_failures  # the table names them
    assert csq.settings == settings_to_try(published(suite, "csq"), suite.budget, SHORT)[best]
    assert (lsh.trial, lsh.trials, lsh.train_s) == (0, 1, None)
    expected = [("csq", seed, best) for seed in (0, 1)] if best else []
    trained = [(c.method, c.seed, c.trial) for c in tuned_cells(suite, [csq, lsh])]
    assert trained == expected


def test_nothing_is_chosen_before_all_trials_of_a_method_have_ended() -> None:
    suite = suite_of(["csq"], trials=3)
    ended = [Ended(cell, Cost(1.0, 1.0)) for cell in cells.cells_of(suite)]
    tried = [tried_with([0.1, 0.2, 0.3])(trial) for trial in trials_of(suite, ended)]
    assert choices_of(suite, ended, tried[:2]) == []


def test_a_method_that_cannot_be_trained_is_not_tried() -> None:
    suite = suite_of(["csq"], trials=3)
    ended = [Ended(cell, None, "labels") for cell in cells.cells_of(suite)]
    assert trials_of(suite, ended) == []
    assert choices_of(suite, ended, []) == []


def test_published_settings_alone_are_no_budget() -> None:
    suite = suite_of(["csq"])
    ended = [Ended(cell, Cost(1.0, 1.0)) for cell in cells.cells_of(suite)]
    assert trials_of(suite, ended) == []
    assert choices_of(suite, ended, []) == []


def test_held_out_rows_are_of_every_class_and_of_labelled_rows_only() -> None:
    one_each = csr_array(np.eye(3, dtype=np.uint8)[np.arange(60) % 3])
    chosen = held_out_rows(one_each, 0.2, 0)
    assert one_each[chosen].sum(axis=0).tolist() == [4, 4, 4]
    assert (held_out_rows(one_each, 0.2, 0) == chosen).all()
    assert (held_out_rows(one_each, 0.2, 1) != chosen).any()
    several = one_each.toarray()
    several[:, 0] = 1
    several[:20] = 0
    chosen = held_out_rows(csr_array(several), 0.2, 0)
    assert (chosen.sum(), chosen[:20].sum()) == (8, 0)


def test_a_store_with_held_out_rows_is_another_one_with_the_same_training_rows(
    tuned: Path,
) -> None:
    store = open_store(tuned / "data/x/store")
    other = store.with_held_out(0.1, 0)
    assert len(other.rows("validation")) == 12
    both = np.concatenate([other.rows("train"), other.rows("validation")])
    assert (np.sort(both) == store.rows("train")).all()
    assert (other.rows("query") == store.rows("query")).all()
    assert other.manifest.fingerprint != store.manifest.fingerprint
    assert not len(store.rows("validation"))
    sent: Store = pickle.loads(pickle.dumps(other))
    assert (sent.rows("validation") == other.rows("validation")).all()
    assert sent.manifest.fingerprint == other.manifest.fingerprint


def test_the_table_has_both_figures_of_each_method_and_its_settings(few: Path, tuned: Path) -> None:
    result = schn_ray.benchmark(few, tuned, settings={"budget": BUDGET})
    plain, best = result.table.blocks
    assert (plain.title, best.title) == ("x, 8 bits", "x, 8 bits, best of 4 settings")
    for line in best.lines:
        assert line.tuned is not None
        (own,) = (one for one in plain.lines if one.method == line.method)
        assert line.tuned.published == own.map
        if line.tuned.gain is None:
            assert line.map == own.map
        else:
            assert line.tuned.gain.mean == pytest.approx(line.map.mean - own.map.mean)
    of_method = {line.method: line.tuned for line in best.lines}
    assert of_method["lsh"].choice.trials == 1  # type: ignore[union-attr]
    won = next(one for one in of_method.values() if one and one.gain)
    text, page = result.text(), (tuned / "index.html").read_text()
    assert "nothing to search" in text
    assert "nothing to search" in page
    for key, value in won.choice.settings.items():
        assert f"{key.rpartition('.')[2]}={value:g}" in text
        assert f"{key.rpartition('.')[2]}={value:g}" in page
    row = next(r for r in rows(tuned) if r["method"] == won.choice.method and r["best_of"] == 4)
    assert json.loads(row["settings"]) == won.choice.settings
    assert row["gain"] == won.gain.mean  # type: ignore[union-attr]
    assert (tuned / row["run"]).is_dir()
    assert not list(tuned.glob("trials/**/model*"))  # only records are left


def watched(patch: pytest.MonkeyPatch, after: Callable[[str], None]) -> None:
    """Call a function with the name of each run that has been trained."""
    for module in (cells, trials):
        really = module.train_locally

        def train(config: Any, store: Any, run: str, really: Any = really, **given: Any) -> Any:
            manifest = really(config, store, run, **given)
            after("/".join(Path(run).parts[-2:]))
            return manifest

        patch.setattr(module, "train_locally", train)


@pytest.mark.slow
def test_a_budget_that_grows_trains_only_what_is_new(
    few: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []
    watched(monkeypatch, trained.append)
    out = few.with_name("grown")
    schn_ray.benchmark(few, out)
    assert sorted(trained) == ["x/csq-8-0", "x/csq-8-1", "x/lsh-8-0", "x/lsh-8-1"]
    trained.clear()
    schn_ray.benchmark(few, out, settings={"budget": BUDGET | {"trials": 2}})
    assert trained[:2] == ["csq-8/0000", "csq-8/0001"]
    trained.clear()
    schn_ray.benchmark(few, out, settings={"budget": BUDGET})
    assert trained[:2] == ["csq-8/0002", "csq-8/0003"]
    assert all("-trial-" in name for name in trained[2:])
    assert comparable(out) == comparable(tuned)
    trained.clear()
    schn_ray.benchmark(few, out, settings={"budget": BUDGET})
    assert trained == []


@pytest.mark.slow
def test_killed_it_goes_on_to_the_same_table(
    few: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    won = next(row["run"] for row in rows(tuned) if row["trial"])
    for moment in ("csq-8/0002", won.removeprefix("cells/")):

        def dies(run: str, moment: str = moment) -> None:
            if run == moment:
                raise Killed

        with monkeypatch.context() as patch:
            watched(patch, dies)
            with pytest.raises(Killed):
                schn_ray.benchmark(few, tmp_path / "out", settings={"budget": BUDGET})
        assert {row["best_of"] for row in rows(tmp_path / "out")} >= {1}  # a table so far
    schn_ray.benchmark(few, tmp_path / "out", settings={"budget": BUDGET})
    assert comparable(tmp_path / "out") == comparable(tuned)


def test_trials_never_see_a_query(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, trial = shutil.copytree(tuned, tmp_path / "out"), SuiteTrial(0, "x", "csq", 8, 1)
    suite = suite_of(["csq"], **BUDGET)
    known = trials.try_settings(trial, suite, str(out))
    (out / f"{trial.name}.json").unlink()
    really = trials.train_locally

    def train(config: Any, store: Store, run: str, **given: Any) -> Any:
        store.split = {role: store.rows(role) for role in ("train", "validation")}
        return really(config, store, run, **given)

    monkeypatch.setattr(trials, "train_locally", train)
    again = trials.try_settings(trial, suite, str(out))
    assert again.validation_map is not None
    assert again.validation_map == known.validation_map


def test_trials_of_other_settings_are_refused_by_name_and_damaged_ones_done_again(
    tuned: Path, tmp_path: Path
) -> None:
    out, trial = shutil.copytree(tuned, tmp_path / "out"), SuiteTrial(0, "x", "csq", 8, 1)
    suite = suite_of(["csq"], **BUDGET)
    known = trials.try_settings(trial, suite, str(out))
    settings = SHORT | {"schedule": SHORT["schedule"] | {"iterations": 3}}
    longer = suite.model_copy(update={"settings": settings})
    assert "schedule.iterations: 2 there, 3 now" in (
        trials.try_settings(trial, longer, str(out)).reason
    )
    record = out / f"{trial.name}.json"
    record.write_text(record.read_text().replace('"validation_map": 0.', '"validation_map": 0.9'))
    assert trials.try_settings(trial, suite, str(out)).validation_map == known.validation_map
