"""Load and check settings: one frozen model per verb, from presets, YAML files and ``key=value``.

Only a verb sees its whole config. The functions that it calls take plain arguments or one section.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schn_ray.core.documents import parse_yaml
from schn_ray.core.errors import SchnRayError, nearest

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """A frozen group of settings; an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False
    )


@dataclass(frozen=True)
class Searched:
    """Marks a setting that a search may vary, as metadata of its annotation.

    Without any attribute, the choices are those of the setting's ``Literal``.

    Attributes:
        log: bounds of a number; its logarithm is drawn uniformly.
        linear: bounds of a number that is drawn uniformly.
        integer: bounds of a whole number, both included.
        choices: the values themselves.
    """

    log: tuple[float, float] | None = None
    linear: tuple[float, float] | None = None
    integer: tuple[int, int] | None = None
    choices: tuple[Any, ...] | None = None


ConfigT = TypeVar("ConfigT", bound=Section)


def load_settings(
    model: type[ConfigT],
    file: Path | None = None,
    settings: tuple[str, ...] = (),
    base: Mapping[str, Any] | None = None,
) -> ConfigT:
    """Build a config: its defaults, then ``base``, then a YAML file, then ``key=value`` settings.

    Args:
        model: the config's class.
        file: a YAML file with the same keys.
        settings: such as ``"method.adversarial=0"``; values are read as YAML.
        base: nested values that file and settings may override, such as a preset's.

    Returns:
        The frozen config.

    Raises:
        SchnRayError: an unknown key or a bad value; the error names the nearest known key.
    """
    values = merged({}, base or {})
    if file is not None:
        merged(values, read_yaml(file))
    for setting in settings:
        merged(values, parse_setting(setting))
    return validated(model, values)


def validated(model: type[ConfigT], values: dict[str, Any]) -> ConfigT:
    """Build a config from nested values.

    Args:
        model: the config's class.
        values: nested values by name.

    Raises:
        SchnRayError: an unknown key or a bad value, a line each.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise SchnRayError("\n".join(_complaint(model, e) for e in error.errors())) from error


def keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """List the dotted names of all settings.

    Args:
        model: the config's class.
        prefix: of every name.

    Example:
        >>> class Picture(Section):
        ...     width: int = 8
        >>> keys(Picture)
        ['width']
    """
    names: list[str] = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            names += keys(inner, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def flattened(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the leaves of nested values by their dotted names.

    Args:
        nested: name -> value, or a mapping of the same kind.
        prefix: of every name.

    Example:
        >>> flattened({"seed": 0, "head": {"kind": "mlp"}})
        {'seed': 0, 'head.kind': 'mlp'}
    """
    leaves: dict[str, Any] = {}
    for name, value in nested.items():
        if isinstance(value, Mapping):
            leaves |= flattened(value, f"{prefix}{name}.")
        else:
            leaves[prefix + name] = value
    return leaves


def parse_workers(text: str) -> tuple[int, int]:
    """Read the option ``--workers``: a number, or a range.

    Args:
        text: such as ``4``, or ``2:8`` for at least 2 and at most 8.

    Returns:
        The least and the largest number of workers.

    Raises:
        SchnRayError: neither a number nor a range.

    Example:
        >>> parse_workers("4"), parse_workers("2:8")
        ((4, 4), (2, 8))
    """
    least, colon, most = text.partition(":")
    if least.isdecimal() and (most.isdecimal() or not colon):
        bounds = int(least), int(most or least)
        if 1 <= bounds[0] <= bounds[1]:
            return bounds
    raise SchnRayError(f"--workers {text}: wanted a number such as 4, or a range such as 2:8")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of ``key: value`` lines.

    Args:
        path: of the file. Numbers may be written as ``1e-3``.

    Raises:
        SchnRayError: there is no such file, or it has other content.
    """
    if not path.is_file():
        raise SchnRayError(f"no config file {path}")
    values = parse_yaml(path.read_bytes(), str(path))
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SchnRayError(f"{path}: wanted 'key: value' lines, got a {type(values).__name__}")
    return values


def parse_setting(setting: str) -> dict[str, Any]:
    """Read one ``--set``: ``key=value``, with a dotted key.

    Args:
        setting: such as ``"schedule.iterations=10"``; the value is read as YAML.

    Returns:
        Nested values.

    Raises:
        SchnRayError: no ``key=value``.
    """
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise SchnRayError(f"--set {setting}: wanted key=value, such as --set bits=48")
    nested = parse_yaml(value, f"--set {setting}: the value")
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return dict(nested)


def merged(into: dict[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Overwrite nested values with new ones.

    Args:
        into: the values to overwrite; changed in place, and returned.
        new: nested values; keys that they lack are unchanged.

    Example:
        >>> merged({"loss": {"cycle": 1, "hash": 1}}, {"loss": {"cycle": 0}})
        {'loss': {'cycle': 0, 'hash': 1}}
    """
    for key, value in new.items():
        if isinstance(value, Mapping):
            into[key] = merged(dict(into.get(key) or {}), value)
        else:
            into[key] = value
    return into


def _complaint(model: type[BaseModel], error: Any) -> str:
    key = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown setting '{key}'{nearest(key, keys(model))}"
    if not key and error["type"] == "value_error":  # of several settings, which it names itself
        return str(error["ctx"]["error"])
    return f"setting '{key}': {error['msg']}, got {error['input']!r}"
