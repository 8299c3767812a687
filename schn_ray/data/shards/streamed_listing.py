"""A source that is listed while its first shards are already worked on.

A thread lists as fast as it can, so that the total is soon known, and writes what it lists in
pieces (``listing_pieces``). The job reads the shards from there. So memory holds two pieces at
most, whatever the source's size, and a job that was killed goes on after the last piece.
"""

from __future__ import annotations

import hashlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import join
from schn_ray.data.shards.listing_pieces import PieceFiles, piece_of
from schn_ray.data.shards.rows import Shard, listed_bytes

PIECE_UNITS = 1 << 16  # files in a piece: some MB of names
PIECE_S = 10.0  # or what was listed in this time, where listing is slow
_QUICK_S = 1.0  # a listing that takes less is complete before work begins
_PAUSE_S = 0.001  # after each shard, else the thread that hands them out rarely gets its turn


class StreamedListing:
    """The shards of a source, in order, as often as they are asked for.

    Use it as a context manager: the end of the block stops the thread.

    Args:
        list_after: lists the shards that follow one; all that there are after None.
        pieces: where to write pieces; those that a killed job left are used.
        parts_end: no part has this number or a higher one.
        on_end: called in the thread with the listing's SHA-256 when all is listed, unless
            ``is_quick``. What it raises is raised where the shards are read.

    Attributes:
        rows: of all shards that are listed so far.
        sha256: of the listing, see ``listing_sha256``; None until all is listed.
    """

    def __init__(
        self,
        list_after: Callable[[Shard | None], Iterable[Shard]],
        pieces: PieceFiles,
        parts_end: int = 0,
        on_end: Callable[[str], object] = lambda sha256: None,
    ) -> None:
        self._list_after, self._files, self._on_end = list_after, pieces, on_end
        self._parts_end = parts_end
        self.rows = 0
        self.sha256: str | None = None
        self._closed, self._open = 0, list[Shard]()  # pieces on disk; shards of the next one
        self._known = set[int]()
        self._error: BaseException | None = None
        self._slow = self._full = self._may_write = self._stopped = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True, name="listing")

    def __enter__(self) -> StreamedListing:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._set(_stopped=True)
        self._thread.join(10)  # one that waits for a store which does not answer ends with us

    def is_quick(self) -> bool:
        """Wait a moment; tell whether everything is listed.

        Raises:
            SchnRayError: the source cannot be listed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ended() or self._full or self._closed, _QUICK_S)
            self._slow = not self._ended()
            self._raise_error()
            return not self._slow

    def write_pieces(self) -> None:
        """Allow pieces to be written: the directory is marked as unfinished."""
        self._set(_may_write=True)

    def wait(self) -> None:
        """Wait until everything is listed."""
        with self._changed:
            self._changed.wait_for(self._ended)
            self._raise_error()

    def has_units_of_part(self, shard: Shard) -> bool:
        """Tell whether the part of a shard's number, if there is one, is known to have its units.

        Args:
            shard: of this listing.
        """
        return shard.number in self._known

    def __iter__(self) -> Iterator[Shard]:
        number, position, shards = 0, 0, None
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda n=number, p=position: (  # type: ignore[misc]
                        self._closed > n or len(self._open) > p or self._ended()
                    )
                )
                self._raise_error()
                closed, ended = self._closed > number, self._ended()
                if shards is None and not closed:
                    shards = self._open  # which grows until it is closed
            if shards is None:
                shards = self._read(number)
            while position < len(shards):
                yield shards[position]
                position += 1
            if closed:
                number, position, shards = number + 1, 0, None
            elif ended:
                return

    def _read(self, number: int) -> list[Shard]:
        piece = self._files.read(number)
        if piece is None:
            raise SchnRayError(
                f"{join(self._files.location, self._files.name(number))} was damaged or removed "
                "meanwhile: run the same command again, it lists that part of the source again"
            )
        return list(piece.shards())

    # --- the thread

    def _run(self) -> None:
        try:
            sha256 = self._list()
            if sha256 is not None:
                with self._changed:
                    slow = self._slow
                    if not slow:
                        self._set(sha256=sha256)
                if slow and self._wait_to_write():
                    self._on_end(sha256)
                    self._set(sha256=sha256)
        except BaseException as error:
            self._set(_error=error)

    def _list(self) -> str | None:
        """List everything; return the SHA-256, or None if the listing was stopped."""
        digest, last = hashlib.sha256(), None
        source: Iterator[Shard] | None = None
        while not self._stopped:
            piece = self._files.read(self._closed)
            if piece is not None and piece.before == digest.hexdigest():
                source, last = None, piece.last()
                if piece.fresh:
                    self._known.update(range(piece.first, last.number + 1))
                rows = piece.rows
            else:
                if source is None:
                    self._say_what_is_known(last)
                    source = iter(self._list_after(last))
                if not self._fill(source):
                    break
                fresh = self._open[0].number >= self._parts_end
                piece = piece_of(digest.hexdigest(), self._open, fresh)
                last, rows = self._open[-1], 0  # they were counted when they were listed
                self._set(_full=True)
                if not self._wait_to_write():
                    return None
                self._files.write(self._closed, piece)
            for listed in piece.listed:
                digest.update(listed)
            self._set(_closed=self._closed + 1, _open=[], rows=self.rows + rows)
        for shard in self._open:
            digest.update(listed_bytes(shard))
        return None if self._stopped else digest.hexdigest()

    def _fill(self, source: Iterator[Shard]) -> bool:
        """Add shards to the open piece; tell whether it is full, and the source may have more."""
        following = self._files.read(self._closed + 1)  # this piece may be made again
        until = None if following is None else following.first - 1
        units, began = 0, time.monotonic()
        for shard in source:
            with self._changed:
                self._open.append(shard)
                self._set(rows=self.rows + shard.rows)
            units += max(1, len(shard.files))
            if self._slow:
                time.sleep(_PAUSE_S)
            is_full = units >= PIECE_UNITS or time.monotonic() - began > PIECE_S
            if is_full or shard.number == until or self._stopped:
                return True
        return False

    def _wait_to_write(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._may_write or self._stopped)
            return not self._stopped

    def _say_what_is_known(self, last: Shard | None) -> None:
        if last is not None and not self._full:
            print(
                f"schn-ray: {self.rows:,} rows were listed before this command was stopped; what "
                "has changed among them since then is for --update",
                file=sys.stderr,
            )

    def _set(self, **values: object) -> None:
        with self._changed:  # may be held by this thread already
            vars(self).update(values)
            self._changed.notify_all()

    def _ended(self) -> bool:
        return self.sha256 is not None or self._error is not None

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error
