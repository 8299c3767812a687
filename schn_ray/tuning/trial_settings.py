"""The settings of trials: what a search's trials have in common, and a trial's values over them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from schn_ray.methods.base import ShallowMethod
from schn_ray.methods.registry import find_method
from schn_ray.training.config import TrainConfig, config_from

Values = dict[str, Any]  # name of a parameter -> value
METHOD_NAME = "method.name"
OF_METHOD = "@"  # method.margin@NAME: that setting, of trials of this method


@dataclass(frozen=True)
class TrialSettings:
    """What the trials of a search have in common: all settings, before a trial's values.

    A method has its own recipe, its own part of a preset and its own section of settings. So where
    a search chooses among methods, there is a config for each.

    Attributes:
        by_method: name of a method -> its settings; the first are those without a search.
    """

    by_method: Mapping[str, TrainConfig]

    @cached_property
    def first(self) -> TrainConfig:
        """The settings without a search."""
        return next(iter(self.by_method.values()))

    @property
    def seed(self) -> int:
        """Of every trial's training."""
        return self.first.seed

    def of(self, values: Mapping[str, Any]) -> TrainConfig:
        """Return the settings of a trial's method, before its values.

        Args:
            values: of the trial; a method that they do not name is the first.
        """
        name = values.get(METHOD_NAME)
        return self.first if name is None else self.by_method[name]

    def config(self, values: Mapping[str, Any]) -> TrainConfig:
        """Return all settings of a trial.

        Args:
            values: name of a parameter -> value.

        Raises:
            SchnRayError: a value that the config refuses.
        """
        # the config knows its method's name, if need be as an absolute path
        return with_values(self.of(values), {k: v for k, v in values.items() if k != METHOD_NAME})

    def mapped(self, change: Callable[[TrainConfig], TrainConfig]) -> TrialSettings:
        """Return the settings with a change to each method's.

        Args:
            change: of a config.
        """
        return TrialSettings({name: change(config) for name, config in self.by_method.items()})

    def iterations(self, values: Mapping[str, Any]) -> int | None:
        """Return how many iterations a trial has; None for a fit, which has rounds of its own.

        Args:
            values: name of a parameter -> value.
        """
        settings = self.of(values)
        if issubclass(find_method(settings.method.name), ShallowMethod):
            return None
        return int(values.get("schedule.iterations", settings.schedule.iterations))

    def to_json(self) -> dict[str, Any]:
        """Return plain values: ``base``, the first settings, and ``methods``, if there are more."""
        dumped = {name: config.model_dump(mode="json") for name, config in self.by_method.items()}
        base = next(iter(dumped.values()))
        return {"base": base} if len(dumped) == 1 else {"base": base, "methods": dumped}


def setting_of(parameter: str) -> str:
    """Return the setting that a parameter varies.

    Args:
        parameter: its name in the space.

    >>> setting_of("method.margin@hashnet"), setting_of("bits")
    ('method.margin', 'bits')
    """
    return parameter.partition(OF_METHOD)[0]


def is_same_setting(one: str, other: str) -> bool:
    """Tell whether two names are of one setting in the trials of some method.

    Args:
        one: a dotted key, or the name of a parameter that varies it.
        other: another one.

    >>> is_same_setting("bits", "bits@csq"), is_same_setting("bits@itq", "bits@csq")
    (True, False)
    """
    both = OF_METHOD in one and OF_METHOD in other
    return one == other if both else setting_of(one) == setting_of(other)


def with_values(config: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return a config with other values.

    Args:
        config: the settings.
        values: name of a parameter, or dotted key of a setting -> value.

    Raises:
        SchnRayError: a value that the config refuses.
    """
    changed = config.model_dump()
    for parameter, value in values.items():
        *sections, name = setting_of(parameter).split(".")
        section = changed
        for part in sections:
            section = section[part]
        section[name] = value
    return config_from(changed)


def value_of(config: TrainConfig, parameter: str) -> Any:
    """Return one setting, as it is in JSON.

    Args:
        config: the settings.
        parameter: its dotted key, or the name of a parameter that varies it.
    """
    value: Any = config.model_dump(mode="json")
    for part in setting_of(parameter).split("."):
        value = value[part]
    return value


def same_value(a: Any, b: Any) -> bool:
    """Compare two settings as a config does: a tuple equals a list, but True is not 1.

    Args:
        a: a setting.
        b: another value of it.

    >>> same_value((5, 7), [5, 7]), same_value(1, 1.0), same_value(True, 1)
    (True, True, False)
    """
    return json.dumps(a) == json.dumps(b) or (_is_number(a) and _is_number(b) and a == b)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
