"""Random numbers as functions of a seed and a purpose, and, where a row has its own, of the row."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from schn_ray.data.labels import Rows


def generator(seed: int, purpose: str) -> np.random.Generator:
    """Return the generator of one purpose.

    Args:
        seed: of the fit.
        purpose: such as ``"anchors"``.
    """
    return np.random.default_rng([seed, *purpose.encode()])


def chosen_rows(seed: int, purpose: str, count: int, at_most: int) -> Rows:
    """Return the numbers of different rows drawn at random, in rising order.

    Args:
        seed: of the fit.
        purpose: of the draw.
        count: rows there are.
        at_most: rows to draw; all of them if there are fewer.
    """
    drawn = generator(seed, purpose).choice(
        count, min(count, at_most), replace=False, shuffle=False
    )
    return np.sort(drawn).astype(np.int64)


def row_signs(seed: int, purpose: str, numbers: Rows, columns: int) -> NDArray[np.int8]:
    """Return random signs [m, columns] of rows, the same in whatever shard a row lies.

    Args:
        seed: of the fit.
        purpose: of the draw.
        numbers: consecutive row numbers [m].
        columns: signs a row.
    """
    words = _row_words(seed, purpose, numbers, -(-columns // 64))
    bits = np.unpackbits(words.view(np.uint8), axis=1, count=columns, bitorder="little")
    return bits.astype(np.int8) * 2 - 1


def row_normals(seed: int, purpose: str, numbers: Rows, columns: int) -> NDArray[np.float64]:
    """Return random normal numbers [m, columns] of rows, the same in whatever shard a row lies.

    Args:
        seed: of the fit.
        purpose: of the draw.
        numbers: consecutive row numbers [m].
        columns: numbers a row.
    """
    words = _row_words(seed, purpose, numbers, columns)
    return np.asarray(ndtri(((words >> np.uint64(11)).astype(np.float64) + 0.5) / 2**53))


def _row_words(seed: int, purpose: str, numbers: Rows, columns: int) -> NDArray[np.uint64]:
    """Return 64 random bits for each cell: Philox counts, so it starts at any row."""
    blocks = -(-columns // 4)  # a count gives four words
    philox = np.random.Philox(np.random.SeedSequence([seed, *purpose.encode()]))
    philox.advance(int(numbers[0]) * blocks)
    words = philox.random_raw(len(numbers) * blocks * 4).reshape(len(numbers), -1)
    return np.ascontiguousarray(words[:, :columns])
