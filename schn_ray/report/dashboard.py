"""A copy of a search's study that ``optuna-dashboard`` opens, with notes and artifacts.

    optuna-dashboard SEARCH/dashboard/study.jsonl --artifact-dir SEARCH/dashboard/artifacts

The study itself is not for the dashboard: a note that is written there, or a trial that is added,
is a line without a digest, and the search would call its study damaged (``tuning/journal.py``). The
copy has the same trials under the same numbers, and is written anew with the results. The
attributes of notes are those that optuna-dashboard 0.21 reads.
"""

from __future__ import annotations

import io
import json
import shutil
import uuid
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.artifacts import ArtifactMeta, FileSystemArtifactStore
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from schn_ray.core.atomic_files import writing
from schn_ray.tuning.confirm import Confirmation
from schn_ray.tuning.objectives import OBJECTIVES
from schn_ray.tuning.results import best_rows, study_verdict
from schn_ray.tuning.rows import TrialRow
from schn_ray.tuning.study import Search
from schn_ray.tuning.study_file import STUDY, without_experimental_warnings
from schn_ray.tuning.study_rows import is_own

DASHBOARD, ARTIFACTS = "dashboard", "artifacts"
_NOTE_PART = 2045  # characters in an attribute
_WIDTH, _HEIGHT, _EDGE = 480, 240, 40


def write_dashboard(
    out: Path, search: Search, confirmed: Confirmation | None, report: Path
) -> None:
    """Write ``dashboard/`` into a search's directory; an older one is replaced.

    Args:
        out: the search's local directory.
        search: all its trials have ended.
        confirmed: the results with fresh seeds, if there are any.
        report: the page of the search, which becomes an artifact.
    """
    folder = out / DASHBOARD
    shutil.rmtree(folder, ignore_errors=True)
    with writing(folder):
        (folder / ARTIFACTS).mkdir(parents=True)
        _write(folder, search, confirmed, report)


def _write(folder: Path, search: Search, confirmed: Confirmation | None, report: Path) -> None:
    store = FileSystemArtifactStore(folder / ARTIFACTS)
    study = optuna.create_study(
        study_name=search.study.study_name,
        storage=JournalStorage(JournalFileBackend(str(folder / STUDY))),
        directions=search.study.directions,
    )
    with without_experimental_warnings():
        study.set_metric_names([OBJECTIVES[name].title for name in search.space.objectives])
    rows = {row.number: row for row in search.rows()}
    trials = search.study.get_trials()
    for trial in trials:
        curve = rows[trial.number].curve if trial.number in rows else {}
        if len(curve) > 1:
            drawn = _curve(curve).encode()
            trial.system_attrs |= _artifact(store, f"{trial.number} curve", "curve.svg", drawn)
    study.add_trials(trials)
    page = _artifact(store, "report", report.name, report.read_bytes())
    notes = _note("", _about(search, confirmed))
    for trial in study.get_trials(deepcopy=False):
        text = _of_trial(trial, rows.get(trial.number))
        notes |= _note(f"{trial._trial_id}:", text)
    for key, value in (page | notes).items():
        study._storage.set_study_system_attr(study._study_id, key, value)


def _artifact(
    store: FileSystemArtifactStore, what: str, name: str, content: bytes
) -> dict[str, str]:
    """Store a file; return the attribute by which Optuna knows it."""
    identity = str(uuid.uuid5(uuid.NAMESPACE_URL, what))  # the same each time
    store.write(identity, io.BytesIO(content))
    kind = {".svg": "image/svg+xml", ".html": "text/html"}[Path(name).suffix]
    return {f"artifacts:{identity}": json.dumps(asdict(ArtifactMeta(identity, name, kind, None)))}


def _note(of: str, text: str) -> dict[str, Any]:
    parts = [text[at : at + _NOTE_PART] for at in range(0, len(text), _NOTE_PART)]
    note: dict[str, Any] = {f"dashboard:{of}note_ver": 1}
    return note | {f"dashboard:{of}note_str:{number}": part for number, part in enumerate(parts)}


def _about(search: Search, confirmed: Confirmation | None) -> str:
    best = ", ".join(f"trial {row.number}" for row in best_rows(search, confirmed)) or "no trial"
    limits = ", ".join(map(str, search.space.limits))
    return "\n".join(
        [
            "## " + ("Pareto front" if search.space.multi_objective else "Best") + f": {best}",
            *(f"- {line}" for line in study_verdict(search, confirmed)),
            *([f"- constraints: {limits}"] if limits else []),
            "",
            "A copy of the search, which changes in it do not touch. Its page is an artifact.",
        ]
    )


def _of_trial(trial: FrozenTrial, row: TrialRow | None) -> str:
    if not is_own(trial):
        return "**known** of an earlier search: not a trial of this one"
    if row is None:
        if trial.state == TrialState.WAITING:
            return "has not begun"
        return "its settings had been tried: not trained again"
    reason = row.reason.replace("`", "'")
    why = f"**{row.state}**" + (f"\n\n```\n{reason}\n```" if reason else "")
    settings = "\n".join(f"| {key} | {json.dumps(value)} |" for key, value in row.values.items())
    figures = "\n".join(
        f"| {OBJECTIVES[name].title} | {x:.6g} |" for name, x in row.figures.items()
    )
    lines = [why, "", "| | |", "| --- | --- |", *filter(None, [figures, settings])]
    return "\n".join([*lines, f"| iterations | {row.iterations} |"])


def _curve(curve: dict[int, float]) -> str:
    """Draw the best validation mAP after each iteration as SVG."""
    last, low, high = max(curve), min(curve.values()), max(curve.values())
    spread = high - low or 1.0
    points = " ".join(
        f"{_EDGE + (_WIDTH - 2 * _EDGE) * at / last:.1f},"
        f"{_HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * (score - low) / spread:.1f}"
        for at, score in sorted(curve.items())
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f'<polyline points="{points}" fill="none" stroke="#0a5" stroke-width="2"/>'
        f'<text x="8" y="20">best validation mAP {low:.4f} to {high:.4f}</text>'
        f'<text x="{_WIDTH - 110}" y="{_HEIGHT - 12}">{last} iterations</text></svg>'
    )
