"""A search that begins with what an earlier one knows: what fits, and what it changes."""

import math
import shutil
import statistics
from pathlib import Path
from typing import Any

import pytest

from schn_ray.core.directories import resumable_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import validated
from schn_ray.tuning.results import importances, study_counts, write_results
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.space import Space, base_config
from schn_ray.tuning.study import Search
from schn_ray.tuning.study_file import STUDY
from schn_ray.tuning.trial_settings import TrialSettings
from schn_ray.tuning.warm_start import Earlier, read_earlier

SPACE: dict[str, Any] = {
    "preset": "digits",
    "fixed": {"schedule.iterations": 9, "schedule.decay_after": [5]},
    "parameters": {
        "method.quantization": {"log": [0.1, 100]},
        "method.update_codes": {"choices": [True, False]},
        "method.alpha": {"linear": [0, 4], "when": {"method.update_codes": True}},
    },
}
STORE = {"store": "a" * 64}
BEST = 3.0  # the weight that is best in both searches


def settings(**changed: Any) -> tuple[Space, TrialSettings]:
    space = validated(Space, SPACE | changed)
    return space, base_config(space, None, None, ())


def score(values: dict[str, Any]) -> float:
    return 0.9 - 0.1 * abs(math.log10(values["method.quantization"] / BEST))


def run(search: Search, trials: int) -> None:
    while search.count_started() < trials:
        proposal = search.propose()
        assert proposal
        figures = {"validation_map": score(proposal.values), "bits": 32.0}
        if search.report_score(proposal.number, 1, figures["validation_map"]):
            search.finish(proposal.number, Outcome("pruned", iterations=1))
        else:
            search.finish(proposal.number, Outcome("complete", figures, "", 9))


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("earlier") / "search"
    space, base = settings(pruning={"grace": 1, "factor": 2})
    request = {"space": space.model_dump(mode="json"), **base.to_json(), "seed": 0}
    with resumable_directory(out, "search", request, STORE, update=True) as draft:
        draft.begin()
        search = Search(out, space, base)
        run(search, 16)
        write_results(out, search, None)
        draft.counts |= study_counts(search, None, 0)
    return out


def known(earlier: Path, **changed: Any) -> Earlier:
    space, base = settings(**changed)
    return read_earlier(earlier, space, base, STORE)


def begun(path: Path, earlier: Path | None, seed: int = 0, **changed: Any) -> Search:
    path.mkdir(exist_ok=True)
    space, base = settings(**changed)
    rows = read_earlier(earlier, space, base, STORE).rows if earlier else ()
    return Search(path, space, base, seed, known=rows)


def test_all_trials_of_the_same_space_are_known(earlier: Path) -> None:
    read = known(earlier)
    assert len(read.rows) == read.trials == 16
    assert {row.state for row in read.rows} == {"complete", "pruned"}
    assert not read.differences
    assert str(read) == f"16 of 16 trials of {earlier} are known"


def test_what_does_not_fit_is_left_out(earlier: Path) -> None:
    narrow = {"method.quantization": {"log": [0.1, 10]}}
    with_updates = narrow | {"method.alpha": {"linear": [0, 4]}}
    fitting = known(earlier, parameters=with_updates).rows
    assert 0 < len(fitting) < 16
    for row in fitting:  # codes are updated as here; alpha is theirs
        assert row.values["method.quantization"] <= 10
        assert row.values.keys() == with_updates.keys()
    further = SPACE["parameters"] | {"method.beta": {"linear": [0, 2]}}
    values = [row.values for row in known(earlier, parameters=further).rows]
    assert len(values) == 16
    assert all(v["method.beta"] == 0.1 for v in values)  # as it was without a search
    with pytest.raises(SchnRayError, match="none of its 16 trials fits"):
        known(earlier, parameters={"method.quantization": {"log": [200, 300]}})
    with pytest.raises(SchnRayError, match="none of its 16 trials fits"):
        known(earlier, objectives=["validation_map", "encoding_cost"])


def test_other_figures_are_said(earlier: Path) -> None:
    space, base = settings(fixed={"schedule.iterations": 6, "schedule.decay_after": [5]})
    read = read_earlier(earlier, space, base, {"store": "b" * 64})
    assert read.differences == ("another store", "schedule.iterations 9")
    assert "though with other figures: it had another store, schedule.iterations 9" in str(read)


def test_known_trials_guide_the_sampler(earlier: Path, tmp_path: Path) -> None:
    proposed: dict[Path | None, list[float]] = {earlier: [], None: []}
    for seed in range(3):
        for begins, scores in proposed.items():
            search = begun(tmp_path / f"{seed}-{begins is None}", begins, seed)
            run(search, 8)
            scores += [score(row.values) for row in search.rows()[2:]]
    warm, cold = proposed.values()  # a cold search draws its first ten at random
    assert statistics.median(warm) > statistics.median(cold)


def test_known_trials_are_no_trials(earlier: Path, tmp_path: Path) -> None:
    search = begun(tmp_path, earlier)
    assert search.rows() == []
    run(search, 3)
    rows = search.rows()
    assert rows[0].values["method.quantization"] == 10.0  # trial 0 is as without a search
    best = max((row.values for row in known(earlier).rows), key=score)
    assert rows[1].values == best  # whose figure this search does not have yet
    assert [row.number for row in rows] == [0, 1, 18]
    counts = study_counts(search, None, 0)
    assert (counts["trials"], counts["known"]) == (3, 16)


def test_importance_is_of_own_trials_only(earlier: Path, tmp_path: Path) -> None:
    search = begun(tmp_path, earlier)
    run(search, 3)
    assert importances(search) == {}  # of three trials: too few


def test_killed_and_gone_on_it_is_the_same(earlier: Path, tmp_path: Path) -> None:
    whole = begun(tmp_path / "whole", earlier)
    run(whole, 6)
    for trials in (1, 3, 6):
        search = begun(tmp_path / "parts", earlier)
        run(search, trials)
    assert [row.values for row in search.rows()] == [row.values for row in whole.rows()]
    assert search.count_known() == 16


def test_known_trials_stop_nobody_at_a_rung(earlier: Path, tmp_path: Path) -> None:
    search = begun(tmp_path, earlier, pruning={"grace": 1, "factor": 2})
    first, second = search.propose(), search.propose()
    assert first
    assert second
    assert not search.report_score(second.number, 1, 0.01)  # worse than any of the earlier search


def test_a_damaged_or_an_unfinished_search_is_refused(earlier: Path, tmp_path: Path) -> None:
    shutil.copytree(earlier, tmp_path / "damaged")
    study = tmp_path / "damaged" / STUDY
    content = bytearray(study.read_bytes())
    content[len(content) // 2] ^= 1
    study.write_bytes(content)
    with pytest.raises(SchnRayError, match=r"study\.jsonl"):
        known(tmp_path / "damaged")
    (tmp_path / "damaged" / "manifest.json").unlink()
    with pytest.raises(SchnRayError, match="there is no finished search"):
        known(tmp_path / "damaged")
