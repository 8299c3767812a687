"""Codes that another program made: packed bits, or values of -1 and +1, or of 0 and 1.

They are evaluated as they are (``evaluation.foreign``), and become a directory of codes, which is
indexed, searched and converted as any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.directories import new_directory
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.core.storage.mirror import open_output
from schn_ray.data.array_files import Arrays, Values, read_arrays
from schn_ray.data.shards.receipts import ID, URI
from schn_ray.retrieval.code_files import CODE, DATA, CodeFiles, code_column

FOREIGN = "foreign"  # in place of a model's fingerprint
NAMES = (CODE, "codes", "hash", "B", "U")
_AT_ONCE = 65_536  # rows


@dataclass(frozen=True, eq=False)
class PackedCodes:
    """Codes of one length.

    Attributes:
        packed: uint8 [n, ceil(K / 8)]: bit b is bit b % 8 of byte b // 8.
        bits: K.
    """

    packed: NDArray[np.uint8]
    bits: int


def packed_of(values: Values, source: str, bits: int | None = None) -> PackedCodes:
    """Return codes in whatever form as packed ones.

    Args:
        values: [n, K] of -1 and +1, or of 0 and 1, in any type; or packed, uint8 [n, w], in either
            order of the bits in a byte.
        source: of them, for messages.
        bits: K of packed codes, if it is no multiple of 8.

    Raises:
        SchnRayError: another shape, other values, or packed codes with more bits than that.

    Example:
        >>> packed_of(np.array([[1.0, -1, 1]]), "mine.npy").packed.tolist()
        [[5]]
    """
    if not isinstance(values, np.ndarray) or values.ndim != 2 or 0 in values.shape:
        got = list(values.shape) if isinstance(values, np.ndarray) else "rows of several lengths"
        raise SchnRayError(f"{source}: expected codes [n, bits], one row an image; got {got}")
    if values.dtype == np.uint8 and values.max() > 1:
        return _packed(values, source, bits)
    if bits not in (None, values.shape[1]):
        raise SchnRayError(f"{source}: codes have {values.shape[1]} values each, not {bits}")
    low = _low_value(values, source)
    blocks = [np.packbits(block > low, axis=1, bitorder="little") for block in _blocks(values)]
    return PackedCodes(np.concatenate(blocks), values.shape[1])


def signs_of(values: Values, source: str) -> PackedCodes:
    """Return the signs of embeddings as codes; 0 counts as +1.

    Args:
        values: [n, K] of real numbers.
        source: of them, for messages.

    Raises:
        SchnRayError: another shape or type, NaN or infinity.
    """
    if (
        not isinstance(values, np.ndarray)
        or values.ndim != 2
        or 0 in values.shape
        or values.dtype.kind not in "fiu"
    ):
        got = f"{values.dtype}{list(values.shape)}" if isinstance(values, np.ndarray) else "others"
        raise SchnRayError(f"{source}: expected embeddings, numbers [n, d]; got {got}")
    packed = []
    for start, block in zip(range(0, len(values), _AT_ONCE), _blocks(values), strict=True):
        bad = ~np.isfinite(block).all(axis=1)
        if bad.any():
            row = start + int(bad.argmax())
            raise SchnRayError(f"{source}: row {row} has numbers that are NaN or infinite")
        packed.append(np.packbits(block >= 0, axis=1, bitorder="little"))
    return PackedCodes(np.concatenate(packed), values.shape[1])


def write_foreign_codes(
    source: Any, out: Path | str, bits: int | None = None, ids: list[str] | None = None
) -> Manifest:
    """Write codes of another program as a directory of codes.

    Args:
        source: a file or an array, see ``read_arrays`` and ``packed_of``.
        out: directory to write, a path or a URI.
        bits: see ``packed_of``.
        ids: of the rows; by default the file's column ``id``, or the numbers of the rows.

    Raises:
        AlreadyDone: ``out`` has these codes already.
        SchnRayError: see ``packed_of``; or ids of another number.

    Example:
        ``write_foreign_codes("hashnet.npy", "codes").counts["rows"]``
    """
    arrays = read_arrays(source, "codes")
    codes = packed_of(arrays.one(*NAMES), arrays.source, bits)
    names = ids_of(arrays, len(codes.packed)) if ids is None else ids
    if len(names) != len(codes.packed):
        raise SchnRayError(f"{len(names):,} ids for {len(codes.packed):,} codes; expected as many")
    given = arrays.named(URI)
    uris = [""] * len(names) if given is None else list(map(str, given))
    request = {"bits": codes.bits}, {"source": arrays.sha256, "model": FOREIGN}
    with (
        open_output(out) as mirror,
        new_directory(mirror.local, "codes", *request) as draft,
    ):
        (draft.path / DATA).mkdir()
        for number, start in enumerate(range(0, len(names), _AT_ONCE)):
            rows = slice(start, start + _AT_ONCE)
            columns = {
                ID: pa.array(names[rows], pa.string()),
                URI: pa.array(uris[rows], pa.string()),
                CODE: code_column(codes.packed[rows]),
            }
            batch = pa.record_batch(columns)
            CodeFiles().write(draft.path / DATA / f"part-{number:05}.parquet", [batch])
        draft.counts |= {"rows": len(names), "encoded": len(names), "quarantined": 0}
    return read_manifest(mirror.local, "codes")


def ids_of(arrays: Arrays, rows: int) -> list[str]:
    """Return the ids of rows: the array ``id`` or ``ids``, or the rows' numbers.

    Args:
        arrays: of a file.
        rows: how many.
    """
    ids = arrays.named(ID, "ids")
    return list(map(str, range(rows) if ids is None else ids))


def _packed(values: NDArray[np.uint8], source: str, bits: int | None) -> PackedCodes:
    width = values.shape[1]
    if bits is None or bits == 8 * width:
        return PackedCodes(np.ascontiguousarray(values), 8 * width)
    if not 8 * (width - 1) < bits < 8 * width:
        raise SchnRayError(f"{source}: packed codes of {width} bytes; {bits} bits do not fit that")
    last, free = np.bitwise_or.reduce(values[:, -1]), 8 * width - bits
    if not last >> (8 - free):
        return PackedCodes(np.ascontiguousarray(values), bits)
    if last & (2**free - 1):
        raise SchnRayError(
            f"{source}: packed codes of {width} bytes with more bits set than the {bits} of --bits"
        )
    turned = np.packbits(np.unpackbits(values, axis=1), axis=1, bitorder="little")
    return PackedCodes(turned, bits)  # the first bit was the highest of its byte


def _low_value(values: NDArray[Any], source: str) -> int:
    """Return the value of a bit that is not set, -1 or 0."""
    distinct = np.zeros(0)
    for block in _blocks(values):
        distinct = np.union1d(distinct, np.unique(block))
        if len(distinct) > 3:
            break
    for low in (-1, 0):
        if np.isin(distinct, [low, 1]).all():
            return low
    shown = ", ".join(f"{value:.4g}" for value in distinct[:4])
    raise SchnRayError(
        f"{source}: codes are -1 and +1, or 0 and 1, or packed (uint8); got values such as "
        f"{shown}. Of real numbers, evaluate --embeddings takes the signs"
    )


def _blocks(values: NDArray[Any]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(values), _AT_ONCE):
        yield values[start : start + _AT_ONCE]
