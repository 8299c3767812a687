"""Lines of JSON that carry their own SHA-256, for files that no manifest lists yet."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from schn_ray.core.documents import BadDocument, parse_json

_DIGEST = "sha256"  # of the rest of the line


def checked_line(values: dict[str, Any]) -> str:
    """Return values as a line of JSON with its digest.

    Args:
        values: plain values, without a key ``sha256``.

    Example:
        >>> parse_checked_line(checked_line({"seed": 3}), "a line")
        {'seed': 3}
    """
    return json.dumps(values | {_DIGEST: _digest_of(values)}) + "\n"


def parse_checked_line(line: str | bytes, where: str) -> dict[str, Any]:
    """Return the values of a line.

    Args:
        line: as ``checked_line`` returned it.
        where: what the line is, for the error.

    Raises:
        BadDocument: it is damaged.
    """
    values = parse_json(line, where)
    if not isinstance(values, dict) or values.pop(_DIGEST, None) != _digest_of(values):
        raise BadDocument(f"{where} is damaged")
    return values


def _digest_of(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
