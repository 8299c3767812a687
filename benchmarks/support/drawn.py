"""Codes as benchmarks of the search draw them: clustered, as supervised codes lie, and random."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schn_ray.core.directories import new_directory
from schn_ray.retrieval.code_files import code_column

_AT_ONCE = 1 << 18


def centres_of(bits: int) -> np.ndarray:
    """Return the 100 centres of drawn codes: bool [100, bits]."""
    return np.random.default_rng(7).random((100, bits)) < 0.5


def draw(n: int, bits: int, flips: float | None, seed: int) -> np.ndarray:
    """Draw n packed codes around 100 centres, each bit flipped with a chance; None: random bits."""
    centres = centres_of(bits)
    rng, parts = np.random.default_rng(seed), []
    for start in range(0, n, _AT_ONCE):
        some = min(_AT_ONCE, n - start)
        if flips is None:
            parts.append(rng.integers(0, 256, (some, bits // 8), np.uint8))
            continue
        ones = centres[rng.integers(0, 100, some)] ^ (rng.random((some, bits), np.float32) < flips)
        parts.append(np.packbits(ones, axis=1, bitorder="little"))
    return np.concatenate(parts)


def write_codes(folder: Path, codes: np.ndarray, first: int = 0) -> Path:
    """Write codes as encode does, with ids and uris of usual lengths."""
    made_from = {"model": "drawn", "source": "drawn"}
    with new_directory(folder, "codes", {"bits": 8 * codes.shape[1]}, made_from) as draft:
        (draft.path / "data").mkdir()
        for number, start in enumerate(range(0, len(codes), _AT_ONCE)):
            part = codes[start : start + _AT_ONCE]
            ids = [f"photos/{first + start + i:09}.jpg" for i in range(len(part))]
            uris = pa.array([f"/data/{id}" for id in ids])
            table = pa.table({"id": ids, "uri": uris, "code": code_column(part)})
            pq.write_table(table, draft.path / "data" / f"part-{number:05}.parquet")
    return folder
