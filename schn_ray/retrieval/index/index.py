"""An index, opened: exact searches by codes, and the codes of rows that are in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import (
    MANIFEST,
    Manifest,
    check_fingerprint,
    read_manifest,
    verify_files,
)
from schn_ray.core.storage.cache import local_copy
from schn_ray.retrieval.index.checked_files import DIGESTS, Checked, open_checked
from schn_ray.retrieval.index.inverted_lists import kth_distance
from schn_ray.retrieval.index.matches import Matches, Within
from schn_ray.retrieval.index.postings import QUERIES_AT_MOST, Postings, Ranked
from schn_ray.retrieval.index.scan import Bytes, Flat, Pairs, Scan, joined, open_lists
from schn_ray.retrieval.index.string_columns import StringColumn

_CELLS = 1 << 21  # queries x codes that are held at once
_QUICK_WIDTH = 8  # bytes; wider codes are scanned as fast for the nearest as for a radius
_PAIRS = 1 << 24  # pairs within a radius that are held at once, in the worst case


class Index:
    """Codes of ``bits`` bits, made by the model with the fingerprint ``model``; see open_index.

    Searches may run in several threads at once.
    """

    def __init__(self, path: Path, made: Manifest, files: dict[str, Checked]) -> None:
        self.path, self.manifest = path, made
        self.bits, self.model = int(made.config["bits"]), str(made.config["model"])
        n, u = int(made.counts["rows"]), int(made.counts["unique_codes"])
        _check_sizes(files, n, u, width(self.bits))
        self._codes_file, self._number_file = files["codes"], files["code_of_row"]
        self._codes = self._codes_file.array(np.uint8).reshape(u, width(self.bits))
        self._number_of_row = self._number_file.array(np.uint32)
        self._postings = Postings(files)
        self._ids, self._uris = StringColumn(files, "ids", n), StringColumn(files, "uris", n)
        self._flat = Flat(self._codes, self._codes_file)
        self._scan: Scan = self._flat
        if made.counts.get("lists"):
            self._scan = open_lists(files, int(made.counts["probes"]), self._flat)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._ids)

    @property
    def unique_codes(self) -> int:
        """The number of distinct codes."""
        return len(self._codes)

    def search(self, codes: Bytes, k: int) -> Matches:
        """Find the k rows nearest to each code, exactly.

        Args:
            codes: uint8 [q, ceil(bits / 8)], packed, padding bits 0.
            k: matches wanted of each query; an index of fewer rows returns them all.

        Raises:
            SchnRayError: k < 1, codes of another width than the index holds, or a damaged index.
        """
        if k < 1:
            raise SchnRayError(f"k is {k}; ask for at least 1 match")
        check_codes(codes, self.bits, "the query codes")
        k = min(k, len(self))
        found = Matches(
            np.empty((len(codes), k), np.int64),
            np.empty((len(codes), k), np.int32),
            np.empty(len(codes), np.int64),
            self,
        )
        near, start = _Near(k, self._codes, self._scan.spare), 0
        while start < len(codes):
            block = slice(start, start + near.queries_at_once())
            queries = np.ascontiguousarray(codes[block])
            pairs = self._nearest(queries, near)
            levels = self._postings.levels(pairs, len(queries), k)
            ranked = self._postings.rank(pairs.upto(levels.last), len(queries), k)
            found.rows[block] = ranked.rows.reshape(-1, k)
            found.distances[block] = ranked.distances.reshape(-1, k)
            found.tied[block] = levels.tied
            start = block.stop
        return found

    def within(self, codes: Bytes, radius: int, most: int | None = None) -> Within:
        """Find all rows at most ``radius`` bits from each code.

        Args:
            codes: as for ``search``.
            radius: 0 for equal codes.
            most: rows that are returned of each query at most, the nearest; all are counted.

        Raises:
            SchnRayError: a negative radius, most < 1, or as ``search``.
        """
        if radius < 0 or (most is not None and most < 1):
            raise SchnRayError(f"radius {radius}, at most {most}: wanted 0 or more, 1 or more")
        check_codes(codes, self.bits, "the query codes")
        parts, counts = list[Ranked](), list[NDArray[np.int64]]()
        radius = min(radius, self.bits)
        room = min(_PAIRS // self.unique_codes, _CELLS // (radius + 1))
        at_once = min(QUERIES_AT_MOST, max(1, room))
        for start in range(0, len(codes), at_once):
            queries = np.ascontiguousarray(codes[start : start + at_once])
            pairs = self._scan.within(queries, np.full(len(queries), radius, np.int32))
            levels = self._postings.levels(pairs, len(queries), most or len(self))
            counts.append(levels.found)
            parts.append(self._postings.rank(pairs.upto(levels.last), len(queries), most))
        lengths = [np.diff(part.starts) for part in parts]
        return Within(
            np.append(0, np.cumsum(np.concatenate([*lengths, np.zeros(0, np.int64)]))),
            np.concatenate([*(part.rows for part in parts), np.zeros(0, np.int64)]),
            np.concatenate([*(part.distances for part in parts), np.zeros(0, np.int32)]),
            np.concatenate([*counts, np.zeros(0, np.int64)]),
            self,
        )

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of rows."""
        return self._ids.take(rows)

    def uris(self, rows: NDArray[np.int64]) -> list[str]:
        """Return where the images of rows are."""
        return self._uris.take(rows)

    def find(self, id: str) -> int:
        """Return the row of an id.

        Raises:
            SchnRayError: it is not in the index.
        """
        row = self._ids.find(id)
        if row is None:
            (first,) = self._ids.take(np.zeros(1, np.int64))
            raise SchnRayError(f"{id!r} is not an id of {self.path}; they look like {first!r}")
        return row

    def codes(self, rows: NDArray[np.int64]) -> Bytes:
        """Return the packed codes of rows: uint8 [r, ceil(bits / 8)]."""
        self._number_file.touch(4 * rows, 4 * rows + 4)
        numbers = self._number_of_row[rows].astype(np.int64)
        self._codes_file.touch(numbers * self._codes.shape[1], (numbers + 1) * self._codes.shape[1])
        return self._codes[numbers]

    def numbers(self) -> NDArray[np.int64]:
        """Return which of the distinct codes each row has: int64 [n]."""
        self._number_file.touch_all()
        return self._number_of_row.astype(np.int64)

    def distinct(self) -> tuple[Bytes, Postings]:
        """Return all distinct codes, uint8 [u, ceil(bits / 8)], and who has them."""
        self._codes_file.touch_all()
        return self._codes, self._postings

    def columns(self) -> tuple[StringColumn, StringColumn]:
        """Return all ids and all uris."""
        return self._ids, self._uris

    def info(self) -> dict[str, Any]:
        """Return what the index holds, how it is searched, what it takes on disk."""
        rows, counts = len(self), dict(self.manifest.counts)
        size = sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())
        return {
            **counts,
            "bits": self.bits,
            "unique_share": round(self.unique_codes / rows, 4),
            "scan": "lists" if counts.get("lists") else "all distinct codes",
            "bytes": size,
            "bytes_a_row": round(size / rows, 1),
            "model": self.model,
            "made_by": self.manifest.versions.get("schn-ray", "?"),
        }

    def _nearest(self, queries: Bytes, near: _Near) -> Pairs:
        """Return codes with each query's k nearest rows, and all that tie with the last of them."""
        if near.radius is None:
            return self._by_rank(queries, near)
        pairs = self._scan.within(queries, np.full(len(queries), near.radius, np.int32))
        short = self._postings.levels(pairs, len(queries), near.k).found < near.k
        if not short.any():
            return pairs
        rest = np.flatnonzero(short)
        more = self._by_rank(queries[rest], near)
        kept = pairs.upto(np.where(short, -1, near.radius).astype(np.int32))
        return joined([kept, more._replace(queries=rest[more.queries])])

    def _by_rank(self, queries: Bytes, near: _Near) -> Pairs:
        found = self._scan.nearest(queries, near.codes)
        counts = self._postings.counts(found.numbers)
        kth = kth_distance(found.distances, counts, near.k)
        done = kth < found.reach
        close = (found.distances <= kth[:, None]) & done[:, None] & (found.numbers >= 0)
        query = np.nonzero(close)[0]
        pairs = Pairs(query, found.numbers[close], found.distances[close])
        if not done.all():
            rest = np.flatnonzero(~done)
            more = self._scan.within(queries[rest], kth[rest])
            more = more._replace(queries=rest[more.queries])
            pairs = joined([pairs, more])
        near.learn(np.bincount(pairs.queries, minlength=len(queries)), kth)
        return pairs


class _Near:
    """How codes are asked for: those of k rows, and with ``spare`` what ties with the last.

    How many tie is guessed, and learned from the queries before. Where the k-th row is equally far
    from all of them, as in codes without clusters, it is quicker to scan for what is within that
    ``radius``, with its ties, than to keep a heap of candidates.
    """

    def __init__(self, k: int, codes: Bytes, spare: bool) -> None:
        self.k, self._there, self._spare = k, len(codes), spare
        self._quick = spare and codes.shape[1] <= _QUICK_WIDTH
        self.codes = min(2 * k + 64 if spare else k, len(codes))
        self.radius: int | None = None
        self._learned = not spare

    def queries_at_once(self) -> int:
        """Return how many queries fit into memory; few where nothing was learned yet."""
        if self.radius is not None:  # a query may have every code within it
            return max(1, min(1024, _PAIRS // self._there))
        room = _CELLS // max(self.codes, 512)
        return max(16, min(1024, room)) if self._learned else 32

    def learn(self, needed: NDArray[np.int64], kth: NDArray[np.int32]) -> None:
        """Take note of how many codes a block's queries had up to the k-th row, and how far."""
        if self._spare:
            if self._quick and not self._learned and int(kth.max()) - int(kth.min()) <= 1:
                self.radius = int(kth.max())
            usual = int(np.quantile(needed, 0.98)) + 8
            self.codes = min(max(usual, 16), self._there)
        self._learned = True


def open_index(path: str | Path) -> Index:
    """Open an index; all of it stays on disk, mapped, and is checked where it is read.

    Of one at a URI, a copy is made on this machine, once.

    Raises:
        SchnRayError: ``path`` is no finished index, or is damaged.
    """
    path, made, folder = _folder(path)
    return _opened(path, lambda: Index(path, made, _files(folder, made)))


def verify_index(path: str | Path) -> int:
    """Check every file of an index against its SHA-256 -> bytes checked.

    Raises:
        SchnRayError: what differs.
    """
    index = open_index(path)
    verify_files(index.path, index.manifest)
    return sum((index.path / name).stat().st_size for name in index.manifest.files)


def _folder(path: str | Path) -> tuple[Path, Manifest, Path]:
    path = local_copy(path)
    made = read_manifest(path, "index")
    check_fingerprint(path, made)
    digests = [name for name in made.files if Path(name).name == DIGESTS]
    if len(digests) != 1:
        raise SchnRayError(f"{path / MANIFEST} is damaged; make the index again")
    return path, made, path / Path(digests[0]).parent


def _files(folder: Path, made: Manifest) -> dict[str, Checked]:
    return open_checked(folder, made.files[f"{folder.name}/{DIGESTS}"])


def _opened(path: Path, work: Callable[[], Index]) -> Index:
    try:
        return work()
    except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        raise SchnRayError(f"{path} is damaged ({error}); make the index again") from error


def _check_sizes(files: dict[str, Checked], n: int, u: int, width: int) -> None:
    wanted = {"codes": u * width, "starts": 8 * (u + 1), "rows": 4 * n, "code_of_row": 4 * n}
    for name, size in wanted.items():
        if (found := len(files[name].data)) != size:
            raise SchnRayError(
                f"{files[name].path} is damaged: {found:,} bytes, wanted {size:,}; make the index "
                "again"
            )


def check_codes(codes: Bytes, bits: int, what: str) -> None:
    """Refuse codes that do not have this many bits.

    Raises:
        SchnRayError: another type or width, or bits set beyond the last.
    """
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != width(bits):
        raise SchnRayError(
            f"{what} are {codes.dtype} of shape {codes.shape}; the index holds {bits} bits: wanted "
            f"uint8 [n, {width(bits)}]. Codes and index must come from the same model"
        )
    if bits % 8 and (codes[:, -1] >> bits % 8).any():
        raise SchnRayError(f"{what} set bits beyond the {bits} that the index holds")


def width(bits: int) -> int:
    """Return the bytes of a code.

    >>> width(12)
    2
    """
    return -(-bits // 8)
