"""Read codes or embeddings of another program with their labels: the queries and the gallery."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.data.array_files import Arrays, Values, read_arrays
from schn_ray.evaluation import label_files
from schn_ray.evaluation.label_files import Labels, in_common, labels_of
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes
from schn_ray.retrieval.foreign_codes import NAMES, PackedCodes, ids_of, packed_of, signs_of

SPLIT = ("split", "role")
_QUERY = frozenset(("query", "queries", "test"))
_GALLERY = frozenset(("gallery", "database", "db", "retrieval"))
_EMBEDDINGS = ("embedding", "embeddings", "features", "vector", "vectors", "F")


@dataclass(frozen=True)
class ForeignFiles:
    """What is measured; each a path, a URI or an array, see ``data.array_files.read_arrays``.

    Attributes:
        codes: of the gallery, or of all rows; see ``retrieval.foreign_codes.packed_of``.
        embeddings: in place of codes: their signs are the codes, and their cosines are measured.
        labels: of the same rows, see ``evaluation.label_files.labels_of``; by default, those in the
            file of the codes.
        queries: codes or embeddings of the queries.
        query_labels: of the queries; by default, those in the file of the queries.
        split: where the queries are among the rows, of each row ``query`` (``test``) or ``gallery``
            (``database``), or 1 and 0; others are not ranked. By default, that in the file.
        bits: of packed codes, where it is no multiple of 8.
        store: in place of labels, queries and split: the store that the rows are of, by their ids.
        encoded: whether gallery codes were encoded from images alone, as the user says; they may
            be compared with those of a run then.
    """

    codes: Any = None
    embeddings: Any = None
    labels: Any = None
    queries: Any = None
    query_labels: Any = None
    split: Any = None
    bits: int | None = None
    store: Any = None
    encoded: bool = False


@dataclass(frozen=True, eq=False)
class ForeignRows:
    """Queries or gallery.

    Attributes:
        codes: [n] of them.
        labels: of the same rows; None where there are none.
        ids: [n]; None where the rows have only their numbers.
        features: [n, d]; None where only codes are known.
        source: their file, for messages.
        stored: int64 [n], ascending, their rows of a store; None without one.
    """

    codes: PackedCodes
    labels: Labels | None
    ids: list[str] | None
    features: NDArray[Any] | None
    source: str
    stored: NDArray[np.int64] | None = None

    def __getitem__(self, rows: NDArray[np.int64]) -> ForeignRows:
        labels = self.labels
        return ForeignRows(
            PackedCodes(self.codes.packed[rows], self.codes.bits),
            None if labels is None else Labels(labels.matrix[rows], labels.classes, labels.one_hot),
            None if self.ids is None else [self.ids[row] for row in rows],
            None if self.features is None else self.features[rows],
            self.source,
            None if self.stored is None else self.stored[rows],
        )

    @property
    def identity(self) -> str:
        """SHA-256 over ids and labels: equal where codes of two methods may be compared."""
        digest = hashlib.sha256(f"{len(self.codes.packed)}\n".encode())
        digest.update("\n".join(self.ids or ()).encode("utf-8", "surrogatepass"))
        if self.labels is not None:
            matrix = self.labels.matrix
            columns, indices = np.unique(matrix.indices, return_inverse=True)
            names = "\n".join(self.labels.classes[column] for column in columns)
            digest.update(names.encode("utf-8", "surrogatepass"))
            digest.update(np.asarray(matrix.indptr, np.int64).tobytes())
            digest.update(np.asarray(indices, np.int64).tobytes())
        return digest.hexdigest()

    def labelled(self) -> LabelledCodes:
        """Return the codes with their labels, [n, 0] where there are none."""
        n = len(self.codes.packed)
        matrix = (
            csr_array(np.zeros((n, 0), np.uint8)) if self.labels is None else self.labels.matrix
        )
        rows = np.arange(n) if self.stored is None else self.stored
        return LabelledCodes(rows, self.codes.packed, matrix)

    def features_of(self, ranked: LabelledCodes) -> NDArray[np.float32]:
        """Return the features of some of these rows, as ``labelled`` numbers them."""
        assert self.features is not None
        at = ranked.rows if self.stored is None else np.searchsorted(self.stored, ranked.rows)
        return np.asarray(self.features[at], np.float32)


def read_foreign(files: ForeignFiles) -> tuple[ForeignRows, ForeignRows, dict[str, str]]:
    """Read queries and gallery.

    Args:
        files: where they are.

    Returns:
        The queries, the gallery, and name -> fingerprint of what they were read from.

    Raises:
        SchnRayError: files that cannot be read, that do not fit together, or without any labels
            where there are no embeddings either.
    """
    arrays, labels = _opened(one_source(files), files.labels, files)
    rows, made_from = _rows(arrays, labels, files), {"codes": arrays.sha256}
    if labels is not None:
        made_from["labels"] = labels.sha256
    if files.queries is None:
        return *_fitting(*_split_rows(rows, arrays, files, made_from)), made_from
    if files.split is not None:
        raise SchnRayError("--split says which rows are queries: leave --queries out")
    arrays, labels = _opened(files.queries, files.query_labels, files)
    made_from["queries"] = arrays.sha256
    if labels is not None:
        made_from["query_labels"] = labels.sha256
    return *_fitting(_rows(arrays, labels, files), rows), made_from


def one_source(files: ForeignFiles) -> Any:
    """Return the codes or the embeddings, of which there must be one.

    Args:
        files: where they are.

    Raises:
        SchnRayError: both or none.
    """
    if (files.codes is None) == (files.embeddings is None):
        raise SchnRayError("give --codes FILE or --embeddings FILE, one of the two")
    return files.codes if files.embeddings is None else files.embeddings


def read_foreign_rows(files: ForeignFiles) -> tuple[ForeignRows, str]:
    """Read all rows, without labels.

    Args:
        files: where they are.

    Returns:
        The rows, and the fingerprint of what they were read from.

    Raises:
        SchnRayError: a file that cannot be read, or holds something else.
    """
    arrays, _ = _opened(one_source(files), None, files)
    return replace(_rows(arrays, None, files), labels=None), arrays.sha256


def _split_rows(
    rows: ForeignRows, arrays: Arrays, files: ForeignFiles, made_from: dict[str, str]
) -> tuple[ForeignRows, ForeignRows]:
    """Return queries and gallery among all rows; note the split's fingerprint."""
    if files.split is None:
        split, roles = arrays, arrays.named(*SPLIT)
    else:
        split = read_arrays(files.split, "split")
        roles, made_from["split"] = split.one(*SPLIT), split.sha256
    if roles is None:
        raise SchnRayError(
            f"{arrays.source}: which rows are queries? Give their codes with --queries FILE, or "
            "--split FILE with 'query' or 'gallery' for each row, or a column of that name"
        )
    is_query, is_gallery = _roles(roles, len(rows.codes.packed), split.source)
    return rows[np.flatnonzero(is_query)], rows[np.flatnonzero(is_gallery)]


def _opened(source: Any, labels: Any, files: ForeignFiles) -> tuple[Arrays, Arrays | None]:
    arrays = read_arrays(source, "codes" if files.embeddings is None else "embeddings")
    return arrays, None if labels is None else read_arrays(labels, "labels")


def _rows(arrays: Arrays, labels: Arrays | None, files: ForeignFiles) -> ForeignRows:
    values, features = arrays.one(*NAMES, *_EMBEDDINGS), None
    if files.embeddings is None:
        codes = packed_of(values, arrays.source, files.bits)
    else:
        codes = signs_of(values, arrays.source)
        features = np.asarray(values)
    rows = len(codes.packed)
    known = _labels(arrays, labels)
    if known is not None and known.matrix.shape[0] != rows:
        source = arrays.source if labels is None else labels.source
        raise SchnRayError(
            f"{source} has labels of {known.matrix.shape[0]:,} rows, {arrays.source} has {rows:,} "
            "rows: expected as many, in the same order"
        )
    ids = ids_of(arrays, rows) if arrays.named("id", "ids") is not None else None
    return ForeignRows(codes, known, ids, features, arrays.source)


def _labels(arrays: Arrays, labels: Arrays | None) -> Labels | None:
    if labels is not None:
        return labels_of(labels.one(*label_files.NAMES), labels.source)
    own = arrays.named(*label_files.NAMES)
    return None if own is None else labels_of(own, arrays.source)


def _fitting(queries: ForeignRows, gallery: ForeignRows) -> tuple[ForeignRows, ForeignRows]:
    """Check that queries and gallery go together, and give their labels the same columns."""
    for side, role in ((queries, "query"), (gallery, "gallery")):
        if not len(side.codes.packed):
            raise SchnRayError(f"{side.source} has no {role} rows: nothing to measure")
    if queries.codes.bits != gallery.codes.bits:
        raise SchnRayError(
            f"the queries of {queries.source} have {queries.codes.bits} bits, the gallery of "
            f"{gallery.source} has {gallery.codes.bits}: expected codes of one method"
        )
    if (queries.labels is None) != (gallery.labels is None):
        missing, option = (
            (queries, "--query-labels") if queries.labels is None else (gallery, "--labels")
        )
        raise SchnRayError(f"{missing.source} has no labels: give them with {option} FILE")
    if queries.labels is None or gallery.labels is None:
        if gallery.features is None:
            raise SchnRayError(
                "codes alone cannot be measured: give --labels FILE, or --embeddings FILE, whose "
                "exact neighbours need no labels"
            )
        return queries, gallery
    sources = queries.source, gallery.source
    of_queries, of_gallery = in_common(queries.labels, gallery.labels, sources)
    return replace(queries, labels=of_queries), replace(gallery, labels=of_gallery)


def _roles(roles: Values, rows: int, source: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which rows are queries, and which are gallery."""
    if len(roles) != rows:
        raise SchnRayError(f"{source} has {len(roles):,} rows, and there are {rows:,} codes")
    if isinstance(roles, np.ndarray) and roles.dtype.kind in "biu":
        if not np.isin(roles, (0, 1)).all():
            raise SchnRayError(f"{source}: expected 1 for a query and 0 for a gallery row")
        return roles == 1, roles == 0
    words = [_word(role) for role in roles]
    return np.isin(words, list(_QUERY)), np.isin(words, list(_GALLERY))


def _word(role: Any) -> str:
    role = role[0] if isinstance(role, list) and role else role
    return str(role).strip().lower()
