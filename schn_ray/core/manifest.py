"""The manifest of a finished directory: its kind, settings, inputs, and the hash of every file.

``directories`` writes it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schn_ray.core.atomic_files import sha256_file
from schn_ray.core.documents import BadDocument, parse_json
from schn_ray.core.errors import SchnRayError
from schn_ray.core.version import __version__

FORMAT = 2
MANIFEST = "manifest.json"
REQUEST = "request.json"
_RECORDED = ("torch", "torchvision", "ray", "numpy", "pyarrow", "faiss-cpu", "pillow")


@dataclass(frozen=True)
class Manifest:
    """What a finished directory contains, and how it was made.

    Attributes:
        kind: such as ``store``, ``run``, ``codes``, ``index`` or ``evaluation``.
        config: the settings of the verb.
        made_from: name of each input -> its fingerprint.
        counts: what the verb counted, such as rows and quarantined rows.
        files: path of every file, relative to the directory -> SHA-256 in hexadecimal.
        fingerprint: SHA-256 over kind, config, inputs and files; equal for equal content.
        format: version of the directory's layout.
        versions: of this package, Python and the libraries that the result depends on.
        sizes: path of every file -> size in bytes.
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
    """Tell whether a directory has its manifest.

    Args:
        path: the directory.
    """
    return (path / MANIFEST).is_file()


def read_manifest(path: Path, kind: str) -> Manifest:
    """Read the manifest of a finished directory.

    Args:
        path: the directory.
        kind: the kind that it must have.

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
        values = parse_json((path / MANIFEST).read_bytes(), str(path / MANIFEST))
        layout, actual_kind = values["format"], values["kind"]
    except (BadDocument, KeyError, TypeError) as error:
        raise SchnRayError(f"{path / MANIFEST} is damaged; make the {kind} again") from error
    if actual_kind != kind:
        raise SchnRayError(f"{path} is a {actual_kind} directory; wanted a {kind} directory")
    if layout != FORMAT:
        made_by = values.get("versions", {}).get("schn-ray", "unknown")
        raise SchnRayError(
            f"{path} has format {layout} (made by schn-ray {made_by}), this is schn-ray "
            f"{__version__} with format {FORMAT}: make the {kind} again, or use that version"
        )
    try:
        return Manifest(**values)
    except TypeError as error:
        raise SchnRayError(f"{path / MANIFEST} is damaged; make the {kind} again") from error


def verify_files(path: Path, manifest: Manifest) -> None:
    """Check every file against its SHA-256.

    Args:
        path: the directory.
        manifest: of the directory.

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
    """Check that request and list of files are those that the manifest was written with.

    Args:
        path: the directory.
        manifest: of the directory.

    Raises:
        SchnRayError: the manifest was changed afterwards.
    """
    request = {key: getattr(manifest, key) for key in ("kind", "config", "made_from")}
    if request_fingerprint(request, manifest.files) != manifest.fingerprint:
        raise SchnRayError(f"{path / MANIFEST} is damaged; make the {manifest.kind} again")


def request_fingerprint(request: dict[str, Any], files: dict[str, str]) -> str:
    """Return the fingerprint of a directory: SHA-256 in hexadecimal over request and files.

    Args:
        request: kind, config and inputs.
        files: name -> SHA-256 of every file.
    """
    return hashlib.sha256(json.dumps([request, files], sort_keys=True).encode()).hexdigest()


def library_versions() -> dict[str, str]:
    """Return the versions of this package, Python and the installed libraries that matter."""
    versions = {"schn-ray": __version__, "python": platform.python_version()}
    for name in _RECORDED:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
