"""Manifests with other values, and a digest that fits them."""

import json
from pathlib import Path
from typing import Any

from schn_ray.core.manifest import MANIFEST, Manifest


def edited(data: bytes, **values: Any) -> bytes:
    """Return a manifest's content with other values."""
    return json.dumps(Manifest(**(json.loads(data) | values)).to_json()).encode()


def edit_manifest(directory: Path, **values: Any) -> None:
    """Give the manifest of a directory other values."""
    file = directory / MANIFEST
    file.write_bytes(edited(file.read_bytes(), **values))
