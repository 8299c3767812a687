"""Search spaces from what the settings of methods say of themselves: ``method`` and ``methods``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import Searched
from schn_ray.methods.base import DeepMethod
from schn_ray.methods.registry import find_method
from schn_ray.models.config import HeadConfig
from schn_ray.training.config import TrainConfig
from schn_ray.tuning.space import (
    METHOD_SPACE,
    METHODS_SPACE,
    Domain,
    Space,
    read_space,
    settings_of_methods,
)
from schn_ray.tuning.trial_settings import METHOD_NAME, OF_METHOD, TrialSettings, is_same_setting

_RATE = "optimiser.learning_rate"
_HEAD = "head.kind"


def opened_space(
    name: str,
    preset: str | None,
    file: Path | None,
    settings: tuple[str, ...],
    method: str | None = None,
    given: Mapping[str, Any] | None = None,
    methods: Sequence[str] = (),
) -> Space:
    """Return a space by its name: generated, one that comes with the package, or a YAML file.

    Args:
        name: ``method``, ``methods``, another space's, or path of the file.
        preset: see ``base_config``, as the next ones.
        file: a config file, or None.
        settings: as ``--set`` takes them.
        method: that ``method`` is about.
        given: nested settings that follow from the store.
        methods: names, for ``methods``.

    Raises:
        SchnRayError: no such space, or ``methods`` for another one.
    """
    if methods and name != METHODS_SPACE:
        raise SchnRayError(f"--methods is for --space {METHODS_SPACE}, not for {name}")
    if name == METHOD_SPACE:
        base = settings_of_methods([method], preset, file, settings, given)
        return method_space(base.first)
    if name == METHODS_SPACE:
        base = settings_of_methods(methods, preset, file, settings, given)
        return methods_space(base, settings)
    return read_space(name)


def method_space(config: TrainConfig) -> Space:
    """Build a space from what the method's settings say of themselves.

    Trial 0 is the method as it is published; the learning rate is searched too, where it has one.

    Args:
        config: has the method.

    Raises:
        SchnRayError: the method has nothing to search.
    """
    parameters = own_parameters(config)
    if not parameters:
        raise SchnRayError(
            f"method {config.method.name} has no settings to search; name a YAML file, such as one "
            "that varies bits"
        )
    return Space(parameters=parameters)


def methods_space(base: TrialSettings, fixed: tuple[str, ...] = ()) -> Space:
    """Build a space that chooses among methods, and searches each one's own settings.

    The first trials are the methods as they are, one each. A deep method that leaves the choice of
    its head may have a hidden layer, or none.

    Args:
        base: the settings of each method; two methods or more.
        fixed: settings of the command, such as ``bits=32``; they are not searched.

    Raises:
        SchnRayError: fewer than two methods.
    """
    methods = tuple(base.by_method)
    if len(methods) < 2:
        raise SchnRayError(
            f"a search over methods needs two or more, got {', '.join(methods) or 'none'}; "
            "--space method --method NAME searches the settings of one"
        )
    parameters = {METHOD_NAME: Domain(choices=methods)}
    given = [line.partition("=")[0] for line in fixed]
    for name, config in base.by_method.items():
        for key, domain in (own_parameters(config) | _head(config)).items():
            parameter = f"{key}{OF_METHOD}{name}"
            if not any(is_same_setting(parameter, other) for other in given):
                when = {METHOD_NAME: name} | {
                    f"{other}{OF_METHOD}{name}": value for other, value in domain.when.items()
                }
                parameters[parameter] = domain.model_copy(update={"when": when})
    return Space(parameters=parameters, start=tuple({METHOD_NAME: name} for name in methods))


def own_parameters(config: TrainConfig) -> dict[str, Domain]:
    """Return the settings that a method says are to be searched, and its learning rate.

    A term that is off, with the weight 0 where a logarithm would be searched, stays off.

    Args:
        config: has the method.

    Returns:
        Dotted key -> its domain; empty if there is nothing to search.
    """
    parameters = {
        f"method.{key}": _domain(mark, field.annotation)
        for key, field in type(config.method).model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Searched) and not (mark.log and not getattr(config.method, key))
    }
    if issubclass(find_method(config.method.name), DeepMethod):
        rate = config.optimiser.learning_rate
        parameters[_RATE] = Domain(log=(rate / 10, rate * 10))
    return parameters


def _head(config: TrainConfig) -> dict[str, Domain]:
    """Return the choice of layers, of a method that leaves it."""
    method: Any = find_method(config.method.name)
    if not issubclass(method, DeepMethod):
        return {}
    hidden = method.choose_head(config.method, HeadConfig(kind="mlp"))
    if hidden.kind != "mlp":
        return {}
    return {_HEAD: Domain(choices=get_args(HeadConfig.model_fields["kind"].annotation))}


def _domain(mark: Searched, annotation: Any) -> Domain:
    given = {key: value for key, value in asdict(mark).items() if value is not None}
    return Domain(**given) if given else Domain(choices=get_args(annotation))
