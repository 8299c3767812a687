"""YAML and JSON from outside: read with limits, so that no file can hang or crash a verb.

A file may be small and still expand to gigabytes (aliases within aliases) or recurse until Python
gives up. Both formats silently take the last of two equal keys. All of that is refused here, in
one place for settings, model files, manifests, requests and annotation files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable
from typing import Any

import yaml

from schn_ray.core.errors import SchnRayError

MOST_YAML_BYTES = 1 << 20
MOST_DEPTH = 64


class BadDocument(SchnRayError):
    """Text that is not the YAML or JSON that was expected, or goes beyond a limit."""


def parse_yaml(data: str | bytes, name: str) -> Any:
    """Parse YAML; numbers such as ``1e-3`` are numbers.

    Args:
        data: the text, or its UTF-8 bytes.
        name: where it comes from, for errors.

    Returns:
        Plain values.

    Raises:
        BadDocument: not YAML, an alias, a repeated key, too large or too deeply nested.

    >>> parse_yaml("rate: 1e-3", "settings")
    {'rate': 0.001}
    """
    if len(data) > MOST_YAML_BYTES:
        raise BadDocument(f"{name} has {len(data):,} bytes; at most {MOST_YAML_BYTES:,} are read")
    try:
        return yaml.load(data, Loader=_Loader)
    except RecursionError as error:
        raise _too_deep(name) from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError) as error:
        raise BadDocument(f"{name} is not YAML that can be read: {error}") from error


def parse_json(data: str | bytes, name: str) -> Any:
    """Parse JSON, strictly: no ``NaN`` or ``Infinity``, no key twice in an object.

    Args:
        data: the text, or its UTF-8 bytes.
        name: where it comes from, for errors.

    Returns:
        Plain values.

    Raises:
        BadDocument: not JSON, a repeated key, or too deeply nested.

    >>> parse_json('{"bits": 32}', "manifest.json")
    {'bits': 32}
    """
    try:
        return json.loads(data, object_pairs_hook=_object, parse_constant=_no_constant)
    except RecursionError as error:
        raise _too_deep(name) from error
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError are ones
        raise BadDocument(f"{name} is not JSON that can be read: {error}") from error


def _too_deep(name: str) -> BadDocument:
    return BadDocument(f"{name} is nested too deeply to be read")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError(f"the key {_repeated(key for key, _ in pairs)!r} comes twice")
    return values


def _repeated(keys: Iterable[Hashable]) -> Hashable:
    """Return the first key that comes again, None where none does."""
    seen: set[Hashable] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None


def _no_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number that JSON knows")


class _Loader(yaml.SafeLoader):
    """YAML's safe loader without aliases, repeated keys and deep nesting."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed", mark)
        self.depth += 1
        if self.depth > MOST_DEPTH:
            mark = self.peek_event().start_mark
            problem = f"nested more than {MOST_DEPTH} deep"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        values = super().construct_mapping(node, deep)
        if len(values) < len(node.value):
            key = _repeated(self.construct_object(key, deep=True) for key, _ in node.value)
            problem = f"the key {key!r} comes twice"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return values


# YAML 1.1 reads 1e-3 as text; people who set a learning rate mean the number
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9][0-9_]*(\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)
