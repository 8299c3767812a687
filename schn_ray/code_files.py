"""Packed codes as an Arrow column, the way that every file of ours holds them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

CODE = "code"


def code_column(packed: NDArray[np.uint8]) -> pa.FixedSizeBinaryArray:
    """Return packed codes [n, w] as an Arrow column, without a copy where they are contiguous."""
    data = np.ascontiguousarray(packed)
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(data.shape[1]), len(data), [None, pa.py_buffer(data)]
    )


def packed_codes(table: pa.Table, column: str = CODE) -> NDArray[np.uint8]:
    """Return a table's column ``code``, or another of fixed size, as bytes [n, w].

    >>> table = pa.table({"code": code_column(np.array([[1, 2], [3, 4]], np.uint8))})
    >>> packed_codes(table.slice(1)).tolist()
    [[3, 4]]
    """
    codes = table[column].combine_chunks()
    width = codes.type.byte_width
    if not len(codes):
        return np.zeros((0, width), np.uint8)  # its buffer may be missing
    packed = np.frombuffer(codes.buffers()[1], np.uint8, len(codes) * width, codes.offset * width)
    return packed.reshape(len(codes), width)
