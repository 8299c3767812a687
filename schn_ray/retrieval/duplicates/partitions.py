"""Groups of a gallery that does not fit one machine: the bands of the multi-index as a shuffle.

Two codes within the radius have an equal band, of r + 1 (see ``bands``). So each part of the codes
is split by every band: rows with equal bits of a band go to one partition. Then each partition is
searched by itself, as a gallery is (``connected``), and gives back a forest: the pairs that connect
its components, fewer than it has rows. The components of all forests are the groups.

A worker holds one part of the codes, or one partition. This process holds the pairs of the forests,
and ids and uris of the images that are in groups. The partitions are files beside the output, which
all machines must see; together they are r + 1 times as large as the codes.
"""

from __future__ import annotations

import functools
import io
import itertools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from schn_ray.core.artefacts import Artefact, open_artefact, read_verified
from schn_ray.core.atomic_files import writing
from schn_ray.core.directories import scratch_folder
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.cache import directory_kind, local_copy
from schn_ray.core.storage.files import as_location, join, new_file, open_file
from schn_ray.data.shards.map_shards import MapShards, map_locally
from schn_ray.data.shards.rows import Shard
from schn_ray.retrieval.code_files import CODE, SHA256, code_column, packed_codes, part_names
from schn_ray.retrieval.duplicates.bands import Band, keys_of, word_view
from schn_ray.retrieval.duplicates.components import Components
from schn_ray.retrieval.duplicates.connected import connected_labels
from schn_ray.retrieval.duplicates.evidence import NOT_VERIFIED, Verification
from schn_ray.retrieval.duplicates.groups import (
    DuplicateCounts,
    GroupedRows,
    Keep,
    Request,
    group_candidates,
    refuse_bad_request,
)
from schn_ray.retrieval.index.contents import contents_of
from schn_ray.retrieval.index.index import check_codes
from schn_ray.retrieval.index.postings import group_equal
from schn_ray.retrieval.index.scan import Bytes

_PARTITION = 1 << 22  # rows of a partition, if bands are as different as those of random codes
_ROW_BITS = 32  # of a row's number in its part; the part's number stands above
_COLUMNS = ("id", "uri", CODE, SHA256)

Edges = tuple[NDArray[np.int64], NDArray[np.int64]]


@dataclass(frozen=True)
class Split:
    """How rows are split.

    Attributes:
        bits: of a code.
        radius: bits in which neighbours may differ.
        partitions: of each band.
    """

    bits: int
    radius: int
    partitions: int

    def bands(self) -> list[Band]:
        """Return the bands, of which two neighbours have an equal one."""
        if self.radius >= self.bits:
            return [Band(0, self.bits, 0, 0)]
        cuts = np.linspace(0, self.bits, self.radius + 2).astype(int).tolist()
        return [Band(low, high, min(32, high - low), 0) for low, high in itertools.pairwise(cuts)]


@dataclass(frozen=True)
class Partition:
    """Rows with equal bits of a band.

    Attributes:
        number: from 0; the bands follow one another.
        rows: about how many.
    """

    number: int
    rows: int


def find_duplicates_in_parts(
    path: Path | str,
    radius: int,
    out: Path,
    keep: Keep | None = None,
    verification: Verification = NOT_VERIFIED,
    map_shards: MapShards = map_locally,
    partition_rows: int = _PARTITION,
) -> DuplicateCounts:
    """Write the groups of a gallery; as ``find_duplicates``, part by part, on any machines.

    Args:
        path: a ``codes`` directory that all machines see, a path or a URI.
        radius: bits in which neighbours may differ.
        out: file to write, on a disk that all machines see.
        keep: see ``find_duplicates``.
        verification: see ``find_duplicates``.
        map_shards: applies a function to all parts, and to all partitions.
        partition_rows: about so many rows a partition.

    Raises:
        SchnRayError: no codes, damaged codes, an id that comes twice, or as ``find_duplicates``.
    """
    refuse_bad_request(radius, out, keep)
    location = as_location(path)
    if directory_kind(location) == "index":
        raise SchnRayError(
            f"{path} is an index; give the codes that it was made of, whose parts workers share"
        )
    codes = open_artefact(local_copy(path), "codes")
    names = part_names(codes.manifest.files)
    shards = [_shard(codes, number, name) for number, name in enumerate(names)]
    rows = sum(shard.rows for shard in shards)
    split = Split(int(codes.manifest.config["bits"]), radius, -(-rows // partition_rows) or 1)
    with scratch_folder(out) as folder:
        files = as_location(folder.resolve() / "split")
        for _ in map_shards(
            functools.partial(split_part, codes=location, split=split, out=files), shards
        ):
            pass
        numbers = range(len(split.bands()) * split.partitions)
        partitions = [Partition(number, rows // split.partitions) for number in numbers]
        search = functools.partial(search_partition, parts=len(shards), split=split, files=files)
        nodes, labels = _connected(list(map_shards(search, partitions)))
        table = _rows_at(codes, names, nodes, labels)
        candidates = _TableRows(table["label"].to_numpy().astype(np.int64), table)
        described = {"radius": str(radius), "codes": codes.manifest.fingerprint}
        sizes_and_files = split.bits, radius, verification, rows, out, folder, described
        return group_candidates(candidates, Request(*sizes_and_files, keep))


def split_part(shard: Shard, codes: str, split: Split, out: str) -> int:
    """Split the rows of a part by every band: a file of a row group for each partition.

    Args:
        shard: a part of the codes.
        codes: location of the ``codes`` directory.
        split: how.
        out: location of the folder to write to.

    Returns:
        The part's number.

    Raises:
        SchnRayError: the part is damaged, or cannot be written.
    """
    (name,), (sha256,) = shard.files, shard.stamps
    packed = packed_codes(_part(join(codes, name), sha256, [CODE]))
    check_codes(packed, split.bits, f"the codes in {join(codes, name)}")
    words = word_view(packed)
    rows = np.arange(len(packed)) + (shard.number << _ROW_BITS)
    schema = pa.schema({"row": pa.int64(), CODE: pa.binary(packed.shape[1])})
    path = _split_path(out, shard.number)
    with (
        writing(path),
        new_file(path) as partial_path,
        pq.ParquetWriter(partial_path, schema) as writer,
    ):
        for band in split.bands():
            partition = keys_of(words, band) % np.uint64(split.partitions)
            for number in range(split.partitions):
                at = np.flatnonzero(partition == number)
                columns = [pa.array(rows[at]), code_column(packed[at])]
                writer.write_table(pa.table(columns, schema=schema))
        writer.close()
    return shard.number


def search_partition(partition: Partition, parts: int, split: Split, files: str) -> Edges:
    """Connect the rows of a partition.

    Args:
        partition: which one.
        parts: number of parts of the codes.
        split: how these were split.
        files: location of the folder of ``split_part``.

    Returns:
        Pairs of rows, int64 [e] and int64 [e], whose graph has the partition's components. Rows of
        equal codes are connected in the first band only, as they meet in all.
    """
    tables = []
    for number in range(parts):
        with open_file(_split_path(files, number)) as file, pq.ParquetFile(file) as part:
            tables.append(part.read_row_group(partition.number))
    table = pa.concat_tables(tables)
    rows = table["row"].to_numpy()
    return forest(packed_codes(table), rows, split, equal_codes=partition.number < split.partitions)


def forest(codes: Bytes, rows: NDArray[np.int64], split: Split, equal_codes: bool) -> Edges:
    """Return pairs of rows that connect what is connected, and no more than needed.

    Args:
        codes: uint8 [n, w], packed.
        rows: int64 [n], ascending, the numbers of the rows.
        split: bits of a code, and the radius.
        equal_codes: whether rows of equal codes are connected too.
    """
    order, starts = group_equal(codes)
    first = rows[order[starts]]  # of each distinct code, in every partition the same
    labels = connected_labels(np.ascontiguousarray(codes[order[starts]]), split.bits, split.radius)
    other = np.flatnonzero(labels != np.arange(len(labels)))
    edges = first[other], first[labels[other]]
    if not equal_codes:
        return edges
    repeated = np.ones(len(rows), np.bool_)
    repeated[starts] = False
    counts = np.diff(starts, append=len(rows))
    same = rows[order][repeated], np.repeat(first, counts)[repeated]
    return np.concatenate([edges[0], same[0]]), np.concatenate([edges[1], same[1]])


def _connected(edges: list[Edges]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Return all rows of the edges, ascending, and the label of each one's component."""
    first, second = (np.concatenate(side) for side in zip(*edges, strict=True))
    nodes = np.unique(np.concatenate([first, second]))
    components = Components(len(nodes))
    components.connect(np.searchsorted(nodes, first), np.searchsorted(nodes, second))
    return nodes, components.roots(np.arange(len(nodes)))


def _rows_at(
    codes: Artefact, names: list[str], nodes: NDArray[np.int64], labels: NDArray[np.uint32]
) -> pa.Table:
    """Read the rows that are in groups, in the order of their ids, with their labels."""
    tables = []
    for number, name in enumerate(names):
        low, high = np.searchsorted(nodes, [number << _ROW_BITS, (number + 1) << _ROW_BITS])
        if low < high:
            part = _part(str(codes.path / name), codes.manifest.files[name], list(_COLUMNS))
            at = nodes[low:high] & ((1 << _ROW_BITS) - 1)
            taken = part.take(pa.array(at)).append_column("label", pa.array(labels[low:high]))
            tables.append(taken)
    if not tables:
        empty = {"id": pa.string(), "uri": pa.string(), CODE: pa.binary(1), "label": pa.uint32()}
        return pa.schema(empty).empty_table()
    table = pa.concat_tables(tables)
    table = table.take(pc.sort_indices(table["id"])).combine_chunks()
    repeated = pc.equal(table["id"][:-1], table["id"][1:])
    if pc.any(repeated).as_py():
        id = table["id"].filter(pa.concat_arrays([*repeated.chunks, pa.array([False])]))[0]
        raise SchnRayError(
            f"{codes.path}: rows repeat an id, such as {id.as_py()!r}; ids must be unique: encode "
            "the images again from a source without repeats"
        )
    return table


@dataclass(eq=False)
class _TableRows:
    """The ``GroupedRows`` of a table in memory."""

    groups: NDArray[np.int64]
    table: pa.Table

    def names(self, at: NDArray[np.int64]) -> tuple[list[str], list[str]]:
        taken = self.table.take(pa.array(at))
        return taken["id"].to_pylist(), pc.fill_null(taken["uri"], "").to_pylist()

    def codes(self, at: NDArray[np.int64]) -> Bytes:
        return packed_codes(self.table.take(pa.array(at)))

    def contents(self, at: NDArray[np.int64]) -> Bytes:
        return contents_of(self.table.take(pa.array(at)))

    def chosen(self, at: NDArray[np.int64], groups: NDArray[np.int64]) -> GroupedRows:
        return _TableRows(groups, self.table.take(pa.array(at)))


def _shard(codes: Artefact, number: int, name: str) -> Shard:
    path, sha256 = codes.path / name, codes.manifest.files[name]
    try:
        rows, size = pq.read_metadata(path).num_rows, path.stat().st_size
    except (OSError, pa.ArrowException) as error:
        raise SchnRayError(f"{path} is damaged ({error}); encode the images again") from error
    return Shard(number, rows, files=(name,), bytes=size, stamps=(sha256,))


def _part(location: str, sha256: str, columns: list[str]) -> pa.Table:
    with pq.ParquetFile(io.BytesIO(read_verified(location, sha256, "codes"))) as part:
        columns = [name for name in columns if name in part.schema_arrow.names]
        return part.read(columns=columns)


def _split_path(folder: str, number: int) -> str:
    return join(folder, f"part-{number:05}.parquet")
