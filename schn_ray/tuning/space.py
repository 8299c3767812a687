"""A search space: which settings may vary, within which bounds, and for which objectives.

A space is compared with the method's ``TrainConfig`` when it is read, before any process starts. A
key, a bound or a choice that training would refuse is refused at once, with the line to change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from random import Random
from types import NoneType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, model_validator

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.settings import Count, Searched, Section, keys, read_yaml, validated
from schn_ray.methods.base import DeepMethod
from schn_ray.methods.registry import find_method
from schn_ray.training.config import TrainConfig, config_from, train_config
from schn_ray.tuning.objectives import OBJECTIVES, VALIDATION_MAP

SPACES = Path(__file__).parent / "spaces"
Values = dict[str, Any]  # dotted key -> value
Kind = Literal["log", "linear", "integer", "choices"]


class Domain(Section):
    """The values that one setting may have: exactly one of the first four attributes is given.

    Attributes:
        log: bounds of a number; its logarithm is drawn uniformly.
        linear: bounds of a number that is drawn uniformly.
        integer: bounds of a whole number, both included.
        choices: the values themselves.
        step: between the values of ``integer``.
        when: another setting of the space -> the choices with which this setting matters; with
            others, this setting keeps the value that it has without a search.
    """

    log: tuple[float, float] | None = None
    linear: tuple[float, float] | None = None
    integer: tuple[int, int] | None = None
    choices: tuple[Any, ...] | None = None
    step: Count = 1
    when: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_kind(self) -> Domain:
        given = [k for k in get_args(Kind) if getattr(self, k) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of {', '.join(get_args(Kind))}")
        return self

    @property
    def kind(self) -> Kind:
        """Which of the four is given."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        return next(k for k in kinds if getattr(self, k) is not None)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that are tried in a config: both bounds, or all choices."""
        return tuple(getattr(self, self.kind))

    def holds(self, value: Any) -> bool:
        """Tell whether a value is in the domain.

        >>> Domain(integer=(16, 64), step=16).holds(32), Domain(integer=(16, 64), step=16).holds(33)
        (True, False)
        """
        if self.choices is not None:
            return any(same_value(value, choice) for choice in self.choices)
        low, high = self.ends
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        on_step = self.integer is None or (value - low) % self.step == 0
        return bool(low <= value <= high and on_step)

    def draw(self, generator: Random) -> Any:
        """Return a random value, uniform on the domain's scale."""
        if self.choices is not None:
            return generator.choice(self.choices)
        low, high = self.ends
        if self.integer is not None:
            return generator.randrange(low, high + 1, self.step)
        if self.log is not None:
            return math.exp(generator.uniform(math.log(low), math.log(high)))
        return generator.uniform(low, high)

    def active(self, chosen: Mapping[str, Any]) -> bool:
        """Tell whether the setting matters, given the values that were chosen before it."""
        return all(
            key in chosen and any(same_value(chosen[key], v) for v in _as_list(allowed))
            for key, allowed in self.when.items()
        )

    def __str__(self) -> str:
        shown = ", ".join(f"{end:g}" if isinstance(end, float) else f"{end}" for end in self.ends)
        return f"{self.kind} [{shown}]"


class Pruning(Section):
    """Asynchronous successive halving (ASHA): as Optuna has it, or, of fronts, ``halving``.

    After ``grace``, ``grace * factor``, ``grace * factor**2`` ... iterations, a trial goes on if it
    is among the best 1 / ``factor`` of the trials that have reached that iteration.
    """

    grace: Count = 1
    factor: Annotated[int, Field(ge=2)] = 3

    def is_rung(self, iteration: int) -> bool:
        """Tell whether trials are compared after an iteration.

        >>> [i for i in range(1, 30) if Pruning(grace=2, factor=3).is_rung(i)]
        [2, 6, 18]
        """
        rung = self.grace
        while rung < iteration:
            rung *= self.factor
        return rung == iteration


class Space(Section):
    """A search space, as its file has it.

    Attributes:
        preset: the preset that all other settings are taken from.
        fixed: further settings, by dotted key.
        parameters: dotted key -> its domain.
        start: the first trials; a setting that one leaves out keeps its value without a search.
        objectives: names in ``objectives.OBJECTIVES``.
        pruning: stops hopeless trials early.
        sampler: of Optuna. ``tpe`` also works with several objectives; ``nsga2`` needs hundreds of
            trials.
        close: a trial whose validation mAP is this close to the best is also a candidate to win.
    """

    preset: str | None = None
    fixed: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Domain]
    start: tuple[dict[str, Any], ...] = ({},)
    objectives: tuple[str, ...] = (VALIDATION_MAP,)
    pruning: Pruning | None = None
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    close: Annotated[float, Field(ge=0)] = 0.01

    @property
    def multi_objective(self) -> bool:
        """Whether there is more than one objective, and so no single best trial."""
        return len(self.objectives) > 1


METHOD_SPACE = "method"


def read_space(name: str, config: Callable[[], TrainConfig] | None = None) -> Space:
    """Read a space: the method's own, one that comes with the package, or a YAML file.

    Args:
        name: ``method``, another space's, or path of the file.
        config: returns the settings whose method ``method`` is about.

    Raises:
        SchnRayError: no such space, or a file that is not a space.

    >>> read_space("quick").objectives
    ('validation_map',)
    """
    path = Path(name)
    if name == METHOD_SPACE and config is not None:
        return method_space(config())
    if name in space_names():
        path = SPACES / f"{name}.yaml"
    elif not path.is_file():
        hint = nearest(name, space_names()) or "."
        raise SchnRayError(
            f"no search space '{name}'{hint} Name a YAML file, or one of: "
            + ", ".join([METHOD_SPACE, *space_names()])
        )
    return validated(Space, read_yaml(path))


def method_space(config: TrainConfig) -> Space:
    """Build a space from what the method's settings say of themselves.

    Trial 0 is the method as it is published; the learning rate is searched too, where it has one.

    Args:
        config: has the method.

    Raises:
        SchnRayError: the method has nothing to search.
    """
    section = type(config.method)
    parameters = {
        f"method.{key}": _domain(mark, field.annotation)
        for key, field in section.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Searched)
    }
    if issubclass(find_method(config.method.name), DeepMethod):
        rate = config.optimiser.learning_rate
        parameters["optimiser.learning_rate"] = Domain(log=(rate / 10, rate * 10))
    if not parameters:
        raise SchnRayError(
            f"method {config.method.name} has no settings to search; name a YAML file, such as one "
            "that varies bits"
        )
    return Space(parameters=parameters)


def _domain(mark: Searched, annotation: Any) -> Domain:
    given = {key: value for key, value in asdict(mark).items() if value is not None}
    return Domain(**given) if given else Domain(choices=get_args(annotation))


def space_names() -> list[str]:
    """List the spaces that come with the package."""
    return sorted(path.stem for path in SPACES.glob("*.yaml"))


def base_config(
    space: Space,
    preset: str | None,
    file: Path | None,
    settings: tuple[str, ...],
    method: str | None = None,
    given: Mapping[str, Any] | None = None,
) -> TrainConfig:
    """Return the settings that all trials have in common.

    Later ones win: the preset, the config file, the space's ``fixed``, ``settings``.

    Args:
        space: the search space.
        preset: name of a preset, instead of the space's own.
        file: a config file, or None.
        settings: as ``--set`` takes them, such as ``bits=32``.
        method: name of a method; by default that of the file, or the default one.
        given: nested settings that follow from the store.

    Raises:
        SchnRayError: a setting that the space searches, or that ``train_config`` refuses.
    """
    fixed = [f"{key}={json.dumps(value)}" for key, value in space.fixed.items()]
    searched = {setting.partition("=")[0] for setting in settings} & set(space.parameters)
    if searched:
        raise SchnRayError(
            f"--set {min(searched)}: the space searches that setting; remove it from one of them"
        )
    return train_config(preset or space.preset, file, (*fixed, *settings), method, given)


def check_space(space: Space, base: TrainConfig) -> None:
    """Refuse a space that would fail in some trial, or that makes no sense.

    Args:
        space: the search space.
        base: what the trials have in common.

    Raises:
        SchnRayError: with the parameter and what is wrong with it.
    """
    if not space.parameters:
        raise SchnRayError("the space has no parameters: there is nothing to search")
    seen: dict[str, Domain] = {}
    for key, domain in space.parameters.items():
        _check_key(key, space, base)
        _check_bounds(key, domain)
        _check_type(key, domain, base)
        _check_values(key, domain, base)
        _check_conditions(key, domain, seen)
        seen[key] = domain
    _check_objectives(space)
    _check_pruning(space, base)
    for number in range(len(space.start)):
        starting_point(space, base, number)


def starting_point(space: Space, base: TrainConfig, number: int) -> Values:
    """Return the values of one of the first trials.

    Args:
        space: the search space.
        base: has the value of each parameter that the starting point leaves out.
        number: position in ``space.start``.

    Raises:
        SchnRayError: a key that is not in the space, or a value that is not in its domain.
    """
    point = space.start[number]
    for key in point:
        if key not in space.parameters:
            hint = nearest(key, list(space.parameters))
            raise SchnRayError(f"start[{number}]: '{key}' is not a parameter of the space{hint}")
    values: Values = {}
    for key, domain in space.parameters.items():
        if not domain.active(values):
            continue
        value = point.get(key, value_of(base, key))
        if not domain.holds(value):
            origin = "as given" if key in point else "its value without the search"
            raise SchnRayError(
                f"start[{number}]: {key} = {value!r}, {origin}, is not in {domain}: widen that, or "
                "give another value"
            )
        values[key] = value
    return values


def with_values(base: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return the config of a trial.

    Args:
        base: what the trials have in common.
        values: dotted key -> value.

    Raises:
        SchnRayError: a value that the config refuses.
    """
    changed = base.model_dump()
    for key, value in values.items():
        *sections, name = key.split(".")
        section = changed
        for part in sections:
            section = section[part]
        section[name] = value
    return config_from(changed)


def value_of(config: TrainConfig, key: str) -> Any:
    """Return one setting, as it is in JSON.

    Args:
        config: the settings.
        key: dotted.
    """
    value: Any = config.model_dump(mode="json")
    for part in key.split("."):
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


def _as_list(allowed: Any) -> list[Any]:
    return list(allowed) if isinstance(allowed, list | tuple) else [allowed]


def _check_key(key: str, space: Space, base: TrainConfig) -> None:
    known = keys(type(base))
    if key not in known:
        raise SchnRayError(
            f"unknown setting '{key}' of method {base.method.name}{nearest(key, known)}"
        )
    if key == "seed":
        raise SchnRayError(
            "seed cannot be searched: its best value is luck. Use --repeats to confirm the winner "
            "on other seeds"
        )
    if key in space.fixed:
        raise SchnRayError(f"{key} is both in parameters and fixed; remove it from one of them")


def _check_bounds(key: str, domain: Domain) -> None:
    if domain.choices is not None:
        distinct = {json.dumps(choice) for choice in domain.choices}
        if len(distinct) < 2 or len(distinct) < len(domain.choices):
            raise SchnRayError(f"{key}: expected two or more different choices, got {domain}")
        return
    low, high = domain.ends
    if not low < high:
        raise SchnRayError(f"{key}: the range {domain} is empty; expected [low, high]")
    if domain.log is not None and low <= 0:
        raise SchnRayError(f"{key}: a range on a logarithmic scale begins above 0, got {domain}")
    if domain.integer is None and domain.step != 1:
        raise SchnRayError(f"{key}: 'step' belongs to 'integer', not to {domain.kind}")
    if domain.integer is not None and (high - low) % domain.step:
        raise SchnRayError(f"{key}: steps of {domain.step} from {low} do not end at {high}")


def _check_type(key: str, domain: Domain, base: TrainConfig) -> None:
    types = _types(key, type(base))
    if domain.kind in ("log", "linear") and float not in types:
        kind = "integer" if int in types else "choices"
        raise SchnRayError(f"{key} is not a real number: give it '{kind}', not '{domain.kind}'")
    if domain.kind == "integer" and not types & {int, float}:
        raise SchnRayError(f"{key} is not a number: give it 'choices', not 'integer'")


def _check_values(key: str, domain: Domain, base: TrainConfig) -> None:
    for value in domain.ends:
        try:
            read = value_of(with_values(base, {key: value}), key)
        except SchnRayError as error:
            raise SchnRayError(f"{key}: {domain}: {error}") from error
        if not same_value(read, value):  # such as "8", which a config would read as 8
            raise SchnRayError(f"{key}: got {value!r}, which a config reads as {read!r}")


def _check_conditions(key: str, domain: Domain, earlier: Mapping[str, Domain]) -> None:
    for other, allowed in domain.when.items():
        if other not in earlier:
            raise SchnRayError(
                f"{key}: 'when' names {other}, which is not a parameter above it in the space"
            )
        if earlier[other].choices is None:
            raise SchnRayError(f"{key}: 'when' names {other}, which has no choices")
        for value in _as_list(allowed):
            if not earlier[other].holds(value):
                raise SchnRayError(
                    f"{key}: 'when' wants {other} = {value!r}, which is not in {earlier[other]}"
                )


def _check_objectives(space: Space) -> None:
    for name in space.objectives:
        if name not in OBJECTIVES:
            raise SchnRayError(
                f"objective '{name}' is not measured{nearest(name, list(OBJECTIVES)) or '.'} "
                f"There are: {', '.join(OBJECTIVES)}"
            )
        decides = OBJECTIVES[name].decided_by
        if decides and not any(key.startswith(decides) for key in space.parameters):
            raise SchnRayError(
                f"objective '{name}' is the same in every trial: the space varies none of "
                + ", ".join(decides)
            )
    if len(set(space.objectives)) < len(space.objectives):
        raise SchnRayError(f"objectives {', '.join(space.objectives)}: one is named twice")
    if VALIDATION_MAP not in space.objectives:
        raise SchnRayError(
            f"objectives: expected {VALIDATION_MAP} among them, as the others measure only cost"
        )


def _check_pruning(space: Space, base: TrainConfig) -> None:
    if space.pruning is None:
        return
    most = max(
        space.parameters["schedule.iterations"].ends
        if "schedule.iterations" in space.parameters
        else (base.schedule.iterations,)
    )
    if space.pruning.grace >= most:
        raise SchnRayError(
            f"pruning.grace = {space.pruning.grace}, but a trial has {most} iterations: "
            "none would be stopped"
        )


def _types(key: str, model: type[BaseModel]) -> set[type]:
    *sections, name = key.split(".")
    for section in sections:
        inner = model.model_fields[section].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        model = inner
    return _plain_types(model.model_fields[name].annotation) - {NoneType}


def _plain_types(annotation: Any) -> set[type]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _plain_types(get_args(annotation)[0])
    if origin is Literal:
        return {type(value) for value in get_args(annotation)}
    if origin is Union or str(type(annotation)) == "<class 'types.UnionType'>":
        return set().union(*(_plain_types(part) for part in get_args(annotation)))
    return {origin or annotation}
