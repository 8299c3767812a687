"""What another search knows: its trials, as far as they fit the space of a new one.

They are added to the new study before its first trial, so that the sampler knows them. They are no
trials of the new search: none of them can win, and none decides who goes on from a rung.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from schn_ray.core.artefacts import read_verified
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST, Manifest
from schn_ray.core.settings import flattened
from schn_ray.core.storage.cache import manifest_at
from schn_ray.core.storage.files import as_location, join, kind_at
from schn_ray.tuning.rows import TrialRow
from schn_ray.tuning.space import Space
from schn_ray.tuning.study_file import STUDY
from schn_ray.tuning.study_rows import rows_of_study
from schn_ray.tuning.trial_settings import (
    METHOD_NAME,
    TrialSettings,
    Values,
    same_value,
    setting_of,
)


@dataclass(frozen=True)
class Earlier:
    """An earlier search, as another one sees it.

    Attributes:
        location: its directory, or its URI.
        fingerprint: of its manifest.
        trials: how many of its trials have a figure.
        rows: those that fit, with values for the parameters of the new space.
        differences: what makes its figures other ones, such as another store; empty: nothing.
    """

    location: str
    fingerprint: str
    trials: int
    rows: tuple[TrialRow, ...]
    differences: tuple[str, ...]

    def __str__(self) -> str:
        text = f"{len(self.rows)} of {self.trials} trials of {self.location} are known"
        if not self.differences:
            return text
        return f"{text}, though with other figures: it had {', '.join(self.differences)}"


def read_earlier(
    search: Path | str, space: Space, base: TrialSettings, made_from: Mapping[str, Any]
) -> Earlier:
    """Read a finished search, and choose its trials that fit.

    A trial fits if it has all objectives and constrained figures, its values lie in the new
    domains, and what the new space does not vary had the new search's value.

    Args:
        search: its directory, or its URI.
        space: of the new search.
        base: what the new search's trials have in common.
        made_from: name of each input of the new search -> its fingerprint.

    Raises:
        SchnRayError: no finished search, a damaged one, or no trial of it fits.
    """
    location = as_location(search)
    if kind_at(join(location, MANIFEST)) != "file":
        raise SchnRayError(
            f"--from {search}: there is no finished search: it has no {MANIFEST}. The command that "
            "began it finishes it"
        )
    manifest = manifest_at(location, "search")
    content = read_verified(join(location, STUDY), manifest.files[STUDY], "search")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / STUDY).write_bytes(content)
        rows = [row for row in rows_of_study(Path(folder)) if row.figures or row.curve]
    fitted = [
        replace(row, values=values)
        for row in rows
        if _is_measured(row, space)
        and (values := _fitted(row.values, _settings_of(manifest, row.values), space, base))
        is not None
    ]
    if not fitted:
        raise SchnRayError(
            f"--from {search}: none of its {len(rows)} trials fits: each varies a setting that has "
            "another value here, lies outside the space, or lacks an objective"
        )
    differences = _differences(manifest, space, base, made_from)
    return Earlier(location, manifest.fingerprint, len(rows), tuple(fitted), differences)


def _is_measured(row: TrialRow, space: Space) -> bool:
    if row.state == "pruned":  # Optuna compares curves with one objective only
        return bool(row.curve) and not space.multi_objective
    return all(name in row.figures for name in space.measured)


def _settings_of(manifest: Manifest, values: Values) -> dict[str, Any]:
    """Return the settings, before its values, of an earlier trial's method."""
    by_method = manifest.config.get("methods", {})
    settings: dict[str, Any] = by_method.get(values.get(METHOD_NAME), manifest.config["base"])
    return settings


def _fitted(
    values: Values, settings: dict[str, Any], space: Space, base: TrialSettings
) -> Values | None:
    """Return an earlier trial's values for the parameters of a space; None if it does not fit."""
    chosen: Values = {}
    for key, domain in space.parameters.items():
        if domain.active(chosen):
            value = values[key] if key in values else _looked_up(settings, setting_of(key))
            if not domain.holds(value):
                return None
            choices = domain.choices or (value,)
            chosen[key] = next(choice for choice in choices if same_value(choice, value))
    try:
        config = base.config(chosen)
    except SchnRayError:
        return None
    dumped = config.model_dump(mode="json")
    fixed = {k: v for k, v in values.items() if k not in space.parameters}
    if METHOD_NAME not in space.parameters:
        fixed.setdefault(METHOD_NAME, settings["method"]["name"])
    same = (same_value(_looked_up(dumped, setting_of(k)), v) for k, v in fixed.items())
    return chosen if all(same) else None


def _looked_up(settings: dict[str, Any], key: str) -> Any:
    """Return a setting; None, which no domain has, where the method lacks it."""
    value: Any = settings
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _differences(
    manifest: Manifest, space: Space, base: TrialSettings, made_from: Mapping[str, Any]
) -> tuple[str, ...]:
    inputs = manifest.made_from.keys() | made_from.keys()
    texts = [
        f"another {name}"
        for name in sorted(inputs)
        if manifest.made_from.get(name) != made_from.get(name)
    ]
    varied = {
        setting_of(key) for key in (*space.parameters, *manifest.config["space"]["parameters"])
    }
    before = manifest.config["base"]
    now = base.first.model_dump(mode="json")
    for key in sorted(flattened(before).keys() | flattened(now).keys()):
        value = _looked_up(before, key)
        if key not in varied and not same_value(value, _looked_up(now, key)):
            texts.append(f"{key} {value}")
    return tuple(texts)
