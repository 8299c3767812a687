"""The results of a search: the confirmed winner, settings to train with, a table, a page."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from scipy import stats
from support.pages import Page

from schn_ray.core.settings import validated
from schn_ray.report.tuning import REPORT, report_search, study_panels
from schn_ray.training.config import config_from, train_config
from schn_ray.tuning import confirm
from schn_ray.tuning.confirm import Confirmation, RunnerUp
from schn_ray.tuning.results import (
    best_rows,
    importances,
    iterations_saved,
    seconds_outside_training,
    study_counts,
    study_verdict,
    write_results,
)
from schn_ray.tuning.rows import Outcome, TrialRow, ranked
from schn_ray.tuning.space import Space, base_config, settings_of_methods
from schn_ray.tuning.study import Search

HOSTILE = "<script>alert(1)</script>"
SPACE: dict[str, Any] = {
    "preset": "digits",
    "parameters": {
        "method.quantization": {"log": [0.1, 100]},
        "method.update_codes": {"choices": [True, False]},
        "method.alpha": {"linear": [0, 4], "when": {"method.update_codes": True}},
        "bits": {"integer": [16, 64], "step": 16},
    },
    "sampler": "random",
    "pruning": {"grace": 1, "factor": 3},
}


def searched(path: Path, trials: int = 8, **changed: Any) -> Search:
    """Search with figures that only the quantization's weight decides; one trial fails."""
    path.mkdir(exist_ok=True)
    space = validated(Space, SPACE | changed)
    search = Search(path, space, base_config(space, None, None, ()))
    session = search.record_session(None, 0, 2)
    for _ in range(trials):
        proposal = search.propose()
        assert proposal
        score = 0.9 - 0.1 * abs(math.log10(proposal.values["method.quantization"]))
        outcome = Outcome("complete", {"validation_map": score}, "", 8, 10.0)
        outcome.figures["bits"] = float(proposal.values["bits"])
        if proposal.number == 3:
            outcome = Outcome("failed", {}, HOSTILE, 2, 3.0)
        elif proposal.number > 0 and search.report_score(proposal.number, 1, score):
            outcome = Outcome("pruned", {}, "", 1, 1.0)
        search.finish(proposal.number, outcome)
    search.record_session(session, 60.0, 2)
    return search


def row(number: int, score: float) -> TrialRow:
    return TrialRow(
        "complete", {"validation_map": score}, number=number, values={"bits": 16 + number}
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_gain_is_that_of_a_paired_t_test(seed: int) -> None:
    a, b = np.random.default_rng(seed).normal(0.5, 0.05, (2, 4 + seed))
    gain = confirm.gain(a.tolist(), b.tolist())
    assert gain
    expected = stats.ttest_rel(b, a).confidence_interval(0.95)
    assert (gain.low, gain.high) == pytest.approx((expected.low, expected.high))
    assert gain.is_significant == (expected.low > 0)


def test_a_gain_of_one_pair_has_no_interval() -> None:
    assert confirm.gain([0.5], [0.6]) is None


def test_candidates_are_close_and_few() -> None:
    rows = [row(0, 0.5), row(1, 0.695), row(2, 0.7), row(3, 0.691), row(4, 0.692), row(5, 0.6)]
    assert [r.number for r in confirm.candidates(rows, close(0.01))] == [2, 1, 4]
    assert [r.number for r in confirm.candidates(rows, close(0.001))] == [2]


def close(bound: float) -> Space:
    return validated(Space, SPACE | {"close": bound})


def test_seeds_are_fresh_and_directories_differ() -> None:
    base = settings_of_methods([None], "digits", None, ("seed=7",))
    deciding, judging = confirm.deciding_seeds(base, 3), confirm.judging_seeds(base, 3)
    assert not {base.seed} & {*deciding, *judging}
    assert not {*deciding} & {*judging}
    jobs = confirm.jobs("s", base, [row(0, 0.5), row(4, 0.6)], judging)
    assert len({job.directory.run for job in jobs}) == 6
    assert [(job.config.seed, job.config.bits) for job in jobs[:2]] == [(11, 16), (11, 20)]


def test_the_verdict_says_what_is_known(tmp_path: Path) -> None:
    search = searched(tmp_path)
    gain, loss = (
        confirm.gain([0.5, 0.51, 0.5], [0.6, 0.6, 0.61]),
        confirm.gain([0.5, 0.6], [0.6, 0.5]),
    )
    assert "not confirmed" in study_verdict(search, None)[0]
    assert "found nothing better" in study_verdict(search, Confirmation(0, {}))[0]
    lines = study_verdict(search, Confirmation(2, {}, gain, loss))
    assert lines[-2:] == [
        "on validation the winner is better",
        "on test queries the winner is not better beyond chance",
    ]


def test_the_file_of_settings_trains_as_the_winner_did(tmp_path: Path) -> None:
    search = searched(tmp_path / "s")
    write_results(tmp_path / "s", search, None)
    (best,) = best_rows(search, None)
    scores = [r.figures["validation_map"] for r in search.rows() if r.state == "complete"]
    assert best.figures["validation_map"] == max(scores)
    config = train_config(None, tmp_path / "s" / "best.yaml")
    values = config.model_dump()
    assert values["method"]["quantization"] == best.values["method.quantization"]
    untouched = values | {"bits": 32}
    published = {"quantization": 10.0, "alpha": 2.0, "update_codes": True}
    untouched["method"] = values["method"] | published
    assert config_from(untouched) == search.base.first


def test_a_confirmed_winner_that_was_not_first_is_written(tmp_path: Path) -> None:
    search = searched(tmp_path)
    write_results(tmp_path, search, Confirmation(0, {0: 0.8, 2: 0.7}))
    values = yaml.safe_load((tmp_path / "best.yaml").read_text())
    assert values["method"]["quantization"] == 10.0
    assert json.loads((tmp_path / "confirmed.json").read_text())["winner"] == 0


def test_the_table_and_the_counts(tmp_path: Path) -> None:
    search = searched(tmp_path)
    write_results(tmp_path, search, None)
    lines = list(csv.DictReader((tmp_path / "trials.csv").open()))
    assert [line["trial"] for line in lines] == [str(n) for n in range(8)]
    assert lines[3]["reason"] == HOSTILE
    assert all(
        (line["method.alpha"] == "") == (line["method.update_codes"] == "false") for line in lines
    )
    states = [line["state"] for line in lines]
    counts = study_counts(search, None, 0)
    assert counts["pruned"] == states.count("pruned") > 0
    assert counts["complete"] == states.count("complete")
    assert iterations_saved(search) == 7 * states.count("pruned")  # one of eight was run
    trained = 10 * states.count("complete") + states.count("pruned") + 3
    assert seconds_outside_training(search) == pytest.approx((120 - trained) / 8)


def test_the_typed_table_is_that_of_the_csv_with_curves(tmp_path: Path) -> None:
    search = searched(tmp_path)
    write_results(tmp_path, search, None)
    table = pq.read_table(tmp_path / "trials.parquet")
    types = {name: str(table.schema.field(name).type) for name in SPACE["parameters"]}
    assert list(types.values()) == ["double", "bool", "double", "int64"]
    lines = csv.DictReader((tmp_path / "trials.csv").open())
    for row, typed, line in zip(search.rows(), table.to_pylist(), lines, strict=True):
        assert {at["iteration"]: at["validation_map"] for at in typed["curve"]} == row.curve
        assert (typed["started"], typed["ended"]) == (row.started, row.ended)
        for name, text in line.items():
            value = typed[name]
            written = "" if value is None else json.dumps(value) if name in types else str(value)
            assert written == text


def test_importance_finds_what_decides(tmp_path: Path) -> None:
    search = searched(tmp_path, 25, pruning=None)
    shares = importances(search)
    assert next(iter(shares)) == "method.quantization"
    assert shares["method.quantization"] > 0.5
    assert set(shares) == set(SPACE["parameters"])  # with alpha, which only some trials have
    assert sum(shares.values()) == pytest.approx(1)


def test_importance_needs_trials_that_differ(tmp_path: Path) -> None:
    assert importances(searched(tmp_path / "few", 3, pruning=None)) == {}
    space = validated(Space, SPACE | {"pruning": None})
    (tmp_path / "same").mkdir()
    same = Search(tmp_path / "same", space, base_config(space, None, None, ()))
    for _ in range(8):
        proposal = same.propose()
        assert proposal
        same.finish(proposal.number, Outcome("complete", {"validation_map": 0.5}))
    assert importances(same) == {}


def test_the_page_shows_all_and_believes_nothing(tmp_path: Path) -> None:
    search = searched(tmp_path, 25)
    gain = confirm.gain([0.5, 0.51], [0.6, 0.62])
    winner = ranked(search.rows())[0].number
    confirmed = Confirmation(winner, {}, gain, None, RunnerUp(4, "csq", gain))
    report_search(tmp_path, "digits", search, confirmed)
    page = Page(tmp_path / REPORT)
    assert not any(tag == "script" for tag, _ in page.elements)
    assert HOSTILE in page.text
    for title in ("History", "What mattered", "What the winner changes", "+0.1050", "from csq"):
        assert title in page.open_text
    folded = ("Parallel coordinates", "Trials at each rung", "method.quantization and bits")
    for title in folded:
        assert title in page.text
    assert "Trials at each rung" not in page.open_text
    links = [a["href"].removeprefix("#") for tag, a in page.elements if tag == "a"]
    assert sorted(links) == sorted(a["id"] for _, a in page.elements if "id" in a)
    assert "http" not in page.html.replace("http-equiv", "").replace("http://www.w3.org", "")
    report_search(tmp_path, "digits", search, confirmed)
    assert (tmp_path / REPORT).read_text() == page.html


def test_several_objectives_have_a_front_and_a_file_each(tmp_path: Path) -> None:
    search = searched(tmp_path, 12, objectives=["validation_map", "bits"], pruning=None)
    write_results(tmp_path, search, None)
    numbers = [r.number for r in best_rows(search, None)]
    assert len(numbers) > 1
    assert len(list((tmp_path / "pareto").iterdir())) == len(numbers)
    assert not (tmp_path / "best.yaml").exists()
    titles = [panel.title for panel in study_panels(search, search.rows())]
    assert titles[:2] == ["Front: validation mAP and bits of a code", "Hypervolume"]
    report_search(tmp_path, "digits", search, None)
    assert f"{len(numbers)} trials are on the Pareto front" in Page(tmp_path / REPORT).open_text


def test_a_search_in_which_all_failed_has_a_page_too(tmp_path: Path) -> None:
    space = validated(Space, SPACE)
    search = Search(tmp_path, space, base_config(space, None, None, ()))
    proposal = search.propose()
    assert proposal
    search.finish(proposal.number, Outcome("failed", {}, "no memory"))
    write_results(tmp_path, search, None)
    report_search(tmp_path, "digits", search, None)
    assert "no memory" in (tmp_path / REPORT).read_text()
    assert not (tmp_path / "best.yaml").exists()
