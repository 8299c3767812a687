"""Where a store is written: a directory, or a URI with the small files on this machine first."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schn_ray.locks import locked
from schn_ray.manifest import (
    LOCK,
    MANIFEST,
    REQUEST,
    AlreadyDone,
    Draft,
    Manifest,
    read_manifest,
    resumable_directory,
)
from schn_ray.sources.copies import cache_folder
from schn_ray.sources.places import (
    as_location,
    is_there,
    is_uri,
    join,
    read_file,
    remove_file,
    write_file,
)


@dataclass(frozen=True)
class Target:
    """A store that is being written.

    Attributes:
        store: its directory, or its URI: rows and receipts go there.
        draft: its small files: there as well, or on their way.
        update: whether it was finished before.
    """

    store: str
    draft: Draft
    update: bool

    def begin(self) -> None:
        """Call the store unfinished from here on."""
        if self.update:
            self.draft.begin()
        if is_uri(self.store):
            write_file(join(self.store, REQUEST), (self.draft.path / REQUEST).read_bytes())
            remove_file(join(self.store, MANIFEST))

    def manifest(self) -> Manifest:
        """Return what the finished store says of itself."""
        return read_manifest(self.draft.path, "store")


@contextmanager
def opened_target(
    out: Path | str,
    config: dict[str, Any],
    made_from: dict[str, Any],
    listing: str,
    update: bool,
    free: tuple[str, ...],
) -> Iterator[Target]:
    """Open a directory to write; see ``manifest.resumable_directory``.

    Of a URI, request and manifest are fetched first, and what was written goes there when all is
    done, the manifest last. Two processes of one machine refuse each other; of two machines, it is
    for the user to see that only one writes.
    """
    store = as_location(out)
    here = Path(store) if not is_uri(store) else _fetched(store)
    try:
        with resumable_directory(here, "store", config, made_from, listing, update, free) as draft:
            yield Target(store, draft, update)
    except AlreadyDone as done:
        raise AlreadyDone(done.path, done.kind, store) from done
    if is_uri(store):
        _sent(store, here)


def _fetched(store: str) -> Path:
    here = cache_folder() / "unfinished" / hashlib.sha256(store.encode()).hexdigest()[:24]
    with locked(here / LOCK, here):
        for file in here.iterdir():
            if file.is_file() and file.name != LOCK:
                file.unlink()
        for name in (MANIFEST, REQUEST):
            if is_there(join(store, name)) == "file":
                (here / name).write_bytes(read_file(join(store, name)))
    return here


def _sent(store: str, here: Path) -> None:
    names = [p.name for p in here.iterdir() if p.is_file() and p.name not in (LOCK, MANIFEST)]
    for name in [*names, MANIFEST]:
        write_file(join(store, name), (here / name).read_bytes())
    remove_file(join(store, REQUEST))
