"""Write a directory at a URI by way of a local one.

A writer renames files, locks them and appends to them, which object stores cannot do. So it writes
a local directory, and complete files are uploaded in the order in which they were written. If it
is killed, the directory at the URI is as unfinished as a local one would be, and can be resumed.

An object store has no locks. So a writer puts its mark beside the files, and looks before and after
each upload whether it is still there: of two machines, the one that began first is refused. What
is uploaded in the very moment in which the other begins is not noticed by either.

If the output is a local directory, nothing is copied: all of this does nothing.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from schn_ray.core.directories import LOCK, AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.locks import locked
from schn_ray.core.manifest import MANIFEST, REQUEST
from schn_ray.core.storage.cache import UNFINISHED, cache_folder
from schn_ray.core.storage.files import (
    as_location,
    chunks_of,
    copied,
    files_below,
    is_uri,
    join,
    kind_at,
    new_file,
    read_file,
    remove_file,
    send_file,
    write_file,
)

_WRITER = ".writer"  # hidden, so that no reader lists it
_State = tuple[int, int, int]  # size, time of change in nanoseconds, inode
_MOMENT = ".moment-"  # begins the names of folders with the files of an upload
_COPIED = 1 << 20  # larger files are linked: those are replaced, never written further


class Mirror:
    """A local directory whose files are uploaded to a location.

    Args:
        location: path or URI of the output directory.
        local: the local directory to write; the output directory itself if that is local.
        mark: of the only writer of a URI; ``""`` where others write it in its name.
    """

    def __init__(self, location: str, local: Path, mark: str = "") -> None:
        self.location, self.local = location, local
        self._mark, self._marked = mark, False
        self._synced: dict[str, _State] = {}  # name -> state when local and remote were equal

    def fetch(self, *names: str) -> None:
        """Download files, if they exist.

        Args:
            names: paths relative to the directory.
        """
        if is_uri(self.location):
            for name in names:
                if kind_at(join(self.location, name)) == "file":
                    self._fetch(name)

    def fetch_all(self, *excluded: str) -> None:
        """Download all files.

        Args:
            excluded: folders directly in the directory that are left out.
        """
        if is_uri(self.location):
            self._require_mark()
            for name, _, _ in files_below(self.location):
                if name.split("/")[0] not in excluded:
                    self._fetch(name)

    def send(self) -> None:
        """Upload files that are new or changed, the manifest last; then delete removed ones.

        Raises:
            SchnRayError: another machine has begun to write the directory.
        """
        if is_uri(self.location):
            files = dict(_files(self.local))
            self._send(files, {name: _state(path) for name, path in files.items()})

    @contextmanager
    def sending(self) -> Iterator[Callable[[], None]]:
        """Let the block upload what there is at a moment, and go on while that is under way.

        Each upload is as ``send``: in the order of writing, whatever is written meanwhile. One that
        still waits when the next is asked for is left out, as the next has all that it had. The
        block's end waits for the last one, also after an error, but not after an interruption.

        Yields:
            A function that takes the files of the moment.

        Raises:
            OSError, SchnRayError: an upload failed, see ``send``; raised by the next call of the
                function, or at the end.
        """
        if not is_uri(self.location):
            yield lambda: None
            return
        uploads = _Uploads(self)
        try:
            yield uploads.begin
        except Exception:
            uploads.end(raising=False)
            raise
        except BaseException:
            uploads.abandon()
            raise
        uploads.end()

    def _send(self, files: dict[str, Path], states: dict[str, _State]) -> None:
        self._require_mark()
        changed = [name for name in states if states[name] != self._synced.get(name)]
        for name in sorted(changed, key=lambda name: (name == MANIFEST, states[name][1], name)):
            self._send_file(name, files[name], states[name])
        for name in self._synced.keys() - states.keys():
            remove_file(join(self.location, name))
            del self._synced[name]
        self._require_mark()

    def _send_file(self, name: str, path: Path, state: _State) -> None:
        """Upload a file, or have the store copy it where it has it under another name."""
        target = join(self.location, name)
        twin = next((other for other, s in self._synced.items() if s == state), None)
        if twin is None or not copied(join(self.location, twin), target):
            send_file(path, target)
        self._synced[name] = state

    def _require_mark(self) -> None:
        """Put this writer's mark there, the first time; then see that no other has come since."""
        if not self._mark:
            return
        location = join(self.location, _WRITER)
        if not self._marked:
            write_file(location, self._mark.encode())
            self._marked = True
        elif not self._has_mark():
            raise SchnRayError(
                f"another process has begun to write {self.location} since; when it has ended, run "
                "the same command again"
            )

    def _has_mark(self) -> bool:
        try:
            return read_file(join(self.location, _WRITER)) == self._mark.encode()
        except FileNotFoundError:  # the other has ended
            return False

    def remove_mark(self) -> None:
        """Remove this writer's mark, unless another's is there."""
        if self._marked and self._has_mark():
            remove_file(join(self.location, _WRITER))

    def _fetch(self, name: str) -> None:
        target = self.local / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_file(str(target)) as partial_path, partial_path.open("wb") as file:
            for chunk in chunks_of(join(self.location, name)):
                file.write(chunk)
        self._synced[name] = _state(target)


class _Uploads:
    """Uploads of a mirror's files as they were at a moment, on a thread, one after the other."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._thread = ThreadPoolExecutor(1)
        self._uploads: list[tuple[Future[None], Path]] = []  # and the files of each

    def begin(self) -> None:
        for upload, _ in self._uploads:
            if upload.done():
                upload.result()
        folder = Path(tempfile.mkdtemp(prefix=_MOMENT, dir=self._mirror.local))
        files, states = {}, {}
        for name, path in _files(self._mirror.local):
            files[name], states[name] = folder / name, _state(path)
            files[name].parent.mkdir(parents=True, exist_ok=True)
            if states[name][0] <= _COPIED:
                shutil.copyfile(path, files[name])
            else:
                files[name].hardlink_to(path)
        for upload, overtaken in self._uploads:
            if upload.cancel():
                shutil.rmtree(overtaken)
        self._uploads = [one for one in self._uploads if not one[0].done()]
        self._uploads.append((self._thread.submit(self._upload, files, states, folder), folder))

    def end(self, raising: bool = True) -> None:
        self._thread.shutdown()
        if raising:
            for upload, _ in self._uploads:
                upload.result()

    def abandon(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _upload(self, files: dict[str, Path], states: dict[str, _State], folder: Path) -> None:
        self._mirror._send(files, states)
        shutil.rmtree(folder)


@contextmanager
def open_output(out: Path | str) -> Iterator[Mirror]:
    """Let the block write a local directory, and upload it if the block succeeds.

    Request and manifest of a directory at a URI are downloaded first, so that ``directories`` can
    compare them with the new request. On one machine, a second process that writes the same URI is
    refused; of two machines, the first to begin is, at its next upload.

    Args:
        out: path or URI of the output directory.

    Yields:
        The local directory, as ``Mirror.local``.

    Raises:
        AlreadyDone: raised by the block; its message names ``out``.
        SchnRayError: another process of this machine writes the same URI.
    """
    location = as_location(out)
    if not is_uri(location):
        yield Mirror(location, Path(out))
        return
    local = cache_folder() / UNFINISHED / hashlib.sha256(location.encode()).hexdigest()[:24]
    mirror = Mirror(location, local, uuid.uuid4().hex)
    with locked(local.with_name(f"{local.name}{LOCK}"), location):
        _clear(mirror)
        mirror.fetch(MANIFEST, REQUEST)
        try:
            yield mirror
            mirror.send()
        except AlreadyDone as done:
            raise AlreadyDone(done.path, done.kind, location, done.note) from done
        finally:
            with suppress(OSError):
                mirror.remove_mark()
        _clear(mirror, MANIFEST)


@contextmanager
def open_shared_output(out: str) -> Iterator[Mirror]:
    """Let the block work on a directory that several machines write one after the other.

    The whole directory is downloaded first; the block itself calls ``Mirror.send``.

    Args:
        out: an absolute path, or a URI.

    Yields:
        The local directory, as ``Mirror.local``.
    """
    if not is_uri(out):
        yield Mirror(out, Path(out))
        return
    with tempfile.TemporaryDirectory() as folder:
        mirror = Mirror(out, Path(folder))
        mirror.fetch_all()
        yield mirror


def _clear(mirror: Mirror, *keep: str) -> None:
    for path in mirror.local.iterdir() if mirror.local.exists() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)  # an abandoned upload may be removing it, too
        elif path.name not in keep:
            path.unlink()


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for root, folders, names in os.walk(folder):
        # an upload may be removing its own hidden folder in this very moment
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root, name)
            if not name.startswith(".") and path.suffix != ".partial":
                yield path.relative_to(folder).as_posix(), path


def _state(path: Path) -> _State:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ino
