"""Settings, described by the types and docstrings of their configs: for ``schn-ray settings``."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from schn_ray.core.settings import Searched, Section

REQUIRED = "required"
_TYPES = {bool: "true or false", int: "integer", float: "number", str: "text", NoneType: "null"}
_SIGNS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}


@dataclass(frozen=True)
class Setting:
    """One setting.

    Attributes:
        key: as ``--set`` takes it.
        default: its value without ``--set``; ``"required"`` if there is none.
        type: what its values are, in words.
        bounds: of its value, or of each value of a list; empty if there are none.
        searched: what ``tune --space method`` varies; empty if it does not vary it.
        meaning: from the docstring.
    """

    key: str
    default: Any
    type: str
    bounds: str
    searched: str
    meaning: str

    @property
    def default_text(self) -> str:
        """The default as ``--set`` takes it."""
        if isinstance(self.default, str):
            return self.default or "''"
        return json.dumps(self.default)

    @property
    def type_text(self) -> str:
        """Type and bounds."""
        return f"{self.type}, {self.bounds}" if self.bounds else self.type


def describe_settings(config: Section | type[Section], prefix: str = "") -> list[Setting]:
    """Describe all settings of a config, those of its sections by dotted names.

    Args:
        config: the config, whose values are the defaults; or its class.
        prefix: of every key.

    Returns:
        The settings, in the order of the fields.

    Example:
        >>> class Picture(Section):
        ...     '''How a picture is read.
        ...
        ...     Attributes:
        ...         width: in pixels.
        ...     '''
        ...
        ...     width: Annotated[int, FieldInfo(ge=1)] | None = None
        >>> (width,) = describe_settings(Picture, "picture.")
        >>> width.key, width.default_text, width.type_text, width.meaning
        ('picture.width', 'null', 'integer or null, >= 1', 'in pixels.')
    """
    model = config if isinstance(config, type) else type(config)
    meanings = _meanings(model)
    described: list[Setting] = []
    for name, field in model.model_fields.items():
        default = _default(field) if isinstance(config, type) else getattr(config, name)
        if isinstance(default, Section):
            described += describe_settings(default, f"{prefix}{name}.")
            continue
        kind, bounds = _described(field.annotation, field.metadata)
        searched = _searched(field.metadata)
        meaning = meanings.get(name, "")
        described.append(Setting(f"{prefix}{name}", default, kind, bounds, searched, meaning))
    return described


def settings_text(settings: Sequence[Setting]) -> str:
    """Return each setting with its meaning below it, for a terminal.

    Args:
        settings: as ``describe_settings`` returns them.
    """
    return "\n".join(
        f"  {s.key} = {s.default_text}  ({s.type_text}"
        + (f"; searched: {s.searched})\n" if s.searched else ")\n")
        + textwrap.indent(textwrap.fill(s.meaning.replace("``", ""), 90), " " * 6)
        for s in settings
    )


def settings_table(settings: Sequence[Setting]) -> str:
    """Return a table in Markdown.

    Args:
        settings: as ``describe_settings`` returns them.
    """
    lines = ["| setting | default | values | meaning |", "| --- | --- | --- | --- |"]
    lines += [
        f"| `{s.key}` | {code_cell(s.default_text)} | {s.type_text} | {cell(s.meaning)} |"
        for s in settings
    ]
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return a text for a cell of a table in Markdown.

    Args:
        text: of a docstring, perhaps with a bar, which would end the cell.
    """
    return text.replace("|", r"\|").replace("``", "`")


def code_cell(text: str) -> str:
    """Return a value for a cell of a table in Markdown.

    Args:
        text: the value; an empty one stays empty.
    """
    return f"`{cell(text)}`" if text else ""


def _default(field: FieldInfo) -> Any:
    return REQUIRED if field.is_required() else field.get_default(call_default_factory=True)


def _described(annotation: Any, metadata: Sequence[Any] = ()) -> tuple[str, str]:
    """Return the type in words, and the bounds that its annotations state."""
    limits = [text for mark in metadata for text in _limits(mark)]
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        inner = [mark for a in args[1:] for mark in getattr(a, "metadata", [a])]
        kind, bounds = _described(args[0], inner)
        return kind, bounds or _joined(limits)
    if origin is tuple:
        kind, bounds = _described(args[0])
        plural = "s" if kind in _TYPES.values() else ""
        return f"list of {kind}{plural}", bounds
    if origin in (Union, UnionType):
        kinds, bounds_of = zip(*map(_described, args), strict=True)
        return " or ".join(kinds), _joined([*limits, *filter(None, bounds_of)])
    if origin is Literal:
        return ", ".join(map(str, args)), ""
    return ("mapping" if origin is dict else _TYPES[annotation]), _joined(limits)


def _limits(mark: Any) -> list[str]:
    values = {name: getattr(mark, name, None) for name in _SIGNS}
    return [f"{_SIGNS[name]} {_text(value)}" for name, value in values.items() if value is not None]


def _joined(limits: Sequence[str]) -> str:
    """Return bounds as text: ``0 to 1`` where both are included."""
    least, *others = limits or [""]
    if least.startswith(">= ") and [limit[:3] for limit in others] == ["<= "]:
        return f"{least[3:]} to {others[0][3:]}"
    return ", ".join(limits)


def _searched(metadata: list[Any]) -> str:
    for mark in metadata:
        if isinstance(mark, Searched):
            given = {k: v for k, v in asdict(mark).items() if v is not None}
            texts = (f"{k} [{', '.join(map(_text, v))}]" for k, v in given.items())
            return ", ".join(texts) or "all choices"
    return ""


def _text(value: Any) -> str:
    # 10 and 10.0 are one annotation to Python, so either may be in it: they must read the same
    number = isinstance(value, float) or (isinstance(value, int) and not isinstance(value, bool))
    return f"{value:.15g}" if number else str(value)


def _meanings(config: type[Section]) -> dict[str, str]:
    """Return the meaning of each setting, as the docstrings of a config and its bases say it."""
    meanings: dict[str, str] = {}
    for base in reversed(config.__mro__):
        text = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")[2]
        for name, meaning in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE):
            meanings[name] = " ".join(meaning.split())
    return meanings
