"""The manifest of a finished directory: its kind, settings, inputs, and the hash of every file.

``directories`` writes it.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from schn_ray.core.documents import BadDocument, parse_json
from schn_ray.core.errors import SchnRayError
from schn_ray.core.version import __version__

_FORMAT = 3
_FORMATS = {"codes": 4, "evaluation": 4}  # kinds whose layout changed since
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
        format: version of the layout of such directories, see ``format_of``.
        versions: of this package, Python and the libraries that the result depends on.
        sizes: path of every file -> size in bytes.
        digest: SHA-256 of all of the above, so that damage to the manifest itself is noticed.
    """

    kind: str
    config: dict[str, Any]
    made_from: dict[str, Any]
    counts: dict[str, Any]
    files: dict[str, str]
    fingerprint: str
    format: int = _FORMAT
    versions: dict[str, str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    digest: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the manifest as a JSON object with its digest."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values | {"digest": _digest_of(values)}


def format_of(kind: str) -> int:
    """Return the version of the layout of a kind of directory.

    Args:
        kind: see ``Manifest``.

    Example:
        >>> format_of("store"), format_of("codes")
        (3, 4)
    """
    return _FORMATS.get(kind, _FORMAT)


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
        raise SchnRayError(f"{path}: wanted {_a(kind)} directory, but there is none")
    if not (path / MANIFEST).is_file():
        if (path / REQUEST).is_file():
            raise SchnRayError(f"{path} is unfinished: run the command that made it again")
        if (path / kind / MANIFEST).is_file():  # an album of ``build``
            raise SchnRayError(f"{path} is no {kind}, but {path / kind} is one: name that")
        raise SchnRayError(f"{path}: wanted {_a(kind)} directory, but it has no {MANIFEST}")
    return parse_manifest((path / MANIFEST).read_bytes(), path, kind)


def parse_manifest(data: bytes, path: Path | str, kind: str | None = None) -> Manifest:
    """Parse a manifest, and compare it with its own digest.

    Args:
        data: the content of ``manifest.json``.
        path: of the directory, for errors.
        kind: the kind that it must have; by default, any.

    Raises:
        SchnRayError: damaged or edited, of another kind, or of another format.
    """
    file, made = f"{path}/{MANIFEST}", kind or "directory"
    try:
        values = parse_json(data, file)
        layout, actual_kind = values["format"], str(values["kind"])
    except (BadDocument, KeyError, TypeError) as error:
        raise SchnRayError(f"{file} is damaged; make the {made} again") from error
    if layout != (expected := format_of(actual_kind)):
        versions = values.get("versions")
        by = versions.get("schn-ray", "unknown") if isinstance(versions, dict) else "unknown"
        raise SchnRayError(
            f"{path} has format {layout} (made by schn-ray {by}), this is schn-ray "
            f"{__version__} with format {expected}: make the {actual_kind} again, or use that "
            "version"
        )
    if values.get("digest") != _digest_of(values):
        raise SchnRayError(
            f"{file} is damaged or was edited: it differs from its own digest; make the "
            f"{actual_kind} again"
        )
    if kind is not None and kind != actual_kind:
        raise SchnRayError(f"{path} is {_a(actual_kind)} directory; wanted {_a(kind)} directory")
    try:
        return Manifest(**values)
    except TypeError as error:
        raise SchnRayError(f"{file} is damaged; make the {actual_kind} again") from error


def _a(kind: str) -> str:
    return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def _digest_of(values: dict[str, Any]) -> str:
    content = {name: value for name, value in values.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


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
    installed = {name: _version(name) for name in _RECORDED}
    return versions | {name: version for name, version in installed.items() if version is not None}


@functools.cache  # a search writes many manifests, and reading a package's metadata takes 5 ms
def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
