"""An exact Hamming index on disk: each distinct code once, with the list of rows that have it.

Supervised codes collapse into few distinct values, so faiss scans the distinct codes only, and
each hit is expanded through its posting list. A row's number is its place in the order of ids,
so the answer does not depend on the order in which the codes came.

A directory of kind ``index`` holds ``codes.faiss`` (the distinct codes), ``postings.arrow`` (rows
of each distinct code, ascending) and ``rows.arrow`` (id and uri of each row); both Arrow files
are memory-mapped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray import manifest
from schn_ray.errors import SchnRayError

_CODES, _POSTINGS, _ROWS = "codes.faiss", "postings.arrow", "rows.arrow"
_QUERIES_AT_ONCE = 256  # bounds what the range search holds when many codes tie


@dataclass(frozen=True, eq=False)
class Matches:
    """The nearest rows of each of q queries, by distance, equal distances by the order of ids.

    Attributes:
        rows: int64 [q, k], row numbers; rows are numbered in the order of their ids.
        distances: int32 [q, k], Hamming distances in bits, ascending.
        tied: int64 [q], how many rows of the whole index lie at the k-th distance. Where more
            lie there than were returned, ids that come first in the alphabet were preferred.
    """

    rows: NDArray[np.int64]
    distances: NDArray[np.int32]
    tied: NDArray[np.int64]
    _table: pa.Table = field(repr=False)

    def ids(self, query: int) -> list[str]:
        """Return the ids of one query's matches, nearest first."""
        return self._column("id", query)

    def uris(self, query: int) -> list[str]:
        """Return where the images of one query's matches are, nearest first."""
        return self._column("uri", query)

    def _column(self, name: str, query: int) -> list[str]:
        return list(self._table[name].take(pa.array(self.rows[query])).to_pylist())


class Index:
    """Codes of ``bits`` bits, made by the model with the fingerprint ``model``; see open_index."""

    def __init__(
        self, flat: Any, postings: pa.LargeListArray, table: pa.Table, bits: int, model: str
    ) -> None:
        self.bits, self.model = bits, model
        self._flat, self._table = flat, table
        self._offsets = postings.offsets.to_numpy()
        self._rows = postings.values.to_numpy()

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self._rows)

    @property
    def unique_codes(self) -> int:
        """The number of distinct codes."""
        return len(self._offsets) - 1

    def search(self, codes: NDArray[np.uint8], k: int) -> Matches:
        """Find the k rows nearest to each code, exactly.

        Args:
            codes: uint8 [q, ceil(bits / 8)], packed, padding bits 0.
            k: matches wanted of each query; an index of fewer rows returns them all.

        Raises:
            SchnRayError: k < 1, or codes of another width than the index holds.
        """
        if k < 1:
            raise SchnRayError(f"k is {k}; ask for at least 1 match")
        _check_codes(codes, self.bits, "the query codes")
        found = Matches(
            np.empty((len(codes), min(k, len(self))), np.int64),
            np.empty((len(codes), min(k, len(self))), np.int32),
            np.empty(len(codes), np.int64),
            self._table,
        )
        for start in range(0, len(codes), _QUERIES_AT_ONCE):
            self._search_block(np.ascontiguousarray(codes[start:][:_QUERIES_AT_ONCE]), found, start)
        return found

    def _search_block(self, codes: NDArray[np.uint8], found: Matches, start: int) -> None:
        k = found.rows.shape[1]
        radii = self._kth_distance(codes, k)
        for radius in np.unique(radii):
            queries = np.flatnonzero(radii == radius)
            # faiss leaves out what lies exactly at the radius of a binary range search
            limits, distances, near = self._flat.range_search(codes[queries], int(radius) + 1)
            for query, low, high in zip(queries, limits[:-1], limits[1:], strict=True):
                at = start + query
                found.rows[at], found.distances[at], found.tied[at] = self._expand(
                    near[low:high], distances[low:high].astype(np.int32), k
                )

    def _kth_distance(self, codes: NDArray[np.uint8], k: int) -> NDArray[np.int32]:
        """Return the distance of the k-th nearest row, int32 [q]; k <= len(self)."""
        distances, near = self._flat.search(codes, min(k, self.unique_codes))
        covered = np.cumsum(self._offsets[near + 1] - self._offsets[near], axis=1)
        place = np.argmax(covered >= k, axis=1)
        kth: NDArray[np.int32] = distances[np.arange(len(codes)), place]
        return kth

    def _expand(
        self, near: NDArray[np.int64], distances: NDArray[np.int32], k: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
        """Turn all distinct codes up to the k-th distance into k rows, and count the last tie."""
        starts, counts = self._offsets[near], self._offsets[near + 1] - self._offsets[near]
        tied = int(counts[distances == distances.max()].sum())
        taken = np.minimum(counts, k)  # a list ascends: what follows its first k is never wanted
        ends = np.cumsum(taken)
        places = np.arange(ends[-1]) + np.repeat(starts - (ends - taken), taken)
        rows, row_distances = self._rows[places], np.repeat(distances, taken)
        order = np.lexsort((rows, row_distances))[:k]
        return rows[order], row_distances[order], tied


def build_index(codes_dir: Path, out: Path) -> manifest.Manifest:
    """Write the index of a finished ``codes`` directory.

    Raises:
        AlreadyDone: ``out`` is the finished index of these codes.
        SchnRayError: no codes, an id twice, damaged codes, or ``out`` holds something else.
    """
    source = manifest.read_manifest(codes_dir, "codes")
    config = {"bits": source.config["bits"], "model": source.made_from["model"]}
    made_from = {"codes": source.fingerprint}
    with manifest.new_directory(out, "index", config, made_from) as draft:
        manifest.verify_files(codes_dir, source)
        table = _read_codes(codes_dir, config["bits"])
        codes = _bytes_of(table["code"], config["bits"])
        _check_codes(codes, config["bits"], f"the codes in {codes_dir}")
        rows, starts = _group_equal(codes)
        _write_flat(draft.path / _CODES, codes[rows[starts]])
        lists = pa.LargeListArray.from_arrays(pa.array(np.append(starts, len(rows))), rows)
        _write_arrow(draft.path / _POSTINGS, pa.table({"rows": lists}))
        _write_arrow(draft.path / _ROWS, table.select(["id", "uri"]))
        draft.counts.update(rows=len(rows), unique_codes=len(starts))
    return manifest.read_manifest(out, "index")


def open_index(path: str | Path) -> Index:
    """Open an index; ids and posting lists stay on disk, memory-mapped.

    Every file is checked against its SHA-256 first, because faiss takes a flat index with
    flipped bits as it is and then answers wrongly.

    Raises:
        SchnRayError: ``path`` is no finished index, or is damaged.
    """
    path = Path(path)
    made = manifest.read_manifest(path, "index")
    manifest.verify_files(path, made)
    try:
        bits, model = int(made.config["bits"]), str(made.config["model"])
        flat = faiss.read_index_binary(str(path / _CODES))
        postings = _map_arrow(path / _POSTINGS)["rows"].chunk(0)
        table = _map_arrow(path / _ROWS)
    except (KeyError, ValueError, OSError, RuntimeError, pa.ArrowException) as error:
        raise SchnRayError(f"{path} is damaged ({error}); make the index again") from error
    sizes = (flat.d, flat.ntotal, len(postings.values))
    if sizes != (8 * _width(bits), len(postings), table.num_rows):
        raise SchnRayError(f"{path} is damaged: its files do not fit; make the index again")
    return Index(flat, postings, table, bits, model)


def _read_codes(codes_dir: Path, bits: int) -> pa.Table:
    """Return id, uri and code of all parts, sorted by id."""
    wanted = pa.schema(
        [
            pa.field("id", pa.large_string(), nullable=False),  # large: ids may pass 2 GB
            pa.field("uri", pa.large_string()),
            pa.field("code", pa.binary(_width(bits)), nullable=False),
        ]
    )
    try:
        parts = [
            pq.read_table(part, columns=wanted.names).cast(wanted)
            for part in sorted(codes_dir.glob("part-*.parquet"))
        ]
    except (ValueError, KeyError, pa.ArrowException) as error:
        raise SchnRayError(f"{codes_dir}: not the codes that encode writes: {error}") from error
    table = pa.concat_tables(parts) if parts else wanted.empty_table()
    if not table.num_rows:
        raise SchnRayError(f"{codes_dir} holds no codes; encode at least one image first")
    table = table.take(pc.sort_indices(table["id"])).combine_chunks()
    _refuse_duplicates(table["id"], codes_dir)
    return table


def _refuse_duplicates(ids: pa.ChunkedArray, codes_dir: Path) -> None:
    repeated = ids[1:].filter(pc.equal(ids[1:], ids[:-1]))
    if len(repeated):
        raise SchnRayError(
            f"{codes_dir}: {len(repeated)} rows repeat an id, such as {repeated[0].as_py()!r}; "
            "ids must be unique: encode the images again from a source without repeats"
        )


def _bytes_of(column: pa.ChunkedArray, bits: int) -> NDArray[np.uint8]:
    """Return a fixed-size binary column without nulls as uint8 [n, ceil(bits / 8)], not copied."""
    chunk, width = column.chunk(0), _width(bits)
    flat = np.frombuffer(chunk.buffers()[1], np.uint8, len(chunk) * width, chunk.offset * width)
    return flat.reshape(len(chunk), width)


def _group_equal(codes: NDArray[np.uint8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order rows so that equal codes stand together, ascending within; say where each group starts.

    Returns:
        rows int64 [n], starts int64 [unique codes].
    """
    n, width = codes.shape
    words = np.zeros((n, -(-width // 8)), np.uint64)  # eight bytes at once: sorting bytes is slow
    words.view(np.uint8)[:, :width] = codes
    rows = np.lexsort(words.T)
    changes = (words[rows[1:]] != words[rows[:-1]]).any(axis=1)
    return rows, np.flatnonzero(np.concatenate(([True], changes)))


def _check_codes(codes: NDArray[np.uint8], bits: int, what: str) -> None:
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != _width(bits):
        raise SchnRayError(
            f"{what} are {codes.dtype} of shape {codes.shape}; the index holds {bits} bits: wanted "
            f"uint8 [n, {_width(bits)}]. Codes and index must come from the same model"
        )
    if bits % 8 and (codes[:, -1] >> bits % 8).any():
        raise SchnRayError(f"{what} set bits beyond the {bits} that the index holds")


def _width(bits: int) -> int:
    return -(-bits // 8)


def _write_flat(path: Path, codes: NDArray[np.uint8]) -> None:
    flat = faiss.IndexBinaryFlat(8 * codes.shape[1])
    flat.add(codes)
    faiss.write_index_binary(flat, str(path))


def _write_arrow(path: Path, table: pa.Table) -> None:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _map_arrow(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
