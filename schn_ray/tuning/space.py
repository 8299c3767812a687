"""A search space: which settings may vary, within which bounds, and for which objectives.

A space is compared with the method's ``TrainConfig`` when it is read, before any process starts. A
key, a bound or a choice that training would refuse is refused at once, with the line to change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from types import NoneType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, model_validator

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.settings import Count, Section, keys, read_yaml, validated
from schn_ray.training.config import TrainConfig, train_config
from schn_ray.tuning.constraints import Constraint, read_constraint
from schn_ray.tuning.objectives import BITS, OBJECTIVES, VALIDATION_MAP
from schn_ray.tuning.trial_settings import (
    METHOD_NAME,
    OF_METHOD,
    TrialSettings,
    Values,
    is_same_setting,
    same_value,
    setting_of,
    value_of,
    with_values,
)

SPACES = Path(__file__).parent / "spaces"
METHOD_SPACE, METHODS_SPACE = "method", "methods"
GENERATED = (METHOD_SPACE, METHODS_SPACE)  # see ``method_spaces``
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
    """Asynchronous successive halving, see ``halving``.

    After ``grace``, ``grace * factor``, ``grace * factor**2`` ... iterations, a trial goes on if it
    is among the best 1 / ``factor`` of the trials that have reached that iteration.
    """

    grace: Count = 1
    factor: Annotated[int, Field(ge=2)] = 3

    def rung(self, iteration: int) -> int:
        """Return the rung that a trial has come to by an iteration; 0 before the first.

        >>> [Pruning(grace=2, factor=3).rung(i) for i in range(1, 9)]
        [0, 2, 2, 2, 2, 6, 6, 6]
        """
        rung, further = 0, self.grace
        while further <= iteration:
            rung, further = further, further * self.factor
        return rung


class Space(Section):
    """A search space, as its file has it.

    Attributes:
        preset: the preset that all other settings are taken from.
        fixed: further settings, by dotted key.
        parameters: dotted key -> its domain. With ``method.name`` among them, ``KEY@METHOD`` is the
            setting of trials of that method only.
        start: the first trials; a setting that one leaves out keeps its value without a search.
        objectives: names in ``objectives.OBJECTIVES``.
        constraints: figure -> bound, such as ``{"bits": "<= 64"}``, of the same names.
        pruning: stops hopeless trials early.
        sampler: of Optuna. ``tpe`` also works with several objectives; ``nsga2`` needs hundreds of
            trials.
        each_method: where the space chooses among methods: how many trials each has before the
            sampler chooses; its starting points are the first of them.
        close: a trial whose validation mAP is this close to the best is also a candidate to win.
    """

    preset: str | None = None
    fixed: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Domain]
    start: tuple[dict[str, Any], ...] = ({},)
    objectives: tuple[str, ...] = (VALIDATION_MAP,)
    constraints: dict[str, str] = Field(default_factory=dict)
    pruning: Pruning | None = None
    sampler: Literal["tpe", "nsga2", "random"] = "tpe"
    each_method: Count = 6
    close: Annotated[float, Field(ge=0)] = 0.01

    @model_validator(mode="before")
    @classmethod
    def _of_methods(cls, values: Any) -> Any:
        """Give each setting of one method the condition that its name says."""
        parameters = values.get("parameters") if isinstance(values, Mapping) else None
        if not isinstance(parameters, Mapping):
            return values
        return {**values, "parameters": {k: _conditioned(k, d) for k, d in parameters.items()}}

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that the space chooses among; empty where all trials have the same."""
        domain = self.parameters.get(METHOD_NAME)
        return () if domain is None or domain.choices is None else domain.choices

    @property
    def multi_objective(self) -> bool:
        """Whether there is more than one objective, and so no single best trial."""
        return len(self.objectives) > 1

    @property
    def limits(self) -> tuple[Constraint, ...]:
        """The constraints, read."""
        return tuple(read_constraint(figure, bound) for figure, bound in self.constraints.items())

    @property
    def measured(self) -> tuple[str, ...]:
        """The figures of a trial that the search needs."""
        return tuple(dict.fromkeys((*self.objectives, *self.constraints)))


def _conditioned(parameter: str, domain: Any) -> Any:
    _, of_method, method = parameter.partition(OF_METHOD)
    if not of_method or not isinstance(domain, Mapping):
        return domain
    return {**domain, "when": {METHOD_NAME: method} | (domain.get("when") or {})}


def read_space(name: str) -> Space:
    """Read a space that comes with the package, or a YAML file.

    Args:
        name: of the space, or path of the file.

    Raises:
        SchnRayError: no such space, or a file that is not a space.

    >>> read_space("quick").objectives
    ('validation_map',)
    """
    path = Path(name)
    if name in space_names():
        path = SPACES / f"{name}.yaml"
    elif not path.is_file():
        hint = nearest(name, [*GENERATED, *space_names()]) or "."
        raise SchnRayError(
            f"no search space '{name}'{hint} Name a YAML file, or one of: "
            + ", ".join([*GENERATED, *space_names()])
        )
    return validated(Space, read_yaml(path))


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
) -> TrialSettings:
    """Return the settings that all trials have in common.

    Later ones win: the preset, the config file, the space's ``fixed``, ``settings``. One that is
    named ``KEY@METHOD`` is for trials of that method.

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
    fixed = (f"{key}={json.dumps(value)}" for key, value in space.fixed.items())
    _require_free(space, file, settings, method)
    return settings_of_methods(
        space.methods or (method,), preset or space.preset, file, (*fixed, *settings), given
    )


def settings_of_methods(
    methods: Iterable[str | None],
    preset: str | None,
    file: Path | None,
    settings: tuple[str, ...],
    given: Mapping[str, Any] | None = None,
) -> TrialSettings:
    """Return the settings of trials of some methods, before any search.

    Args:
        methods: their names; None: see ``train_config``.
        preset: see ``base_config``, as the others.
        file: a config file, or None.
        settings: as ``--set`` takes them.
        given: nested settings that follow from the store.

    Raises:
        SchnRayError: a setting that ``train_config`` refuses, or that is for no method of these.
    """
    names = list(methods)
    for line in settings:
        _, of_method, name = line.partition("=")[0].partition(OF_METHOD)
        if of_method and name not in names:
            raise SchnRayError(f"--set {line}: the search has no method '{name}'")
    configs = [train_config(preset, file, _lines_of(settings, name), name, given) for name in names]
    return TrialSettings({config.method.name: config for config in configs})


def _lines_of(settings: Iterable[str], method: str | None) -> tuple[str, ...]:
    """Return the settings that a method's trials have."""
    parts = [(line, *line.partition("=")) for line in settings]
    return tuple(
        f"{setting_of(key)}{equals}{value}"
        for _, key, equals, value in parts
        if OF_METHOD not in key or key.endswith(f"{OF_METHOD}{method}")
    )


def _require_free(
    space: Space, file: Path | None, settings: Iterable[str], method: str | None
) -> None:
    """Refuse settings of the command that the space searches."""
    for given in (line.partition("=")[0] for line in settings):
        if any(is_same_setting(given, key) for key in space.parameters):
            raise SchnRayError(
                f"--set {given}: the space searches that setting; remove it from one of them"
            )
    if not space.methods:
        return
    if method is not None:
        raise SchnRayError(
            f"--method {method}: the space chooses the method, of {', '.join(space.methods)}"
        )
    if file is not None and "method" in read_yaml(file):
        raise SchnRayError(
            f"{file}: the section method is one method's, and the space chooses among "
            f"{', '.join(space.methods)}; remove the section"
        )


def check_space(space: Space, base: TrialSettings) -> None:
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
        _check_bounds(key, domain)
        _check_conditions(key, domain, seen)
        for config in _configs(key, domain, base):
            _check_key(key, space, config)
            _check_type(key, domain, config)
            _check_values(key, domain, config)
        seen[key] = domain
    _check_objectives(space)
    _check_pruning(space, base)
    _check_constraints(space, base)
    for number in range(len(space.start)):
        starting_point(space, base, number)


def _configs(key: str, domain: Domain, base: TrialSettings) -> list[TrainConfig]:
    """Return the configs of the methods whose trials have a parameter."""
    if key == METHOD_NAME:
        return []  # they have been built
    named = _as_list(domain.when.get(METHOD_NAME, list(base.by_method)))
    return [config for name, config in base.by_method.items() if name in named]


def starting_point(space: Space, base: TrialSettings, number: int) -> Values:
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
        value = point.get(key, value_of(base.of(values), key))
        if not domain.holds(value):
            origin = "as given" if key in point else "its value without the search"
            raise SchnRayError(
                f"start[{number}]: {key} = {value!r}, {origin}, is not in {domain}: widen that, or "
                "give another value"
            )
        values[key] = value
    return values


def _as_list(allowed: Any) -> list[Any]:
    return list(allowed) if isinstance(allowed, list | tuple) else [allowed]


def _check_key(key: str, space: Space, base: TrainConfig) -> None:
    known, setting = keys(type(base)), setting_of(key)
    if setting not in known:
        raise SchnRayError(
            f"unknown setting '{setting}' of method {base.method.name}{nearest(setting, known)}"
        )
    if setting == "seed":
        raise SchnRayError(
            "seed cannot be searched: its best value is luck. Use --repeats to confirm the winner "
            "on other seeds"
        )
    if any(is_same_setting(key, other) for other in space.fixed):
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


def _check_type(key: str, domain: Domain, config: TrainConfig) -> None:
    types = _types(key, type(config))
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


def _check_constraints(space: Space, base: TrialSettings) -> None:
    for limit in space.limits:
        if limit.figure != BITS:
            continue
        first = base.config(starting_point(space, base, 0)).bits
        if limit.excess(first) > 0:
            raise SchnRayError(
                f"the first trial, which the others are compared with, has {first} bits, but the "
                f"constraint is {limit}: give start another value of bits, or the search --set "
                "bits=..."
            )


def _check_pruning(space: Space, base: TrialSettings) -> None:
    if space.pruning is None:
        return
    if "schedule.iterations" in space.parameters:
        most = max(space.parameters["schedule.iterations"].ends)
    else:
        planned = (base.iterations({METHOD_NAME: name}) for name in base.by_method)
        most = max((count for count in planned if count), default=0)
    if space.pruning.grace >= most:
        raise SchnRayError(
            f"pruning.grace = {space.pruning.grace}, but a trial has {most} iterations: "
            "none would be stopped"
        )


def _types(key: str, model: type[BaseModel]) -> set[type]:
    *sections, name = setting_of(key).split(".")
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
