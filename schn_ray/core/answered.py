"""Requests that were answered: the same one is known to be finished before anything is imported.

Settings of a method are checked by the method's class, which imports torch. To say "finished
already" without, a note of the request lies in the cache, beside the copies of directories at URIs.
It counts only while the output, the inputs, the files of settings and this package are unchanged;
without a valid note, the request is compared as ever.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schn_ray.core.atomic_files import write_atomically
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST, REQUEST
from schn_ray.core.storage.cache import cache_folder
from schn_ray.core.storage.files import is_uri
from schn_ray.core.version import __version__

ANSWERED = "answered"  # folder of the cache
_PACKAGE = Path(__file__).parents[1]
_CODE = ".py"  # of the user's own, which a request may name


@dataclass(frozen=True)
class AnsweredRequest:
    """A request whose directory may be finished.

    Attributes:
        out: the directory.
        note: the file of the cache that says so.
        digest: SHA-256 of the request and of what it depends on, but for the output.
    """

    out: Path
    note: Path
    digest: str

    def is_finished(self) -> bool:
        """Tell whether this very request has made the directory as it is now."""
        with suppress(OSError):
            return not (self.out / REQUEST).exists() and self.note.read_text() == self._text()
        return False

    def remember(self) -> None:
        """Note that the request is finished; nothing is lost if that cannot be written."""
        with suppress(OSError, SchnRayError):
            self.note.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.note, self._text().encode())

    def _text(self) -> str:
        manifest = hashlib.sha256((self.out / MANIFEST).read_bytes()).hexdigest()
        return f"{self.digest} {manifest}\n"


def answered_request(
    verb: str,
    out: str,
    options: Mapping[str, Any],
    inputs: Sequence[str | None] = (),
    files: Sequence[Path | None] = (),
) -> AnsweredRequest | None:
    """Return a request by which a finished directory is known again.

    Args:
        verb: its name.
        out: the directory, or its URI.
        options: all else that decides what the directory becomes, as the user gave it.
        inputs: finished directories that are read, or their URIs.
        files: of settings.

    Returns:
        None for one that must be compared each time: something is at a URI, is not finished, or
        the request names code of the user's own.
    """
    directories = [path for path in inputs if path is not None]
    try:
        read = [path.read_bytes() for path in files if path is not None]
        text = json.dumps(dict(options), sort_keys=True, default=str)
        if any(map(is_uri, [out, *directories])) or _CODE in text + str(read):
            return None
        manifests = [(Path(path) / MANIFEST).read_bytes() for path in directories]
    except OSError:
        return None
    digest = hashlib.sha256(json.dumps([verb, __version__, os.getcwd(), text]).encode())
    for data in (*read, *manifests, _package_state()):
        digest.update(hashlib.sha256(data).digest())
    name = hashlib.sha256(os.path.abspath(out).encode()).hexdigest()
    return AnsweredRequest(Path(out), cache_folder() / ANSWERED / name, digest.hexdigest())


def _package_state() -> bytes:
    """Return what changes with the code: defaults and presets decide, too."""
    files = (path for kind in ("*.py", "*.yaml") for path in _PACKAGE.rglob(kind))
    states = sorted((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files)
    return json.dumps(states).encode()
