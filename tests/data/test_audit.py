"""The split audit: what is planted is found, named and refused; and the split by unseen classes."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import PrepareConfig
from schn_ray.data.labels import label_matrix
from schn_ray.data.shards.equal_rows import first_rows
from schn_ray.data.splits.audit import Audit, audit
from schn_ray.data.splits.protocols import PROTOCOLS, ROLES, Split, split

ROWS = 100
IDS = [f"i{row}" for row in range(ROWS)]


def clean() -> Split:
    rows = np.arange(ROWS)
    return {
        "query": rows[:10],
        "train": rows[10:40],
        "validation": rows[40:50],
        "gallery": rows[50:],
    }


def audited(
    roles: Split,
    ids: list[str] | None = None,
    content: NDArray[np.int64] | None = None,
    unlabelled: tuple[int, ...] = (),
    protocol: str | None = None,
) -> Audit:
    empty = np.isin(np.arange(ROWS), unlabelled)
    images = first_rows(np.arange(ROWS) if content is None else content)
    rules = PROTOCOLS[protocol] if protocol else None
    return audit(roles, pa.chunked_array([ids or IDS]), images, empty, rules)


def test_a_clean_split_has_no_findings() -> None:
    result = audited(clean())
    assert result.summary() == result.spoiling() == []
    assert result.rows == {"query": 10, "train": 30, "validation": 10, "gallery": 50}


@pytest.mark.parametrize(
    ("role", "where"),
    [("gallery", "the gallery"), ("train", "training"), ("validation", "training")],
)
def test_planted_queries_are_named(role: str, where: str) -> None:
    roles = clean()
    roles[role] = np.sort(np.concatenate([roles[role], [3, 7]]))
    result = audited(roles)
    assert result.summary() == [f"2 queries are in {where}"]
    assert result.spoiling() == [f"2 queries are in {where}:", "  i3", "  i7"]


@pytest.mark.parametrize(
    ("row", "where"), [(60, "the gallery"), (12, "training"), (45, "training")]
)
def test_planted_copies_are_named_with_what_they_copy(row: int, where: str) -> None:
    content = np.arange(ROWS)
    content[4] = content[row]
    result = audited(clean(), content=content)
    assert result.spoiling() == [
        f"1 queries have an identical image in {where}:",
        f"  i4 (as i{row})",
    ]


def test_the_same_row_is_an_overlap_and_no_copy() -> None:
    roles = clean()
    roles["gallery"] = np.append(roles["gallery"], 5)
    assert [finding.what for finding in audited(roles).findings] == ["queries are in the gallery"]


@pytest.mark.parametrize(("row", "role"), [(2, "query"), (70, "gallery")])
def test_planted_unlabelled_rows_are_named(row: int, role: str) -> None:
    result = audited(clean(), unlabelled=(row,))
    assert result.spoiling() == [f"1 {role} rows have no label:", f"  i{row}"]


def test_unlabelled_training_rows_are_named_and_spoil_nothing() -> None:
    result = audited(clean(), unlabelled=(20,))
    assert [finding.what for finding in result.findings] == ["train rows have no label"]
    assert result.spoiling() == []


def test_planted_ids_that_repeat_are_named() -> None:
    ids = [*IDS]
    ids[61] = ids[60]
    assert audited(clean(), ids).spoiling() == ["1 gallery rows repeat an id:", "  i60"]


def test_an_image_that_is_twice_spoils_only_queries() -> None:
    content = np.arange(ROWS)
    content[61] = content[60]
    result = audited(clean(), content=content)
    assert result.summary() == ["1 gallery rows repeat an image"]
    assert result.findings[0].listed() == ["i61 (as i60)"]
    assert result.spoiling() == []
    content[1] = content[0]
    assert "1 query rows repeat an image:" in audited(clean(), content=content).spoiling()


def test_other_counts_than_the_protocol_s_are_said() -> None:
    result = audited(clean(), protocol="cifar10-54k")
    assert result.spoiling() == [
        "10 query rows, the protocol has 1,000",
        "40 training rows, the protocol has 5,000",
        "50 gallery rows, the protocol has 54,000",
    ]
    assert audited(clean(), protocol="random").counts == ()


def test_long_lists_are_cut_with_how_many_more() -> None:
    roles = clean()
    roles["gallery"] = np.concatenate([roles["gallery"], np.arange(10)])
    content = np.arange(ROWS)
    result = audited(roles, content=content, unlabelled=tuple(range(50, 80)))
    lines = result.spoiling()
    assert lines[0] == "10 queries are in the gallery:"
    assert lines[-1] == "  and 20 more"
    assert len(result.findings[-1].listed()) == 30


def test_it_counts_what_a_slow_look_counts() -> None:
    rng = np.random.default_rng(4)
    roles = {role: np.sort(rng.choice(ROWS, 30, replace=False)) for role in ROLES}
    content = np.arange(ROWS) % 70
    result = {str(f.what): set(f.ids) for f in audited(roles, content=content).findings}
    gallery, train = set(roles["gallery"]), {*roles["train"], *roles["validation"]}
    for among, where in ((gallery, "the gallery"), (train, "training")):
        known = {content[row] for row in among}
        same = {f"i{row}" for row in roles["query"] if row in among}
        copied = {f"i{row}" for row in roles["query"] if row not in among and content[row] in known}
        assert result[f"queries are in {where}"] == same != set()
        assert result.get(f"queries have an identical image in {where}", set()) == copied
    assert any("identical" in what for what in result)


# --- unseen classes


def drawn(labels: csr_array, **settings: Any) -> Split:
    config = PrepareConfig(protocol="unseen-classes", **settings)
    names = [f"c{i}" for i in range(labels.shape[1])]
    return split(labels, names, pa.chunked_array([pa.nulls(labels.shape[0], pa.string())]), config)


@pytest.mark.parametrize("seed", range(5))
def test_training_sees_no_row_of_a_class_that_is_held_out(seed: int) -> None:
    labels = label_matrix([[row % 8] for row in range(400)], 8)
    roles = drawn(labels, seed=seed, unseen_share=0.25)
    seen = {int(c) for role in ("train", "validation") for c in labels[roles[role]].indices}
    asked = {int(c) for c in labels[roles["query"]].indices}
    assert len(seen) == 6
    assert asked == set(labels[roles["gallery"]].indices) == set(range(8)) - seen
    assert len(roles["query"]) == 10
    assert len(roles["gallery"]) == 90
    assert sum(map(len, roles.values())) == 400
    assert len(roles["validation"]) == 30


def test_another_seed_holds_out_other_classes() -> None:
    labels = label_matrix([[row % 8] for row in range(80)], 8)
    held_out = {
        tuple(sorted(set(labels[drawn(labels, seed=s)["query"]].indices))) for s in range(12)
    }
    assert len(held_out) > 4


def test_rows_with_several_labels_are_unseen_if_one_of_them_is() -> None:
    rng = np.random.default_rng(0)
    labels = label_matrix(
        [rng.choice(12, rng.integers(0, 4), replace=False).tolist() for _ in range(500)], 12
    )
    roles = drawn(labels, unseen_share=0.25)
    trained = np.concatenate([roles["train"], roles["validation"]])
    asked = np.concatenate([roles["query"], roles["gallery"]])
    seen = set(labels[trained].indices)
    assert len(seen) == 9
    for row in asked:
        assert set(labels[[int(row)]].indices) - seen
    empty = np.diff(labels.indptr) == 0
    assert len(trained) + len(asked) == 500 - empty.sum()
    assert not np.intersect1d(roles["query"], roles["gallery"]).size
    assert len(roles["query"]) == round(0.1 * len(asked))


def test_too_few_classes_are_refused() -> None:
    labels = label_matrix([[row % 4] for row in range(40)], 4)
    for share, words in ((0.25, "holds 1 of 4 classes out"), (0.75, "holds 3 of 4")):
        with pytest.raises(SchnRayError, match=words):
            drawn(labels, unseen_share=share)
    single = label_matrix([[0], [1], [2], [3]], 4)
    with pytest.raises(SchnRayError, match="cannot be both"):
        drawn(single, unseen_share=0.5)
