"""A search in ``optuna-dashboard``: a copy opens, with notes and artifacts."""

import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts import FileSystemArtifactStore, get_all_artifact_meta

from schn_ray.core.settings import validated
from schn_ray.report.dashboard import write_dashboard
from schn_ray.tuning.rows import Outcome
from schn_ray.tuning.space import Space, base_config
from schn_ray.tuning.study import Search

optuna_dashboard = pytest.importorskip("optuna_dashboard")
HOSTILE = "```\n<script>alert(1)</script>" + "x" * 5000  # longer than an attribute
SPACE: dict[str, Any] = {
    "preset": "digits",
    "parameters": {
        "method.quantization": {"log": [0.1, 100]},
        "bits": {"integer": [16, 64], "step": 16},
    },
    "constraints": {"bits": "<= 32"},
    "sampler": "random",
}


def searched(path: Path, **changed: Any) -> Search:
    space = validated(Space, SPACE | changed)
    search = Search(path, space, base_config(space, None, None, ()))
    for number in range(6):
        proposal = search.propose()
        assert proposal
        for iteration in (1, 2):
            search.report_score(proposal.number, iteration, 0.1 * iteration)
        figures = {"validation_map": 0.2 + 0.1 * number, "bits": float(proposal.values["bits"])}
        outcome = Outcome("complete", figures, "", 2)
        search.finish(proposal.number, Outcome("failed", {}, HOSTILE) if number == 2 else outcome)
    (path / "report.html").write_text("<p>the page</p>")
    write_dashboard(path, search, None, path / "report.html")
    return search


def opened(path: Path) -> optuna.Study:
    from optuna_dashboard._storage_url import get_storage

    storage = get_storage(str(path / "dashboard" / "study.jsonl"))  # as its command does
    return optuna.load_study(study_name=None, storage=storage)


@pytest.mark.parametrize("objectives", [["validation_map"], ["validation_map", "bits"]])
def test_it_has_the_trials_their_notes_and_the_artifacts(
    tmp_path: Path, objectives: list[str]
) -> None:
    search = searched(tmp_path, objectives=objectives)
    study = opened(tmp_path)
    own = search.study.get_trials()
    assert [t.params for t in study.trials] == [t.params for t in own]
    assert [t.state for t in study.trials] == [t.state for t in own]
    assert [t.constraints for t in study.trials] == [t.constraints for t in own]
    assert {t.number for t in study.best_trials} == {t.number for t in search.study.best_trials}

    assert "A copy of the search" in optuna_dashboard.get_note(study)
    rows = {row.number: row for row in search.rows()}
    assert {row.state for row in rows.values()} == {"complete", "failed", "infeasible"}
    folder = tmp_path / "dashboard" / "artifacts"
    store = FileSystemArtifactStore(folder)
    for trial in study.trials:
        note = optuna_dashboard.get_note(optuna.trial.Trial(study, trial._trial_id))
        row = rows[trial.number]
        assert f"**{row.state}**" in note
        assert all(f"| {key} | {json.dumps(value)} |" in note for key, value in row.values.items())
        assert row.state != "infeasible" or ", not <= 32" in note
        assert row.state != "failed" or (note.count("x" * 5000) == 1 and note.count("```") == 2)
        drawn = get_all_artifact_meta(trial, storage=study._storage)
        assert [meta.mimetype for meta in drawn] == ["image/svg+xml"] * bool(row.curve)
        for meta in drawn:
            with store.open_reader(meta.artifact_id) as file:
                assert b"2 iterations" in file.read()
    (page,) = get_all_artifact_meta(study)
    with store.open_reader(page.artifact_id) as file:
        assert (page.filename, file.read()) == ("report.html", b"<p>the page</p>")


def test_what_is_changed_in_the_dashboard_does_not_touch_the_search(tmp_path: Path) -> None:
    search = searched(tmp_path)
    optuna_dashboard.save_note(opened(tmp_path), "mine")
    assert optuna_dashboard.get_note(opened(tmp_path)) == "mine"
    again = Search(tmp_path, search.space, search.base)  # each line of it is compared
    assert again.rows() == search.rows()
    files = {path.name for path in (tmp_path / "dashboard" / "artifacts").iterdir()}
    write_dashboard(tmp_path, again, None, tmp_path / "report.html")
    assert {path.name for path in (tmp_path / "dashboard" / "artifacts").iterdir()} == files
    assert optuna_dashboard.get_note(opened(tmp_path)) != "mine"
