"""The settings that each method of a suite may try: the published ones first, then random draws.

Draws depend on the budget's seed, the method and its published settings alone. So they are the same
on all data, whichever trials run first and wherever, and a larger budget begins with those of a
smaller one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from random import Random
from typing import Any

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import flattened
from schn_ray.suites.suite import Budget
from schn_ray.training.config import TrainConfig
from schn_ray.tuning.method_spaces import own_parameters
from schn_ray.tuning.space import Domain
from schn_ray.tuning.trial_settings import Values, value_of, with_values

_DRAWS = 50  # for each trial, before a space counts as exhausted
_DIGITS = 3  # of a drawn number: a table shows all of them


def settings_to_try(
    config: TrainConfig, budget: Budget, fixed: Mapping[str, Any]
) -> tuple[Values, ...]:
    """Return the settings of each trial, as far as they differ from the published ones.

    Args:
        config: the published settings of a method.
        budget: how many trials, and their seed.
        fixed: nested settings that all methods of the suite share; they are not drawn.

    Returns:
        ``{}`` first, then distinct draws: fewer than the budget where the method has no more, or
        nothing to search.

    Example:
        >>> from schn_ray.training.config import train_config
        >>> settings_to_try(train_config(method="csq"), Budget(trials=2), {})
        ({}, {'method.quantization': 0.0345, 'optimiser.learning_rate': 9.32e-05})
    """
    shared = flattened(fixed)
    parameters = {k: d for k, d in own_parameters(config).items() if k not in shared}
    published = {key: value_of(config, key) for key in parameters}
    generator = Random(f"{budget.seed} {config.method.name}")
    tried = {json.dumps(published): dict[str, Any]()}
    for _ in range(_DRAWS * budget.trials if parameters else 0):
        if len(tried) >= budget.trials:
            break
        values = {key: _drawn(domain, generator) for key, domain in parameters.items()}
        if _is_valid(config, values):
            tried.setdefault(json.dumps(values), values)
    return tuple(tried.values())


def _drawn(domain: Domain, generator: Random) -> Any:
    value = domain.draw(generator)
    if domain.log is None and domain.linear is None:
        return value
    low, high = domain.ends
    return min(max(float(f"{value:.{_DIGITS}g}"), low), high)


def _is_valid(config: TrainConfig, values: Values) -> bool:
    try:
        with_values(config, values)
    except SchnRayError:  # settings that exclude each other
        return False
    return True
