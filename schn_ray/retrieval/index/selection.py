"""What a search sees of an index: all rows, or only those that pass a filter.

``rows_that_pass`` evaluates a condition. ``select`` leaves out the codes that no passing row has,
and makes an index of the others: their codes, their rows and their lists. So a filter comes before
the ranking, and a search works as on an index that holds nothing else. A list that loses members
keeps its radius, which is then at least the largest distance to its centroid: what ``scan.Lists``
proves by it stays true.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import faiss
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schn_ray.retrieval.index.checked_files import CheckedFile
from schn_ray.retrieval.index.columns import IndexColumns
from schn_ray.retrieval.index.postings import Postings
from schn_ray.retrieval.index.scan import Bytes, Flat, Lists, Scan
from schn_ray.retrieval.index.string_columns import StringColumn
from schn_ray.retrieval.where import parse_condition

_FEWEST_BY_LISTS = 1 << 13  # codes; a flat scan of fewer is quicker than one by lists
_FEW = 8  # rows for each that passes: then it is quicker to sort those than to go through all


class SearchedCodes(NamedTuple):
    """What a search sees.

    Attributes:
        flat: scans all codes.
        scan: scans the codes, perhaps by lists.
        postings: the rows of each code.
    """

    flat: Flat
    scan: Scan
    postings: Postings


class _InMemory(CheckedFile):
    """An array of this process in place of a file: there is nothing to check."""

    def __init__(self, array: NDArray[Any]) -> None:
        self._array, self._good = array, np.ones(0, np.bool_)

    def array(self, dtype: type[np.generic]) -> NDArray[Any]:
        """Return the array."""
        return self._array


def rows_that_pass(
    condition: str, columns: IndexColumns, ids: StringColumn, uris: StringColumn
) -> NDArray[np.bool_]:
    """Tell which rows of an index meet a condition: bool [n].

    Args:
        condition: see ``where``.
        columns: of the index.
        ids: its ids, which a condition may name as ``id``.
        uris: its uris, as ``uri``.

    Raises:
        BadCondition: see ``parse_condition``.
        SchnRayError: a column is damaged.
    """
    own = {"id": ids, "uri": uris}
    kinds = columns.kinds | dict.fromkeys(own, "text")
    advice = "" if columns.kinds else ". The index has no others: index it again with --columns"
    parsed = parse_condition(condition, kinds, advice)
    arrays = {
        name: own[name].whole() if name in own else columns.read(name) for name in parsed.columns
    }
    return parsed.passing(pa.table(arrays))


def select(
    whole: SearchedCodes,
    passing: NDArray[np.bool_],
    numbers_of: Callable[[NDArray[np.int64]], NDArray[np.int64]],
) -> SearchedCodes:
    """Return what a search sees if only some rows pass.

    Args:
        whole: all rows.
        passing: bool [n].
        numbers_of: returns the numbers of the codes of rows.
    """
    passing_rows = np.flatnonzero(passing)
    if len(passing_rows) == len(passing):
        return whole
    if len(passing_rows) * _FEW < len(passing):
        numbers, starts, rows = _groups_of_few(passing_rows, numbers_of(passing_rows))
    else:
        numbers, starts, rows = _groups_of_many(whole.postings, passing)
    flat = Flat(whole.flat.codes_of(numbers))
    scan: Scan = flat
    if isinstance(whole.scan, Lists) and len(numbers) >= _FEWEST_BY_LISTS:
        scan = _with_members(whole.scan, numbers, len(whole.flat.codes), flat)
    files = {"starts": _InMemory(starts), "rows": _InMemory(rows)}
    return SearchedCodes(flat, scan, Postings(files))


def _groups_of_few(
    rows: NDArray[np.int64], numbers: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]:
    """Return the distinct codes of rows, where each one's rows begin, and the rows."""
    order = np.argsort(numbers, kind="stable")
    distinct, starts = np.unique(numbers[order], return_index=True)
    return distinct, np.append(starts, len(rows)), rows[order].astype(np.uint32)


def _groups_of_many(
    postings: Postings, passing: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.uint32]]:
    """As ``_groups_of_few``, without sorting: the lists of all rows, less those that fail."""
    starts, rows = postings.whole()
    passes = passing[rows]
    before = np.append(0, np.cumsum(passes))[starts]  # passing rows before each code's first
    distinct = np.flatnonzero(before[1:] > before[:-1])
    return distinct, np.append(before[distinct], before[-1]), rows[passes]


def _with_members(lists: Lists, numbers: NDArray[np.int64], codes: int, flat: Flat) -> Lists:
    """Return the lists of only these of u codes, which have new numbers in ``flat``.

    Lists without members are left out, so that a search looks first at the nearest that have some.
    """
    lists.check(np.arange(len(lists.radii)))
    new_number = np.full(codes, -1)
    new_number[numbers] = np.arange(len(numbers))
    old, width = lists.ivf.invlists, lists.ivf.code_size
    filled, contents = [], list[tuple[NDArray[np.int64], Bytes]]()
    for i in np.flatnonzero(lists.sizes).tolist():
        size = int(lists.sizes[i])
        own = new_number[faiss.rev_swig_ptr(old.get_ids(i), size)]
        chosen = own >= 0
        if chosen.any():
            members = faiss.rev_swig_ptr(old.get_codes(i), size * width).reshape(size, width)
            filled.append(i)
            contents.append((own[chosen], members[chosen]))
    return Lists(
        _inverted(lists.centroids[filled], contents), lists.radii[filled], lists.probes, flat
    )


def _inverted(centroids: Bytes, contents: list[tuple[NDArray[np.int64], Bytes]]) -> Any:
    """Return faiss's index of lists; contents: each one's numbers and codes."""
    bits, width = 8 * centroids.shape[1], centroids.shape[1]
    lists: Any = faiss.ArrayInvertedLists(len(contents), width)
    for i, (numbers, codes) in enumerate(contents):
        lists.add_entries(i, len(numbers), faiss.swig_ptr(numbers), faiss.swig_ptr(codes))
    quantizer: Any = faiss.IndexBinaryFlat(bits)
    quantizer.add(centroids)
    ivf: Any = faiss.IndexBinaryIVF(quantizer, bits, len(contents))
    ivf.replace_invlists(lists, True)
    lists.this.disown()  # the index frees them
    ivf.is_trained, ivf.ntotal = True, sum(len(numbers) for numbers, _ in contents)
    ivf.referenced_objects = [quantizer]
    return ivf
