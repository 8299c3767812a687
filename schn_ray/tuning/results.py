"""What a search writes when it ends: settings for ``train --config``, a table, counts.

OUT/best.yaml        with one objective: all settings of the winner
OUT/pareto/          with several objectives: the settings of each trial in the Pareto front
OUT/trials.csv       a line for each trial
OUT/trials.parquet   the same with types, times and curves
OUT/summary.json     the best trials, and whether the winner is better than the first trial
OUT/confirmed.json   the results with fresh seeds, with --repeats
OUT/study.jsonl      the Optuna study
OUT/trials/0000 ...  the trials' runs; those that were not stopped have a model
OUT/confirm/         the runs with fresh seeds
"""

from __future__ import annotations

import shutil
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from schn_ray.core.artefacts import read_verified
from schn_ray.core.atomic_files import write_atomically, write_json, writing
from schn_ray.core.documents import parse_json
from schn_ray.core.manifest import MANIFEST, parse_manifest
from schn_ray.core.storage.files import as_location, join, read_file
from schn_ray.tuning.confirm import CONFIRMED, Confirmation
from schn_ray.tuning.method_ranking import ranking_text
from schn_ray.tuning.objectives import OBJECTIVES, VALIDATION_MAP
from schn_ray.tuning.rows import TrialRow, front, ranked
from schn_ray.tuning.study import Search
from schn_ray.tuning.tables import trial_parquet, trial_table

BEST, PARETO, SUMMARY = "best.yaml", "pareto", "summary.json"
TABLE, TYPED_TABLE = "trials.csv", "trials.parquet"
_MIN_TRIALS_FOR_IMPORTANCE = 4  # complete ones; with fewer, importance is noise
_BEST_TRIALS = 5  # whose values are compared with those of all, if these are enough


def write_results(out: Path, search: Search, confirmed: Confirmation | None) -> None:
    """Write settings, tables and summaries into a search's directory; older ones are replaced.

    Args:
        out: the search's local directory.
        search: all its trials have ended.
        confirmed: the results with fresh seeds, if there are any.
    """
    shutil.rmtree(out / PARETO, ignore_errors=True)
    (out / BEST).unlink(missing_ok=True)
    for row in best_rows(search, confirmed):
        name = f"{PARETO}/trial-{row.number:04}.yaml" if search.space.multi_objective else BEST
        with writing(out / name):
            (out / name).parent.mkdir(exist_ok=True)
        write_atomically(out / name, _settings_file(search, row, confirmed).encode())
    write_atomically(out / TABLE, trial_table(search).encode())
    write_atomically(out / TYPED_TABLE, trial_parquet(search))
    write_json(out / SUMMARY, study_summary(search, confirmed))
    if confirmed is not None:
        write_json(out / CONFIRMED, confirmed.to_json())


def best_rows(search: Search, confirmed: Confirmation | None) -> list[TrialRow]:
    """Return the winner, or the Pareto front; empty where no trial was completed.

    Args:
        search: the search.
        confirmed: names the winner; without it the best trial of the search is the winner.
    """
    rows = search.rows()
    if confirmed is not None:
        return [row for row in rows if row.number == confirmed.winner]
    if search.space.multi_objective:
        return front(rows, search.space.objectives)
    return ranked(rows)[:1]


def study_counts(
    search: Search, confirmed: Confirmation | None, repeats: int, stopped: str = ""
) -> dict[str, Any]:
    """Return the counts that the manifest of a finished search has.

    Args:
        search: the search.
        confirmed: the results with fresh seeds, if there are any.
        repeats: seeds for each step of the confirmation.
        stopped: why no more trials began, if they were not all that were to begin.
    """
    rows = search.rows()
    states = Counter(row.state for row in rows)
    best = best_rows(search, confirmed)
    counts: dict[str, Any] = {
        "trials": sum(row.is_counted for row in rows),
        **{state: states[state] for state in ("complete", "pruned", "failed", "infeasible")},
        "not_trained": sum(not row.is_counted for row in rows),
        "known": search.count_known(),
        "exhausted": search.exhausted,
        "stopped": stopped,
        "searched_seconds": search.seconds(),
        "iterations": sum(row.iterations for row in rows),
        "iterations_not_run": iterations_saved(search),
        "repeats": repeats,
    }
    if search.space.multi_objective:
        counts["pareto_front"] = [row.number for row in best]
    elif best:
        counts |= {
            "best_trial": best[0].number,
            "best_validation_map": best[0].figures[VALIDATION_MAP],
        }
    return counts


def iterations_saved(search: Search) -> int:
    """Count the iterations that were not trained because trials were stopped early.

    Args:
        search: the search.
    """
    return sum(
        planned_iterations(search, row) - row.iterations
        for row in search.rows()
        if row.state == "pruned"
    )


def planned_iterations(search: Search, row: TrialRow) -> int:
    """Return how many iterations a trial has unless it is stopped; of a fit, those it had.

    Args:
        search: the search.
        row: the trial.
    """
    return search.base.iterations(row.values) or row.iterations


def seconds_outside_training(search: Search) -> float | None:
    """Return the mean seconds for which a trial held a slot without training; None if unknown.

    They are spent on starting processes, proposing, writing, and on slots that stay empty. The
    search's seconds times its slots (trials at once), less the seconds that trials trained, are
    divided by the number of trials.

    Args:
        search: the search; unknown if it ran in more than one session.
    """
    sessions, rows = search.sessions(), [r for r in search.rows() if r.seconds]
    if not rows or len(sessions) != 1:
        return None  # a session that was killed did not record its last seconds
    slot_seconds = sum(s["seconds"] * s["slots"] for s in sessions)
    return max(0.0, slot_seconds - sum(row.seconds for row in rows)) / len(rows)


def importances(search: Search) -> dict[str, float]:
    """Return how much each parameter mattered for the best trials, by Optuna's PED-ANOVA.

    That is how far a parameter's values in the best trials differ from those in all complete
    trials (Watanabe et al., IJCAI 2023). The best are the first tenth, or five where that is more,
    but at most half; with several objectives they are taken front by front. Parameters that only
    certain trials have are counted too.

    Args:
        search: the search.

    Returns:
        Parameter -> share of 1, the largest first; empty if too few trials are complete or all have
        the same figures.
    """
    complete = [row for row in search.rows() if row.state == "complete"]
    if len(complete) < _MIN_TRIALS_FOR_IMPORTANCE or len({str(r.figures) for r in complete}) < 2:
        return {}
    quantile = min(0.5, max(0.1, _BEST_TRIALS / len(complete)))
    numbers = {row.number for row in complete}
    feasible = optuna.create_study(directions=search.study.directions)
    trials = search.study.get_trials(deepcopy=False)
    feasible.add_trials([trial for trial in trials if trial.number in numbers])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = get_param_importances(
            feasible, evaluator=PedAnovaImportanceEvaluator(target_quantile=quantile)
        )
    return {name: float(share) for name, share in shares.items()}


def study_summary(search: Search, confirmed: Confirmation | None) -> dict[str, Any]:
    """Return the contents of ``summary.json``.

    Args:
        search: the search.
        confirmed: the results with fresh seeds, if there are any.
    """
    return {
        "best": [
            {"trial": row.number, "figures": row.figures, "settings": row.values}
            for row in best_rows(search, confirmed)
        ],
        "verdict": study_verdict(search, confirmed),
        "pareto": search.space.multi_objective,
        "searched_seconds": search.seconds(),
        "seconds_beside_training": seconds_outside_training(search),
    }


def study_text(out: Path | str) -> str:
    """Describe the results of a finished search in lines of text, with the command to run next.

    Args:
        out: the search's directory, or its URI.
    """
    manifest = parse_manifest(read_file(join(as_location(out), MANIFEST)), out, "search")
    location = join(as_location(out), SUMMARY)
    summary = parse_json(read_verified(location, manifest.files[SUMMARY], "search"), location)
    counts = manifest.counts
    lines = [
        f"{out}: {counts['trials']} trials: {counts['complete']} complete, {counts['pruned']} "
        f"stopped early, {counts['failed']} failed{_infeasible(counts)}; table in "
        + join(str(out), TABLE)
    ]
    if counts["stopped"]:
        lines.append(f"  no more trials began: {counts['stopped']}")
    if not summary["best"]:
        return "\n".join([*lines, *(f"  {line}" for line in summary["verdict"])])
    for row in summary["best"]:
        figures = (f"{OBJECTIVES[name].title} {x:.4g}" for name, x in row["figures"].items())
        lines.append(f"  trial {row['trial']}: {', '.join(figures)}")
    lines += [f"  {line}" for line in summary["verdict"]]
    files = join(str(out), PARETO + "/*.yaml" if summary["pareto"] else BEST)
    return "\n".join([*lines, f"Next: schn-ray train STORE --out RUN --config {files}"])


def _infeasible(counts: dict[str, Any]) -> str:
    if not counts["infeasible"]:
        return ""
    text = f", {counts['infeasible'] - counts['not_trained']} infeasible"
    untrained = counts["not_trained"]
    return text + (f"; {untrained} proposals broke a constraint untrained" if untrained else "")


def study_verdict(search: Search, confirmed: Confirmation | None) -> list[str]:
    """Say whether the winner is better than the first trial, in lines of text.

    Args:
        search: the search; with more than one objective there is nothing to say, unless no trial
            is good for anything.
        confirmed: the results with fresh seeds, if there are any.
    """
    if not best_rows(search, confirmed):
        return [_why_none(search)]
    if search.space.multi_objective:
        return []
    lines = [f"methods: {ranking_text(search.rows())}"] if search.space.methods else []
    if confirmed is None:
        return [*lines, "not confirmed on other seeds: use --repeats 5"]
    lines += _over_runner_up(search, confirmed)
    if confirmed.winner == 0:
        return [*lines, "the first trial is the best: the search found nothing better"]
    if confirmed.validation is None:
        return [*lines, "not confirmed: too few of the runs with other seeds succeeded"]
    lines.append(f"validation mAP of the first trial and the winner: {confirmed.validation}")
    if confirmed.queries:
        lines.append(f"mAP of the test queries: {confirmed.queries}")
    gains = [("validation", confirmed.validation), ("test queries", confirmed.queries)]
    for name, gain in gains:
        if gain is not None:
            better = "better" if gain.is_significant else "not better beyond chance"
            lines.append(f"on {name} the winner is {better}")
    return lines


def _over_runner_up(search: Search, confirmed: Confirmation) -> list[str]:
    """Say by how much the winner's method beats the next one."""
    other = confirmed.runner_up
    if other is None or other.validation is None:
        return []
    winner = next(row for row in search.rows() if row.number == confirmed.winner)
    name = search.base.of(winner.values).method.name
    better = "better" if other.validation.is_significant else "not better beyond chance"
    lines = [f"{name} against {other.method}, the next method: on validation it is {better}"]
    lines.append(f"validation mAP of {other.method} and {name}: {other.validation}")
    if other.queries is not None:
        lines.append(f"mAP of the test queries of {other.method} and {name}: {other.queries}")
    return lines


def _why_none(search: Search) -> str:
    limits = ", ".join(map(str, search.space.limits))
    outside = [row for row in search.rows() if row.state == "infeasible"]
    if not outside:
        return "no trial was completed: the table has the reasons"
    if not (trained := [row for row in outside if row.is_counted]):
        return f"no settings meet the constraints ({limits}): give others, or a wider space"
    nearest = max(trained, key=lambda row: row.figures[VALIDATION_MAP])
    figures = ", ".join(f"{OBJECTIVES[name].title} {x:.4g}" for name, x in nearest.figures.items())
    return (
        f"no trial meets the constraints ({limits}); the best of those that do not is trial "
        f"{nearest.number}: {figures}"
    )


def _settings_file(search: Search, row: TrialRow, confirmed: Confirmation | None) -> str:
    figures = ", ".join(f"{OBJECTIVES[n].title} {row.figures[n]}" for n in search.space.objectives)
    about = [f"Trial {row.number} of a search over {len(search.space.parameters)} settings."]
    about += [
        figures,
        *study_verdict(search, confirmed),
        "schn-ray train STORE --out RUN --config FILE",
    ]
    config = search.base.config(row.values).model_dump(mode="json")
    head = "".join(f"# {line}\n" for line in about)
    return head + yaml.safe_dump(config, sort_keys=False)
