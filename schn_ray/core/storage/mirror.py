"""A directory on this machine in place of one at a URI, for whoever writes it.

What writes a directory needs files that can be renamed, locked and appended to. So it writes here,
and files go to the URI when they are whole, in the order in which they were written: whoever is
killed leaves there what a kill leaves in a directory. For a directory of this machine there is
nothing to do, and all of this does nothing.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from schn_ray.core.directories import LOCK, AlreadyDone
from schn_ray.core.locks import locked
from schn_ray.core.manifest import MANIFEST, REQUEST
from schn_ray.core.storage.cache import cache_folder
from schn_ray.core.storage.files import (
    as_location,
    chunks_of,
    files_below,
    is_uri,
    join,
    kind_at,
    new_file,
    remove_file,
    send_file,
)

_State = tuple[int, int]  # size, time of change in nanoseconds


class Mirror:
    """Files here that are to be the files of a directory at a URI, or of one here.

    Attributes:
        location: the directory, or its URI.
        local: what stands for it on this machine: the directory itself, if it is here.
    """

    def __init__(self, location: str, local: Path) -> None:
        self.location, self.local = location, local
        self._same: dict[str, _State] = {}  # name -> the state in which it is there, too

    def fetch(self, *names: str) -> None:
        """Bring files of these names here, as far as they are there."""
        if is_uri(self.location):
            for name in names:
                if kind_at(join(self.location, name)) == "file":
                    self._fetch(name)

    def fetch_all(self, *left_out: str) -> None:
        """Bring all files here, but for those below some folders."""
        if is_uri(self.location):
            for name, _, _ in files_below(self.location):
                if name.split("/")[0] not in left_out:
                    self._fetch(name)

    def send(self) -> None:
        """Bring what was written here since to the URI, the manifest last; then what went goes."""
        if not is_uri(self.location):
            return
        found = {name: _state(path) for name, path in _files(self.local)}
        changed = [name for name in found if found[name] != self._same.get(name)]
        for name in sorted(changed, key=lambda name: (name == MANIFEST, found[name][1], name)):
            send_file(self.local / name, join(self.location, name))
        for name in self._same.keys() - found.keys():
            remove_file(join(self.location, name))
        self._same = found

    def _fetch(self, name: str) -> None:
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_file(str(target)) as beside, beside.open("wb") as file:
            for chunk in chunks_of(join(self.location, name)):
                file.write(chunk)
        self._same[name] = _state(target)


@contextmanager
def open_output(out: Path | str) -> Iterator[Mirror]:
    """Stand in for a directory that the block writes, and send it when the block ends well.

    Of one at a URI, request and manifest are fetched first, so that ``manifest`` can tell what was
    asked for there. Two processes of one machine refuse each other; of two machines, it is for the
    user to see that only one writes.

    Raises:
        AlreadyDone: by the block; it names ``out`` then.
    """
    location = as_location(out)
    if not is_uri(location):
        yield Mirror(location, Path(out))
        return
    here = cache_folder() / "unfinished" / hashlib.sha256(location.encode()).hexdigest()[:24]
    mirror = Mirror(location, here)
    _clear(mirror)
    mirror.fetch(MANIFEST, REQUEST)
    try:
        yield mirror
    except AlreadyDone as done:
        raise AlreadyDone(done.path, done.kind, location) from done
    mirror.send()
    _clear(mirror, MANIFEST)


@contextmanager
def open_shared_output(out: str) -> Iterator[Mirror]:
    """Stand in for a directory that several machines write to in turn: all of it is fetched.

    Args:
        out: an absolute path, or a URI.
    """
    if not is_uri(out):
        yield Mirror(out, Path(out))
        return
    with tempfile.TemporaryDirectory() as folder:
        mirror = Mirror(out, Path(folder))
        mirror.fetch_all()
        yield mirror


def _clear(mirror: Mirror, *kept: str) -> None:
    with locked(mirror.local / LOCK, mirror.location):
        for path in sorted(mirror.local.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
            elif path.name != LOCK and path.name not in kept:
                path.unlink()


def _files(here: Path) -> Iterator[tuple[str, Path]]:
    for path in here.rglob("*"):
        name = path.relative_to(here).as_posix()
        hidden = any(part.startswith(".") for part in name.split("/"))
        if path.is_file() and not hidden and path.suffix != ".partial":
            yield name, path


def _state(path: Path) -> _State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns
