"""Part files and their receipts: the one way in which a shard's rows are written, and counted.

A directory, local or at a URI, has one part file per shard, in the format's folder of it, and
``receipts/`` with one receipt per part, which has the part's units and its SHA-256. A part without
a receipt does not count.

A part is written, or replaced, in four steps, each of which happens wholly or not at all:

1. its receipt appears, with the suffix ``.next``;
2. the part appears;
3. the receipt appears under its own name;
4. the one with ``.next`` goes.

So a writer may be killed at any moment. If there is a ``.next``, the SHA-256 of the part shows
whether it is this part's receipt (``_settle``). No other part is read to know its units or hash.
"""

from __future__ import annotations

import contextlib
import hashlib
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.atomic_files import cannot_write, sha256_file, writing
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import (
    join,
    kind_at,
    names_in,
    new_file,
    read_file,
    remove_file,
    sha256_and_size,
    write_file,
)
from schn_ray.data.shards.receipts import (
    Receipt,
    ReceiptTotals,
    UnitReceipt,
    receipt_from_bytes,
    receipt_to_bytes,
    totals_from_bytes,
)

RECEIPTS = "receipts"
# not .gz: Arrow would compress a file of this name once more
_SUFFIX, _NEXT, _PARTIAL = ".receipt", ".next", ".partial"
_BATCH_ROWS = 1024  # of a part that is copied, in memory at once


class PartFormat(Protocol):
    """A file format for parts. Small to pickle; it has no state."""

    @property
    def stem(self) -> str:
        """Begin of a part's name, such as ``rows-``; the number follows."""
        ...

    @property
    def suffix(self) -> str:
        """End of a part's name, such as ``.arrow``."""
        ...

    @property
    def folder(self) -> str:
        """Folder of the parts, relative to the directory; ``""`` for the directory itself."""
        ...

    def write(self, path: Path, batches: Iterable[pa.RecordBatch]) -> None:
        """Write rows to a local file.

        Args:
            path: the file to write.
            batches: the rows; at least one batch where the format has no schema of its own.
        """
        ...

    def read(self, location: str, columns: Sequence[str] | None) -> pa.Table:
        """Read rows.

        Args:
            location: a part, local or at a URI.
            columns: their names; None for all.
        """
        ...


@dataclass(frozen=True)
class PartFiles:
    """The parts of one directory. Small to pickle: workers write through it.

    Attributes:
        location: absolute path of the directory, or its URI.
        format: of the part files.
    """

    location: str
    format: PartFormat

    def name(self, number: int) -> str:
        """Return the name of a part file, relative to the directory."""
        return self._part_name(f"{self.format.stem}{number:05}")

    def receipt_name(self, number: int) -> str:
        """Return the name of a part's receipt, relative to the directory."""
        return f"{RECEIPTS}/{self.format.stem}{number:05}{_SUFFIX}"

    def write(
        self, number: int, batches: Iterable[pa.RecordBatch], units: Sequence[UnitReceipt]
    ) -> Receipt:
        """Write a part and then its receipt; an older part of this number is replaced.

        Args:
            number: of the part.
            batches: the rows, written as they come.
            units: the units of these rows; complete as soon as ``batches`` is exhausted.

        Returns:
            The receipt.

        Raises:
            CannotWrite: the disk is full, or the directory cannot be written. Parts that are
                written already stay.
        """
        location, rows = join(self.location, self.name(number)), _Rows(batches)
        receipt_location = join(self.location, self.receipt_name(number))
        try:
            with new_file(location) as path:
                self.format.write(path, rows)
                size = path.stat().st_size
                receipt = Receipt(number, tuple(units), sha256_file(path), size)
                data = receipt_to_bytes(receipt)
                _write_receipt(receipt_location + _NEXT, data)
        except OSError as error:
            if error is rows.error:  # the source could not be read
                raise
            raise cannot_write(error, location) from error
        _write_receipt(receipt_location, data)
        with writing(receipt_location):
            remove_file(receipt_location + _NEXT)
        return receipt

    def read(self, number: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Read a part.

        Args:
            number: of the part.
            columns: their names; None for all.

        Raises:
            SchnRayError: the file is missing or damaged.
        """
        location = join(self.location, self.name(number))
        try:
            return self.format.read(location, columns)
        except (OSError, KeyError, pa.ArrowException) as error:
            raise SchnRayError(
                f"{location} is damaged ({error}); remove this file and run the same command "
                "again, of a finished directory with --update: its rows are written again"
            ) from error

    def read_strings(self, number: int, column: str) -> list[str]:
        """Read one column of strings of a part."""
        return list(self.read(number, [column])[column].to_pylist())

    def exists(self, number: int) -> bool:
        """Tell whether there is a part of this number."""
        return kind_at(join(self.location, self.name(number))) is not None

    def read_receipt(self, number: int) -> Receipt:
        """Read the receipt of one part.

        Raises:
            SchnRayError: a damaged receipt.
        """
        name = self.receipt_name(number)
        if kind_at(join(self.location, name + _NEXT)):
            self._settle(name)
        return _read_receipt(join(self.location, name))

    def numbers(self) -> list[int]:
        """Return the numbers of all parts that have a receipt, ascending.

        Raises:
            SchnRayError: a damaged receipt, where one was being replaced.
        """
        for name in sorted(names_in(join(self.location, RECEIPTS))):
            if name.endswith(_SUFFIX + _NEXT):
                self._settle(f"{RECEIPTS}/{name.removesuffix(_NEXT)}")
        names = self._names_of_parts() & self._names_of_receipts()
        return sorted(int(name.removeprefix(self.format.stem)) for name in names)

    def totals(
        self, numbers: Iterable[int], known: dict[str, tuple[str, int]]
    ) -> Iterator[ReceiptTotals]:
        """Yield what the receipts of parts have in all, one after the other; no part is read.

        Args:
            numbers: of these parts.
            known: gets the SHA-256 and the bytes of each part and receipt, by name.

        Raises:
            SchnRayError: a damaged receipt.
        """
        for number in numbers:
            location = join(self.location, name := self.receipt_name(number))
            data = read_file(location)
            with _damage_of(location):
                totals = totals_from_bytes(data)
            known[self.name(number)] = (totals.sha256, totals.size)
            known[name] = (hashlib.sha256(data).hexdigest(), len(data))
            yield totals

    def remove(self, numbers: Iterable[int]) -> None:
        """Remove parts with their receipts.

        Args:
            numbers: of these parts.
        """
        for number in numbers:
            remove_file(join(self.location, self.name(number)))
            remove_file(join(self.location, self.receipt_name(number)))

    def remove_leftovers(self) -> None:
        """Remove what killed writers left: parts without a receipt, the reverse, partial files."""
        for name in self._names_of_parts() ^ self._names_of_receipts():
            remove_file(join(self.location, self._part_name(name)))
            remove_file(join(self.location, f"{RECEIPTS}/{name}{_SUFFIX}"))
        for name in names_in(self._folder):
            if name.endswith(_PARTIAL):
                remove_file(join(self._folder, name))
        for name in names_in(join(self.location, RECEIPTS)):
            if not name.endswith((_SUFFIX, _SUFFIX + _NEXT)):
                remove_file(join(self.location, f"{RECEIPTS}/{name}"))

    @property
    def _folder(self) -> str:
        return join(self.location, self.format.folder) if self.format.folder else self.location

    def _part_name(self, name: str) -> str:
        return posixpath.join(self.format.folder, f"{name}{self.format.suffix}")

    def _names_of_parts(self) -> set[str]:
        return {
            name.removesuffix(self.format.suffix)
            for name in names_in(self._folder)
            if name.startswith(self.format.stem) and name.endswith(self.format.suffix)
        }

    def _names_of_receipts(self) -> set[str]:
        names = names_in(join(self.location, RECEIPTS))
        return {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}

    def _settle(self, name: str) -> None:
        """Decide by the part's SHA-256 whether its receipt or its next receipt is right."""
        location = join(self.location, name)
        following = _read_receipt(location + _NEXT)
        part = join(self.location, self.name(following.number))
        if kind_at(part) and sha256_and_size(part) == (following.sha256, following.size):
            _write_receipt(location, receipt_to_bytes(following))
        remove_file(location + _NEXT)


class _Rows:
    """Batches as they come; ``error`` is what reading them raised, if it is an ``OSError``."""

    def __init__(self, batches: Iterable[pa.RecordBatch]) -> None:
        self._batches = batches
        self.error: OSError | None = None

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._batches
        except OSError as error:
            self.error = error
            raise


def take_rows(table: pa.Table, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
    """Yield rows of a table in batches of a bounded size; one empty batch where there are none.

    Args:
        table: such as a part, perhaps mapped.
        rows: [m] row numbers, in the order of the result.
    """
    for start in range(0, max(len(rows), 1), _BATCH_ROWS):
        chunk = table.take(pa.array(rows[start : start + _BATCH_ROWS])).combine_chunks()
        yield from chunk.to_batches() or [pa.RecordBatch.from_pylist([], table.schema)]


def _write_receipt(location: str, data: bytes) -> None:
    try:
        write_file(location, data)
    except OSError as error:
        raise cannot_write(error, location) from error  # not its temporary name


def _read_receipt(location: str) -> Receipt:
    with _damage_of(location):
        return receipt_from_bytes(read_file(location))


@contextlib.contextmanager
def _damage_of(location: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise SchnRayError(
            f"{location} is damaged ({error}); remove this file and run the same command again, "
            "of a finished directory with --update: its rows are written again"
        ) from error
