"""What a search leaves: settings that ``train --config`` takes, a table, counts, what mattered.

OUT/best.yaml        with one objective: all settings of the winner
OUT/pareto/          with several: those of each trial that none is better than in everything
OUT/trials.csv       a line a trial
OUT/summary.json     what came out
OUT/confirmed.json   what fresh seeds said, with --repeats
OUT/study.db         the Optuna study
OUT/trials/0000 ...  the trials' runs; those that were not stopped have a model
OUT/confirm/         the runs with fresh seeds
"""

from __future__ import annotations

import csv
import io
import json
import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import yaml
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from schn_ray.core.atomic_files import write_atomically, write_json
from schn_ray.core.manifest import MANIFEST
from schn_ray.core.storage.files import as_location, join, read_file
from schn_ray.tuning.confirm import CONFIRMED, Confirmation
from schn_ray.tuning.objectives import OBJECTIVES, VALIDATION_MAP
from schn_ray.tuning.space import with_values
from schn_ray.tuning.study import Search, TrialRow, front, ranked

BEST, PARETO, TABLE, SUMMARY = "best.yaml", "pareto", "trials.csv", "summary.json"
_ENOUGH_TO_RANK = 4  # complete trials, below which importance is noise


def write_results(out: Path, search: Search, confirmed: Confirmation | None) -> None:
    """Write settings and table into a search's directory, over those of an earlier call."""
    shutil.rmtree(out / PARETO, ignore_errors=True)
    (out / BEST).unlink(missing_ok=True)
    for row in best_rows(search, confirmed):
        name = f"{PARETO}/trial-{row.number:04}.yaml" if search.space.several else BEST
        (out / name).parent.mkdir(exist_ok=True)
        write_atomically(out / name, _settings_file(search, row, confirmed).encode())
    write_atomically(out / TABLE, trial_table(search).encode())
    write_json(out / SUMMARY, study_summary(search, confirmed))
    if confirmed is not None:
        write_json(out / CONFIRMED, confirmed.to_json())


def best_rows(search: Search, confirmed: Confirmation | None) -> list[TrialRow]:
    """Return the winner, or the Pareto set; empty where no trial was completed."""
    rows = search.rows()
    if confirmed is not None:
        return [row for row in rows if row.number == confirmed.winner]
    if search.space.several:
        return front(rows, search.space.objectives)
    return ranked(rows)[:1]


def trial_table(search: Search) -> str:
    """Return all trials as CSV: number, state, figures, settings, cost and reason of failure."""
    parameters, names = list(search.space.parameters), list(search.space.objectives)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["trial", "state", *names, *parameters, "iterations", "seconds", "reason"])
    for row in search.rows():
        figures = [row.figures.get(name, "") for name in names]
        values = [json.dumps(row.values[k]) if k in row.values else "" for k in parameters]
        cost = [row.iterations, row.seconds, row.reason]
        lines.writerow([row.number, row.state, *figures, *values, *cost])
    return text.getvalue()


def count_search(search: Search, confirmed: Confirmation | None, repeats: int) -> dict[str, Any]:
    """Count what a finished search's manifest says."""
    rows = search.rows()
    states = Counter(row.state for row in rows)
    best = best_rows(search, confirmed)
    counts: dict[str, Any] = {
        "trials": len(rows),
        **{state: states[state] for state in ("complete", "pruned", "failed")},
        "exhausted": search.exhausted,
        "iterations": sum(row.iterations for row in rows),
        "iterations_not_run": iterations_saved(search),
        "repeats": repeats,
    }
    if search.space.several:
        counts["pareto_front"] = [row.number for row in best]
    elif best:
        counts |= {
            "best_trial": best[0].number,
            "best_validation_map": best[0].figures[VALIDATION_MAP],
        }
    return counts


def iterations_saved(search: Search) -> int:
    """Count the iterations that stopped trials did not run."""
    return sum(
        planned_iterations(search, row) - row.iterations
        for row in search.rows()
        if row.state == "pruned"
    )


def planned_iterations(search: Search, row: TrialRow) -> int:
    """Return how many iterations a trial would have at most."""
    key = "schedule.iterations"
    return int(row.values.get(key, search.base.schedule.iterations))


def seconds_beside_training(search: Search) -> float | None:
    """Return what a trial took of its place beside its training, in the mean; None if unknown.

    Places (trials at once) times the seconds that the search ran, less the seconds that trials
    trained, over their number: starting processes, asking, writing, and places left empty.
    """
    sittings, rows = search.sittings(), [r for r in search.rows() if r.seconds]
    if not rows or len(sittings) != 1:
        return None  # of a search that was interrupted, the last seconds are not known
    places = sum(s["seconds"] * s["slots"] for s in sittings)
    return max(0.0, places - sum(row.seconds for row in rows)) / len(rows)


def importances(search: Search, objective: str) -> dict[str, float]:
    """Return the share of each parameter in the differences of an objective (fANOVA by Optuna).

    Over complete trials, of parameters that all of them have; empty where these are few.
    """
    place = search.space.objectives.index(objective)
    if sum(row.state == "complete" for row in search.rows()) < _ENOUGH_TO_RANK:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            found = get_param_importances(
                search.study,
                evaluator=FanovaImportanceEvaluator(seed=0),
                target=lambda trial: trial.values[place],
            )
        except (ValueError, RuntimeError):  # such as all trials with the same figure
            return {}
    return {name: float(share) for name, share in found.items()}


def study_summary(search: Search, confirmed: Confirmation | None) -> dict[str, Any]:
    """Return what came out as plain values."""
    return {
        "best": [
            {"trial": row.number, "figures": row.figures, "settings": row.values}
            for row in best_rows(search, confirmed)
        ],
        "verdict": study_verdict(search, confirmed),
        "pareto": search.space.several,
        "searched_seconds": sum(sitting["seconds"] for sitting in search.sittings()),
        "seconds_beside_training": seconds_beside_training(search),
    }


def study_text(out: Path | str) -> str:
    """Return what came out of a finished search, as lines to read."""
    counts = json.loads(read_file(join(as_location(out), MANIFEST)))["counts"]
    found = json.loads(read_file(join(as_location(out), SUMMARY)))
    lines = [
        f"{out}: {counts['trials']} trials: {counts['complete']} complete, {counts['pruned']} "
        f"stopped early, {counts['failed']} failed; table in {join(str(out), TABLE)}"
    ]
    if not found["best"]:
        return "\n".join([*lines, "  none was completed: the table has the reasons"])
    for row in found["best"]:
        figures = (f"{OBJECTIVES[name].title} {x:.4g}" for name, x in row["figures"].items())
        lines.append(f"  trial {row['trial']}: {', '.join(figures)}")
    lines += [f"  {line}" for line in found["verdict"]]
    named = join(str(out), PARETO + "/*.yaml" if found["pareto"] else BEST)
    return "\n".join([*lines, f"Next: schn-ray train STORE --out RUN --config {named}"])


def study_verdict(search: Search, confirmed: Confirmation | None) -> list[str]:
    """Say whether the winner is better than the first trial, and how that is known."""
    if search.space.several:
        return []
    if confirmed is None:
        return ["not confirmed on other seeds: --repeats 5 does"]
    if confirmed.winner == 0:
        return ["the first trial is the best: the search found nothing better"]
    if confirmed.validation is None:
        return ["not confirmed: too few of the runs with other seeds succeeded"]
    lines = [f"validation mAP of the first trial and the winner: {confirmed.validation}"]
    if confirmed.queries:
        lines.append(f"mAP of the test queries: {confirmed.queries}")
    measured = [("validation", confirmed.validation), ("test queries", confirmed.queries)]
    for name, gain in measured:
        if gain is not None:
            better = "better" if gain.is_one else "not better beyond chance"
            lines.append(f"on {name} the winner is {better}")
    return lines


def _settings_file(search: Search, row: TrialRow, confirmed: Confirmation | None) -> str:
    figures = ", ".join(f"{OBJECTIVES[n].title} {row.figures[n]}" for n in search.space.objectives)
    about = [f"Trial {row.number} of a search over {len(search.space.parameters)} settings."]
    about += [
        figures,
        *study_verdict(search, confirmed),
        "schn-ray train STORE --out RUN --config FILE",
    ]
    config = with_values(search.base, row.values).model_dump(mode="json")
    head = "".join(f"# {line}\n" for line in about)
    return head + yaml.safe_dump(config, sort_keys=False)
