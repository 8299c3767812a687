import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from schn_ray.data.labels import label_matrix, label_sets, multi_hot, share_a_label, without_implied

CLASSES = 5
label_lists = st.lists(st.lists(st.integers(0, CLASSES - 1), max_size=4), max_size=30)


@given(label_lists)
def test_label_matrix_has_a_one_where_a_row_has_a_class(labels: list[list[int]]) -> None:
    matrix = label_matrix(labels, CLASSES)
    dense = [[int(c in row) for c in range(CLASSES)] for row in labels]
    assert matrix.dtype == np.uint8
    assert matrix.toarray().tolist() == dense
    rows = np.arange(len(labels))[::-1]
    assert torch.equal(multi_hot(matrix, rows), torch.tensor(dense).reshape(-1, CLASSES).flip(0))


@given(label_lists)
def test_label_sets_are_the_distinct_rows(labels: list[list[int]]) -> None:
    matrix = label_matrix(labels, CLASSES)
    result = label_sets(matrix)
    as_sets = [frozenset(row) for row in labels]
    first_seen = list(dict.fromkeys(as_sets))
    assert result.set_of_row.tolist() == [first_seen.index(s) for s in as_sets]
    assert [frozenset(np.flatnonzero(row)) for row in result.sets.toarray()] == first_seen
    assert result.sizes.tolist() == [as_sets.count(s) for s in first_seen]


@given(label_lists, label_lists)
def test_rows_are_similar_where_they_share_a_label(
    left: list[list[int]], right: list[list[int]]
) -> None:
    similar = share_a_label(label_matrix(left, CLASSES), label_matrix(right, CLASSES))
    assert similar.tolist() == [[bool(set(a) & set(b)) for b in right] for a in left]


def test_sharing_256_labels_is_sharing_labels() -> None:
    matrix = label_matrix([range(256)], 256)
    assert share_a_label(matrix, matrix).all()


@pytest.mark.parametrize("label", [-1, 3])
def test_a_class_outside_is_an_error(label: int) -> None:
    with pytest.raises(ValueError, match=f"class {label} is outside 0..2"):
        label_matrix([[0], [label]], 3)


def test_order_of_columns_in_memory_does_not_matter() -> None:
    matrix = label_matrix([[0, 3], [0, 3]], 4)
    matrix.indices[2:] = [3, 0]
    matrix.has_sorted_indices = False
    assert label_sets(matrix).set_of_row.tolist() == [0, 0]


def test_many_rows_of_40_000_classes_stay_sparse() -> None:
    classes = np.random.default_rng(0).integers(0, 40_000, 100_000)
    classes[:40_000] = np.arange(40_000)
    result = label_sets(label_matrix(classes[:, None], 40_000))
    assert np.array_equal(result.set_of_row, classes)
    assert result.sets.nnz == 40_000


@given(label_lists)
def test_without_implied_labels_the_same_rows_are_similar(labels: list[list[int]]) -> None:
    matrix = label_matrix(labels, CLASSES)
    fewer = without_implied(matrix)
    assert np.array_equal(share_a_label(fewer, fewer), share_a_label(matrix, matrix))
    rows_of = [frozenset(np.flatnonzero(column)) for column in fewer.toarray().T]
    assert not any(a <= b for i, a in enumerate(rows_of) for b in rows_of[:i] + rows_of[i + 1 :])
