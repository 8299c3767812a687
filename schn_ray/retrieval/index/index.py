"""Open an index and search it, exactly; look up the codes, ids and uris of its rows.

A search runs in two steps. ``nearest`` chooses distinct codes near the queries, and ``postings``
expands them into rows and ranks these, ties included. ``scores`` and ``rescoring`` rank by scores.

Files are mapped and hashed block by block before their first use, see ``checked_files``. Opening
checks the manifest's own digest, the blocks' digests and all sizes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.core.artefacts import Artefact
from schn_ray.core.errors import SchnRayError, UnknownId
from schn_ray.core.manifest import MANIFEST, Manifest, read_manifest
from schn_ray.core.storage.cache import local_copy
from schn_ray.retrieval.index.checked_files import DIGESTS, CheckedFile, open_checked
from schn_ray.retrieval.index.columns import ColumnsOfRows, IndexColumns
from schn_ray.retrieval.index.contents import DIGEST, open_contents
from schn_ray.retrieval.index.matches import (
    Matches,
    Scored,
    Within,
    no_matches,
    none_within,
)
from schn_ray.retrieval.index.nearest import NearestRows
from schn_ray.retrieval.index.postings import Postings, Ranked
from schn_ray.retrieval.index.rescoring import Candidates, as_candidates, rescore
from schn_ray.retrieval.index.scan import Bytes, Flat, Pairs, Scan, concat_pairs, open_lists
from schn_ray.retrieval.index.scores import ScoreScan
from schn_ray.retrieval.index.selection import SearchedCodes, rows_that_pass, select
from schn_ray.retrieval.index.string_columns import StringColumn
from schn_ray.retrieval.index.vectors import IndexVectors

T = TypeVar("T")


class Index:
    """An opened index of n rows with u distinct codes; ``open_index`` makes it.

    Rows are numbered in the order of their ids. Threads may share one index.

    Attributes:
        path: the directory on this machine.
        manifest: what the directory records about itself.
        bits: of a code.
        model: fingerprint of the model that encoded the rows.
    """

    def __init__(self, path: Path, manifest: Manifest, files: dict[str, CheckedFile]) -> None:
        self.path, self.manifest = path, manifest
        self.bits, self.model = int(manifest.config["bits"]), str(manifest.config["model"])
        n, u = int(manifest.counts["rows"]), int(manifest.counts["unique_codes"])
        _check_sizes(files, n, u, bytes_per_code(self.bits))
        self._codes_file, self._number_file = files["codes"], files["code_of_row"]
        self._codes = self._codes_file.array(np.uint8).reshape(u, bytes_per_code(self.bits))
        self._number_of_row = self._number_file.array(np.uint32)
        self._ids, self._uris = StringColumn(files, "ids", n), StringColumn(files, "uris", n)
        self._columns = IndexColumns(files, n)
        self._contents = open_contents(files, n)
        names = manifest.config.get("with", ())
        self._vectors = {name: IndexVectors(files, name, n) for name in names}
        flat, postings = Flat(self._codes, self._codes_file), Postings(files)
        scan: Scan = flat
        if manifest.counts.get("lists"):
            scan = open_lists(files, int(manifest.counts["probes"]), flat)
        self._whole = SearchedCodes(flat, scan, postings)
        self._search_in(self._whole, None)

    def _search_in(self, searched: SearchedCodes, passing: NDArray[np.bool_] | None) -> None:
        """Set what searches see, and which rows that is; None: all."""
        self._flat, self._scan, self._postings = searched
        self._nearest = NearestRows(self._scan, self._flat, self._postings, self.bits)
        self._scores = ScoreScan(self._scan, self._flat, self._postings, self.bits)
        self._passing = passing
        self._rows = len(self._ids) if passing is None else int(np.count_nonzero(passing))

    def __len__(self) -> int:
        """Return the number of rows; after ``where``, of those that pass."""
        return self._rows

    def __repr__(self) -> str:
        return (
            f"Index({str(self.path)!r}: {len(self):,} rows, {self.unique_codes:,} codes of "
            f"{self.bits} bits)"
        )

    @property
    def unique_codes(self) -> int:
        """The number of distinct codes."""
        return len(self._codes)

    def search(self, codes: Bytes, k: int) -> Matches:
        """Find the k rows nearest to each code, exactly; ties come in the order of ids.

        Args:
            codes: uint8 [q, ceil(bits / 8)], packed, padding bits 0.
            k: matches of each query; an index of fewer rows returns them all.

        Raises:
            SchnRayError: k < 1, codes of another width than the index holds, or a damaged index.

        Example:
            ``open_index("index").search(codes, k=10).ids(0)`` are the ids nearest to ``codes[0]``.
        """
        if k < 1:
            raise SchnRayError(f"k is {k}; ask for at least 1 match")
        check_codes(codes, self.bits, "the query codes")
        k = min(k, len(self))
        if not k:
            return no_matches(len(codes), self)
        matches = Matches(
            np.empty((len(codes), k), np.int64),
            np.empty((len(codes), k), np.int32),
            np.empty(len(codes), np.int64),
            self,
        )
        for block, pairs, levels in self._nearest.blocks(codes, k, None):
            ranked = self._postings.rank(pairs, block.stop - block.start, k)
            matches.rows[block] = ranked.rows.reshape(-1, k)
            matches.distances[block] = ranked.distances.reshape(-1, k)
            matches.tied[block] = levels.tied
        return matches

    def within(self, codes: Bytes, radius: int, most: int | None = None) -> Within:
        """Find all rows at most ``radius`` bits from each code.

        Args:
            codes: uint8 [q, ceil(bits / 8)], packed, padding bits 0.
            radius: in bits; 0 for equal codes.
            most: return only so many rows of each query, the nearest; all rows are counted.

        Raises:
            SchnRayError: a negative radius, most < 1, or as ``search``.
        """
        if radius < 0 or (most is not None and most < 1):
            raise SchnRayError(
                f"radius is {radius}, most is {most}; the least are a radius of 0 and 1 row"
            )
        check_codes(codes, self.bits, "the query codes")
        if not len(self):
            return none_within(len(codes), self)
        parts, counts = list[Ranked](), list[NDArray[np.int64]]()
        for block, pairs, levels in self._nearest.blocks(codes, most, radius):
            counts.append(levels.within_radius)
            parts.append(self._postings.rank(pairs, block.stop - block.start, most))
        lengths = [np.diff(part.starts) for part in parts]
        return Within(
            np.append(0, np.cumsum(np.concatenate([*lengths, np.zeros(0, np.int64)]))),
            np.concatenate([*(part.rows for part in parts), np.zeros(0, np.int64)]),
            np.concatenate([*(part.distances for part in parts), np.zeros(0, np.int32)]),
            np.concatenate([*counts, np.zeros(0, np.int64)]),
            self,
        )

    def scored(
        self, relaxed: NDArray[np.floating], k: int | None, radius: int | None = None
    ) -> Scored:
        """Find the k rows of the best scores q . b, exactly; equal scores in the order of ids.

        Args:
            relaxed: [q, bits], what the model gives before the sign (``Hasher.relaxed_of``).
            k: rows of each query; None for all within the radius.
            radius: only rows at most so many bits from sign(q); None for any distance.

        Raises:
            SchnRayError: k < 1, neither k nor a radius, numbers of another width than the index
                has bits or that are not finite, or a damaged index.

        Example:
            ``open_index("index").scored(hasher.relaxed_of(["query.jpg"]), k=10).scores``
        """
        return self._scores.search(relaxed, k, radius, self)

    def rescored(
        self,
        by: str,
        codes: Bytes,
        vectors: NDArray[np.floating],
        k: int | None,
        candidates: int | None,
        radius: int | None = None,
    ) -> Scored:
        """Find the k best by the cosine of vectors among the rows nearest by distance.

        Args:
            by: "relaxed" or "features", vectors that the index was built with.
            codes: uint8 [q, ceil(bits / 8)], packed: they choose the candidates.
            vectors: [q, d], relaxed outputs or features: they score them (``Hasher.outputs_of``).
            k: rows of each query; None for all candidates.
            candidates: rows to score of each query, the nearest; all that tie with the last are
                scored, too. None for all within the radius.
            radius: only rows at most so many bits away; None for any distance.

        Returns:
            The rows, best score first, equal scores in the order of ids; ``Scored.candidates`` is
            how many were scored. A row that was not might have had a better score.

        Raises:
            SchnRayError: an index without these vectors, or queries that do not fit it.

        Example:
            ``index.rescored("features", codes, F, k=10, candidates=100).ids(0)``
        """
        return rescore(
            [self], [0], by, codes, vectors, k, candidates, radius, self, lambda rows: rows
        )

    def candidates(self, codes: Bytes, most: int | None, radius: int | None) -> Candidates:
        """Return the codes of the ``most`` nearest rows of each query, their last ties included.

        Args:
            codes: uint8 [q, ceil(bits / 8)].
            most: rows of each query; None for all within the radius.
            radius: only rows at most so many bits away; None for any distance.

        Raises:
            SchnRayError: as ``within``.
        """
        check_codes(codes, self.bits, "the query codes")
        if not len(self):  # none passes a filter
            return as_candidates(concat_pairs([]), len(codes), np.zeros(len(codes), np.int64))
        parts, counts = list[Pairs](), [np.zeros(0, np.int64)]
        for block, pairs, levels in self._nearest.blocks(codes, most, radius):
            parts.append(pairs._replace(queries=pairs.queries + block.start))
            counts.append(levels.within_radius)
        return as_candidates(concat_pairs(parts), len(codes), np.concatenate(counts))

    @property
    def vector_names(self) -> tuple[str, ...]:
        """The vectors that the index was built with."""
        return tuple(self._vectors)

    def row_vectors(self, name: str) -> tuple[IndexVectors, Postings]:
        """Return vectors of all rows, and the rows of each code.

        Raises:
            SchnRayError: the index has none of this name.
        """
        if name not in self._vectors:
            raise SchnRayError(
                f"{self.path} has no vectors to rescore by {name}: index its codes again with "
                f"--with {name}"
            )
        return self._vectors[name], self._postings

    def vectors(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.int8]:
        """Return the vectors of rows, as the index has them: int8 [r, d].

        Raises:
            SchnRayError: the index has none of this name.
        """
        return self.row_vectors(name)[0].at(rows)

    def where(self, condition: str) -> Index:
        """Return this index as searches see it if it held only the rows that meet a condition.

        Rows keep their numbers; ``ids``, ``uris``, ``codes`` and ``find`` are of all rows. Making
        it takes milliseconds for each million rows, so use it for more than one search.

        Args:
            condition: such as ``"label = 'cat' and year >= 2020"``, over the index's columns, and
                ``id`` and ``uri``; see ``retrieval.where``.

        Raises:
            BadCondition: it does not parse, names no column, or compares what cannot be compared.
            SchnRayError: a damaged index.

        Example:
            ``open_index("index").where("year >= 2020").search(codes, k=10)``
        """
        passing = rows_that_pass(condition, self._columns, self._ids, self._uris)
        if self._passing is not None:
            passing &= self._passing
        view = copy.copy(self)
        view._search_in(select(self._whole, passing, self._numbers_of), passing)
        return view

    def passes(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Tell which rows searches see, see ``where``; rows: int64 [r]."""
        return np.ones(len(rows), np.bool_) if self._passing is None else self._passing[rows]

    @property
    def is_filtered(self) -> bool:
        """Whether searches see only rows that meet a condition, see ``where``."""
        return self._passing is not None

    @property
    def kinds(self) -> dict[str, str]:
        """The columns beside the rows, for ``where``: name -> kind, see ``where.KINDS``."""
        return dict(self._columns.kinds)

    def ids(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the ids of rows; rows: int64 [r]."""
        return self._ids.take(rows)

    def uris(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the uris of rows, the locations of their images; rows: int64 [r]."""
        return self._uris.take(rows)

    def find(self, id: str) -> int:
        """Return the row of an id.

        Raises:
            UnknownId: the id is not in the index.
            SchnRayError: the index is damaged.
        """
        row = self._ids.find(id)
        if row is None:
            (first,) = self._ids.take(np.zeros(1, np.int64))
            raise UnknownId(f"{id!r} is not an id of {self.path}; they look like {first!r}")
        return row

    def codes(self, rows: NDArray[np.int64]) -> Bytes:
        """Return the packed codes of rows: uint8 [r, ceil(bits / 8)]."""
        return self._whole.flat.codes_of(self._numbers_of(rows))

    def contents(self, rows: NDArray[np.int64]) -> Bytes:
        """Return digests of the bytes of rows: uint8 [r, 16], zeros where they are not known."""
        if self._contents is None:
            return np.zeros((len(rows), DIGEST), np.uint8)
        return self._contents.of(rows)

    def same_contents(self, digests: Bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return pairs of a digest, of uint8 [q, 16], and a row that has it; see ``contents``."""
        if self._contents is None:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        numbers, rows = self._contents.rows_of(digests)
        passes = self.passes(rows)
        return numbers[passes], rows[passes]

    def numbers(self) -> NDArray[np.int64]:
        """Return the number of each row's code, a row number into ``distinct()[0]``: int64 [n]."""
        self._number_file.check_all()
        return self._number_of_row.astype(np.int64)

    def distinct(self) -> tuple[Bytes, Postings]:
        """Return all distinct codes, uint8 [u, ceil(bits / 8)], and the lists of their rows."""
        self._codes_file.check_all()
        return self._codes, self._whole.postings

    def columns(self) -> tuple[StringColumn, StringColumn]:
        """Return the columns of ids and of uris."""
        return self._ids, self._uris

    def column(self, name: str) -> pa.Array[Any]:
        """Return a column beside the rows, such as label, mapped: [n]; name: of ``kinds``."""
        return self._columns.read(name)

    def columns_of(self, rows: NDArray[np.int64]) -> ColumnsOfRows:
        """Return the columns beside the rows, such as label; rows: int64 [r], ascending."""
        return ColumnsOfRows(self._ids.whole(), rows, self._columns)

    def info(self) -> dict[str, Any]:
        """Return counts, size on disk, and how the index is searched, for ``index --info``."""
        rows, counts = len(self._ids), dict(self.manifest.counts)
        size = sum(self.manifest.sizes.values())
        return {
            **counts,
            "bits": self.bits,
            "unique_share": round(self.unique_codes / rows, 4),
            "scan": "lists" if counts.get("lists") else "all distinct codes",
            **{name: vectors.width for name, vectors in self._vectors.items()},
            "bytes": size,
            "bytes_a_row": round(size / rows, 1),
            "model": self.model,
            "made_by": self.manifest.versions.get("schn-ray", "?"),
        }

    def _numbers_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        self._number_file.check(4 * rows, 4 * rows + 4)
        return self._number_of_row[rows].astype(np.int64)


def open_index(path: str | Path) -> Index:
    """Open an index. Its files stay on disk, mapped, and are checked where they are read.

    Args:
        path: the index, a path or a URI. One at a URI is copied to this machine once.

    Raises:
        SchnRayError: ``path`` is not a finished index, or is damaged.
    """
    return _of_one_version(local_copy(path), _opened)


def verify_index(path: str | Path) -> int:
    """Check every file of an index against its SHA-256.

    Args:
        path: the index, a path or a URI.

    Returns:
        How many bytes were checked.

    Raises:
        SchnRayError: a file differs; it is named.
    """

    def verify(path: Path, manifest: Manifest) -> int:
        _opened(path, manifest)
        Artefact(path, manifest).check(anew=True)
        return sum(manifest.sizes.values())

    return _of_one_version(local_copy(path), verify)


def _of_one_version(path: Path, work: Callable[[Path, Manifest], T]) -> T:
    """Let ``work`` read the files of a manifest, and once more if the index changes meanwhile."""
    manifest = read_manifest(path, "index")
    while True:
        try:
            return work(path, manifest)
        except SchnRayError:
            current = read_manifest(path, "index")
            if current == manifest:
                raise
            manifest = current


def _opened(path: Path, manifest: Manifest) -> Index:
    try:
        return Index(path, manifest, _files(_folder(path, manifest), manifest))
    except (KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        raise SchnRayError(f"{path} is damaged ({error}); make the index again") from error


def _folder(path: Path, manifest: Manifest) -> Path:
    """Return the folder of the manifest's version."""
    digests = [name for name in manifest.files if Path(name).name == DIGESTS]
    if len(digests) != 1:
        raise SchnRayError(f"{path / MANIFEST} is damaged; make the index again")
    return path / Path(digests[0]).parent


def _files(folder: Path, manifest: Manifest) -> dict[str, CheckedFile]:
    return open_checked(folder, manifest.files[f"{folder.name}/{DIGESTS}"])


def _check_sizes(files: dict[str, CheckedFile], n: int, u: int, width: int) -> None:
    expected = {"codes": u * width, "starts": 8 * (u + 1), "rows": 4 * n, "code_of_row": 4 * n}
    for name, size in expected.items():
        if (actual := len(files[name].data)) != size:
            raise SchnRayError(
                f"{files[name].path} is damaged: {actual:,} bytes, expected {size:,}; make the "
                "index again"
            )


def check_codes(codes: Bytes, bits: int, what: str) -> None:
    """Refuse codes that do not have this many bits.

    Args:
        codes: what should be uint8 [n, ceil(bits / 8)], padding bits 0.
        bits: of a code.
        what: names the codes in the error message.

    Raises:
        SchnRayError: another type or width, or bits set beyond the last.
    """
    width = bytes_per_code(bits)
    if codes.dtype != np.uint8 or codes.ndim != 2 or codes.shape[1] != width:
        raise SchnRayError(
            f"{what} are {codes.dtype} of shape {codes.shape}; the index holds {bits} bits and "
            f"expects uint8 [n, {width}]. Codes and index must come from the same model"
        )
    if bits % 8 and (codes[:, -1] >> bits % 8).any():
        raise SchnRayError(
            f"{what} have bits set beyond the {bits} that the index holds. Codes and index must "
            "come from the same model"
        )


def bytes_per_code(bits: int) -> int:
    """Return the bytes of a packed code.

    Args:
        bits: of a code.

    Example:
        >>> bytes_per_code(12)
        2
    """
    return -(-bits // 8)
