"""A search space: which settings may vary, between which bounds, and for which objectives.

A space is checked against ``TrainConfig`` when it is read, before any process starts: a key, a
bound or a choice that training would refuse is refused here, with the line to change.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from random import Random
from types import NoneType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, Field, model_validator

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.core.settings import Count, Section, keys, read_yaml, validated
from schn_ray.training.config import DEFAULT_PRESET, TrainConfig, train_config
from schn_ray.tuning.objectives import OBJECTIVES, VALIDATION_MAP

SPACES = Path(__file__).parent / "spaces"
Values = dict[str, Any]  # dotted key -> value
Kind = Literal["log", "linear", "integer", "choices"]


class Domain(Section):
    """What one setting may be: exactly one of the first four.

    Attributes:
        log: bounds of a number whose logarithm is drawn evenly.
        linear: bounds of a number.
        integer: bounds of a whole number, both ends included.
        choices: the values themselves.
        step: of ``integer``.
        when: another setting of the space -> the choices with which this one matters; with
            others it keeps the value that it had without the search.
    """

    log: tuple[float, float] | None = None
    linear: tuple[float, float] | None = None
    integer: tuple[int, int] | None = None
    choices: tuple[Any, ...] | None = None
    step: Count = 1
    when: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_kind(self) -> Domain:
        named = [k for k in get_args(Kind) if getattr(self, k) is not None]
        if len(named) != 1:
            raise ValueError(f"wanted one of {', '.join(get_args(Kind))}")
        return self

    @property
    def kind(self) -> Kind:
        """Which of the four it is."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        return next(k for k in kinds if getattr(self, k) is not None)

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values that the config is asked about: both bounds, or all choices."""
        return tuple(getattr(self, self.kind))

    def holds(self, value: Any) -> bool:
        """Tell whether a value lies in it."""
        if self.choices is not None:
            return any(same(value, choice) for choice in self.choices)
        low, high = self.ends
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        on_step = self.integer is None or (value - low) % self.step == 0
        return bool(low <= value <= high and on_step)

    def draw(self, generator: Random) -> Any:
        """Return a value at random, as evenly as its kind says."""
        if self.choices is not None:
            return generator.choice(self.choices)
        low, high = self.ends
        if self.integer is not None:
            return generator.randrange(low, high + 1, self.step)
        if self.log is not None:
            return math.exp(generator.uniform(math.log(low), math.log(high)))
        return generator.uniform(low, high)

    def active(self, chosen: Mapping[str, Any]) -> bool:
        """Tell whether it is to be drawn, given the values drawn before."""
        return all(
            key in chosen and any(same(chosen[key], v) for v in _listed(allowed))
            for key, allowed in self.when.items()
        )

    def __str__(self) -> str:
        shown = ", ".join(f"{end:g}" if isinstance(end, float) else f"{end}" for end in self.ends)
        return f"{self.kind} [{shown}]"


class Pruning(Section):
    """Asynchronous successive halving: after ``grace``, ``grace * factor`` ... iterations a trial
    goes on if it is among the best 1 / ``factor`` of those that came so far.
    """

    grace: Count = 1
    factor: Annotated[int, Field(ge=2)] = 3


class Space(Section):
    """A search space as its file has it.

    Attributes:
        preset: what everything else is set to.
        fixed: further settings, dotted keys.
        parameters: dotted key -> what it may be.
        start: the first trials; what one leaves out keeps its value without the search.
        objectives: names of ``objectives.OBJECTIVES``.
        pruning: whether hopeless trials are stopped early; with one objective only.
        sampler: of Optuna: TPE knows several objectives too, NSGA-II wants hundreds of trials.
        close: trials whose validation mAP is so near to the best are candidates to be confirmed.
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
    def several(self) -> bool:
        """Whether there are several objectives, and so no single best trial."""
        return len(self.objectives) > 1


def read_space(name: str) -> Space:
    """Read a space that comes with the package, by its name, or a YAML file.

    Raises:
        SchnRayError: no such space, or a file that is not one.
    """
    path = Path(name)
    if name in space_names():
        path = SPACES / f"{name}.yaml"
    elif not path.is_file():
        hint = nearest(name, space_names())
        raise SchnRayError(
            f"no search space '{name}'{hint} Name a YAML file, or one of: "
            + ", ".join(space_names())
        )
    return validated(Space, read_yaml(path))


def space_names() -> list[str]:
    """List the spaces that come with the package."""
    return sorted(path.stem for path in SPACES.glob("*.yaml"))


def base_config(
    space: Space, preset: str | None, file: Path | None, settings: tuple[str, ...]
) -> TrainConfig:
    """Return what all trials have in common: preset, file, the space's ``fixed``, ``--set``.

    Raises:
        SchnRayError: as ``config.load``.
    """
    fixed = [f"{key}={json.dumps(value)}" for key, value in space.fixed.items()]
    name = preset or space.preset or DEFAULT_PRESET
    searched = {setting.partition("=")[0] for setting in settings} & set(space.parameters)
    if searched:
        raise SchnRayError(
            f"--set {min(searched)}: the space searches that setting; remove it from one of them"
        )
    return train_config(name, file, (*fixed, *settings))


def check_space(space: Space, base: TrainConfig) -> None:
    """Refuse what would fail, or mean nothing, in some trial.

    Raises:
        SchnRayError: naming the parameter and what is wrong with it.
    """
    if not space.parameters:
        raise SchnRayError("the space has no parameters: there is nothing to search")
    seen: dict[str, Domain] = {}
    for key, domain in space.parameters.items():
        _check_key(key, space)
        _check_bounds(key, domain)
        _check_type(key, domain)
        _check_values(key, domain, base)
        _check_conditions(key, domain, seen)
        seen[key] = domain
    _check_objectives(space)
    _check_pruning(space, base)
    for number in range(len(space.start)):
        starting_point(space, base, number)


def starting_point(space: Space, base: TrainConfig, number: int) -> Values:
    """Return the values of a first trial: those named, the others as without the search.

    Raises:
        SchnRayError: a value that the space does not have.
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
            where = "given there" if key in point else "its value without the search"
            raise SchnRayError(
                f"start[{number}]: {key} = {value!r}, {where}, is not in {domain}: widen that, or "
                "give another value"
            )
        values[key] = value
    return values


def with_values(base: TrainConfig, values: Mapping[str, Any]) -> TrainConfig:
    """Return the config of a trial.

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
    return validated(TrainConfig, changed)


def value_of(config: TrainConfig, key: str) -> Any:
    """Return one setting by its dotted key, as JSON would have it."""
    value: Any = config.model_dump(mode="json")
    for part in key.split("."):
        value = value[part]
    return value


def same(a: Any, b: Any) -> bool:
    """Compare two settings as a config would: a tuple equals a list, but true is not 1."""
    return json.dumps(a) == json.dumps(b) or (_is_number(a) and _is_number(b) and a == b)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(allowed: Any) -> list[Any]:
    return list(allowed) if isinstance(allowed, list | tuple) else [allowed]


def _check_key(key: str, space: Space) -> None:
    if key not in keys(TrainConfig):
        raise SchnRayError(f"unknown setting '{key}'{nearest(key, keys(TrainConfig))}")
    if key == "seed":
        raise SchnRayError(
            "seed is no setting to search: its best value is luck. --repeats confirms the winner "
            "on other seeds"
        )
    if key in space.fixed:
        raise SchnRayError(f"{key} is both in parameters and fixed; remove it from one of them")


def _check_bounds(key: str, domain: Domain) -> None:
    if domain.choices is not None:
        distinct = {json.dumps(choice) for choice in domain.choices}
        if len(distinct) < 2 or len(distinct) < len(domain.choices):
            raise SchnRayError(f"{key}: wanted two or more different choices, got {domain}")
        return
    low, high = domain.ends
    if not low < high:
        raise SchnRayError(f"{key}: the range {domain} is empty; wanted [low, high]")
    if domain.log is not None and low <= 0:
        raise SchnRayError(f"{key}: a range on a logarithmic scale begins above 0, got {domain}")
    if domain.integer is None and domain.step != 1:
        raise SchnRayError(f"{key}: 'step' belongs to 'integer', not to {domain.kind}")
    if domain.integer is not None and (high - low) % domain.step:
        raise SchnRayError(f"{key}: steps of {domain.step} from {low} do not end at {high}")


def _check_type(key: str, domain: Domain) -> None:
    wanted = _types(key)
    if domain.kind in ("log", "linear") and float not in wanted:
        kind = "integer" if int in wanted else "choices"
        raise SchnRayError(f"{key} is not a real number: give it '{kind}', not '{domain.kind}'")
    if domain.kind == "integer" and not wanted & {int, float}:
        raise SchnRayError(f"{key} is not a number: give it 'choices', not 'integer'")


def _check_values(key: str, domain: Domain, base: TrainConfig) -> None:
    for value in domain.ends:
        try:
            taken = value_of(with_values(base, {key: value}), key)
        except SchnRayError as error:
            raise SchnRayError(f"{key}: {domain}: {error}") from error
        if not same(taken, value):  # such as "8", which a config would read as 8
            raise SchnRayError(f"{key}: got {value!r}, which a config reads as {taken!r}")


def _check_conditions(key: str, domain: Domain, before: Mapping[str, Domain]) -> None:
    for other, allowed in domain.when.items():
        if other not in before:
            raise SchnRayError(
                f"{key}: 'when' names {other}, which is not a parameter above it in the space"
            )
        if before[other].choices is None:
            raise SchnRayError(f"{key}: 'when' names {other}, which has no choices")
        for value in _listed(allowed):
            if not before[other].holds(value):
                raise SchnRayError(
                    f"{key}: 'when' wants {other} = {value!r}, which is not in {before[other]}"
                )


def _check_objectives(space: Space) -> None:
    for name in space.objectives:
        if name not in OBJECTIVES:
            raise SchnRayError(
                f"objective '{name}' is not measured{nearest(name, list(OBJECTIVES))} "
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
        raise SchnRayError(f"objectives: wanted {VALIDATION_MAP} among them: the others only cost")


def _check_pruning(space: Space, base: TrainConfig) -> None:
    if space.pruning is None:
        return
    if space.several:
        raise SchnRayError(
            "pruning wants one objective: with several, no trial is hopeless by one figure alone. "
            "Remove 'pruning', or all objectives but one"
        )
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


def _types(key: str) -> set[type]:
    model: type[BaseModel] = TrainConfig
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
