"""The directories that verbs write: whole or not there, each with a manifest that says its origin.

``new_directory`` is for verbs that are quick enough to start over: they write beside and the
result is renamed into place. ``resumable_directory`` is for those that go on where they were
stopped: they write in place, their request first and their manifest last. Either way a directory
without ``manifest.json`` is unfinished, and no verb reads it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schn_ray import __version__
from schn_ray.core.atomic_files import sha256_file
from schn_ray.core.errors import SchnRayError

FORMAT = 2
MANIFEST = "manifest.json"
REQUEST = "request.json"
_RECORDED = ("torch", "torchvision", "ray", "numpy", "pyarrow", "faiss-cpu", "pillow")


@dataclass(frozen=True)
class Manifest:
    """What a finished directory is, and what made it.

    Attributes:
        kind: ``store``, ``run``, ``codes``, ``index`` or ``evaluation``.
        config: the settings of the verb.
        made_from: name of each input -> its fingerprint.
        counts: what the verb counted, such as rows and quarantined rows.
        files: name -> SHA-256 of every file in the directory.
        fingerprint: SHA-256 over kind, config, inputs and files; equal for equal content.
        format: version of the directory's layout.
        versions: of this package, Python and the libraries that the result depends on.
        sizes: name -> bytes of every file.
    """

    kind: str
    config: dict[str, Any]
    made_from: dict[str, Any]
    counts: dict[str, Any]
    files: dict[str, str]
    fingerprint: str
    format: int = FORMAT
    versions: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def is_finished(path: Path) -> bool:
    """Tell whether a directory has its manifest."""
    return (path / MANIFEST).is_file()


def read_manifest(path: Path, kind: str) -> Manifest:
    """Read the manifest of a finished directory.

    Raises:
        SchnRayError: no such directory, unfinished, of another kind, or of another format.
    """
    if not path.is_dir():
        raise SchnRayError(f"{path}: wanted a {kind} directory, but there is none")
    if not (path / MANIFEST).is_file():
        if (path / REQUEST).is_file():
            raise SchnRayError(f"{path} is unfinished: run the command that made it again")
        raise SchnRayError(f"{path}: wanted a {kind} directory, but it has no {MANIFEST}")
    try:
        values = json.loads((path / MANIFEST).read_text())
        found_format, found_kind = values["format"], values["kind"]
    except (ValueError, KeyError, TypeError) as error:
        raise SchnRayError(f"{path / MANIFEST} is damaged; make the {kind} again") from error
    if found_kind != kind:
        raise SchnRayError(f"{path} is a {found_kind} directory; wanted a {kind} directory")
    if found_format != FORMAT:
        made_by = values.get("versions", {}).get("schn-ray", "unknown")
        raise SchnRayError(
            f"{path} has format {found_format} (made by schn-ray {made_by}), this is schn-ray "
            f"{__version__} with format {FORMAT}: make the {kind} again, or use that version"
        )
    try:
        return Manifest(**values)
    except TypeError as error:
        raise SchnRayError(f"{path / MANIFEST} is damaged; make the {kind} again") from error


def verify_files(path: Path, manifest: Manifest) -> None:
    """Check every file against its SHA-256.

    Raises:
        SchnRayError: a file is missing or differs.
    """
    for name, expected in manifest.files.items():
        file = path / name
        if not file.is_file():
            raise SchnRayError(f"{file} is missing; make the {manifest.kind} again")
        if sha256_file(file) != expected:
            raise SchnRayError(f"{file} differs from its manifest; make the {manifest.kind} again")


def check_fingerprint(path: Path, manifest: Manifest) -> None:
    """Check that request and list of files are those that were written.

    Raises:
        SchnRayError: the manifest was changed by somebody else.
    """
    request = {key: getattr(manifest, key) for key in ("kind", "config", "made_from")}
    if _fingerprint(request, manifest.files) != manifest.fingerprint:
        raise SchnRayError(f"{path / MANIFEST} is damaged; make the {manifest.kind} again")


def _fingerprint(request: dict[str, Any], files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps([request, files], sort_keys=True).encode()).hexdigest()


def _versions() -> dict[str, str]:
    versions = {"schn-ray": __version__, "python": platform.python_version()}
    for name in _RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
