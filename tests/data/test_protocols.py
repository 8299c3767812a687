from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import PrepareConfig
from schn_ray.data.splits.protocols import PROTOCOLS, ROLES, Split, most_frequent, split

SHARED = Path(__file__).parents[3] / "shared"


def one_hot(classes: Any, count: int) -> csr_array[Any]:
    return csr_array(np.eye(count, dtype=np.uint8)[np.asarray(classes)])


def draw(labels: csr_array[Any], official: Any = None, **config: Any) -> Split:
    names = [f"c{i}" for i in range(labels.shape[1])]
    official_roles = [None] * labels.shape[0] if official is None else list(official)
    column = pa.chunked_array(
        [pa.array(official_roles[:7], pa.string()), pa.array(official_roles[7:], pa.string())]
    )
    return split(labels, names, column, PrepareConfig(**config))


def refusal(labels: csr_array[Any], official: Any = None, **config: Any) -> str:
    with pytest.raises(SchnRayError) as caught:
        draw(labels, official, **config)
    return str(caught.value)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(4, 40), min_size=2, max_size=6),
    unlabelled=st.integers(0, 5),
    query=st.floats(0.01, 0.5),
    train=st.floats(0.01, 0.49),
    validation=st.sampled_from([0.0, 0.1, 0.5, 0.99]),
    seed=st.integers(0, 9),
)
def test_random_puts_every_class_into_every_role_once(
    sizes: list[int], unlabelled: int, query: float, train: float, validation: float, seed: int
) -> None:
    classes = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    dense = np.eye(len(sizes), dtype=np.uint8)[classes]
    labels = csr_array(np.vstack([dense, np.zeros((unlabelled, len(sizes)), np.uint8)]))
    shares = {"query_share": query, "train_share": train, "validation_share": validation}
    roles = draw(labels, seed=seed, **shares)
    assert set(roles) == set(ROLES)
    everywhere = np.concatenate(list(roles.values()))
    assert sorted(everywhere) == list(range(len(classes)))  # disjoint, labelled, none lost
    for role, rows in roles.items():
        assert rows.dtype == np.int64
        assert (np.diff(rows) > 0).all()
        expected = set() if role == "validation" and not validation else set(range(len(sizes)))
        assert set(classes[rows]) == expected
    for c, size in enumerate(sizes):
        assert abs((classes[roles["query"]] == c).sum() - size * query) <= 1
        again = draw(labels, seed=seed, **shares)
    assert all(np.array_equal(again[role], roles[role]) for role in ROLES)


def test_the_seed_decides() -> None:
    labels = one_hot(np.arange(1000) % 4, 4)
    drawn = [tuple(draw(labels, seed=seed)["query"]) for seed in (0, 1, 0)]
    assert drawn[0] == drawn[2] != drawn[1]


def test_the_draw_is_fair() -> None:
    labels = one_hot(np.arange(40) % 2, 2)
    counts = np.zeros(40)
    for seed in range(400):
        counts[draw(labels, seed=seed, query_share=0.25)["query"]] += 1
    assert abs(counts - 100).max() < 45  # 5 standard deviations


def test_multi_label_rows_are_drawn_from_all_alike() -> None:
    dense = np.random.default_rng(0).integers(0, 2, (200, 5), np.uint8)
    dense[:, 0] = 1
    dense[:20] = 0
    roles = draw(csr_array(dense), query_share=0.2, train_share=0.5, validation_share=0.1)
    assert {role: len(rows) for role, rows in roles.items()} == {
        "train": 81,
        "validation": 9,
        "query": 36,
        "gallery": 54,
    }
    assert min(rows.min() for rows in roles.values()) >= 20


def test_too_few_images_of_a_class() -> None:
    labels = one_hot([0] * 10 + [1] + [2] * 3, 3)
    assert refusal(labels) == (
        "class 'c1' has 1, class 'c2' has 3: random needs at least 4 images of each, so that each "
        "can be in every role; add images, or leave these out"
    )
    assert "class 'c1' has 1: random needs at least 3" in refusal(labels, validation_share=0)


def test_one_class_only() -> None:
    assert refusal(one_hot([0] * 9, 1)).startswith("wanted at least two classes, got 1 (c0)")
    nothing = csr_array((9, 0), dtype=np.uint8)
    assert refusal(nothing).startswith("wanted at least two classes, got 0 (none)")


@pytest.mark.parametrize(
    "shares",
    [
        {"query_share": 0},
        {"train_share": 0},
        {"query_share": 0.5, "train_share": 0.5},
        {"validation_share": 1},
    ],
)
def test_shares_that_leave_a_role_empty(shares: dict[str, float]) -> None:
    assert "share" in refusal(one_hot(np.arange(100) % 2, 2), **shares)


def test_an_unknown_protocol() -> None:
    assert refusal(one_hot([0, 1], 2), protocol="cifar10-54") == (
        "no protocol 'cifar10-54'; did you mean 'cifar10-54k'? "
        "There are: random, unlabelled, stable, unseen-classes, official, listed, cifar10-54k, "
        "cifar10-59k, cifar10-full, nuswide-21, mirflickr, imagenet100, coco, market1501, veri776"
    )


CIFAR = np.random.default_rng(3).permutation(np.arange(60_000) % 10)


@pytest.mark.parametrize("validation", [0.0, 0.1])
@pytest.mark.parametrize(
    ("protocol", "gallery"), [("cifar10-54k", 54_000), ("cifar10-59k", 59_000)]
)
def test_published_draws(protocol: str, gallery: int, validation: float) -> None:
    roles = draw(one_hot(CIFAR, 10), protocol=protocol, validation_share=validation)
    train = np.concatenate([roles["train"], roles["validation"]])
    assert (np.bincount(CIFAR[roles["query"]]) == 100).all()
    assert (np.bincount(CIFAR[train]) == 500).all()
    assert len(roles["validation"]) == 5_000 * validation
    assert len(roles["gallery"]) == gallery
    assert not np.intersect1d(roles["query"], np.concatenate([train, roles["gallery"]])).size
    assert np.isin(train, roles["gallery"]).all() == (gallery == 59_000)


def test_the_official_split() -> None:
    official = np.array(["train"] * 50_000 + ["test"] * 10_000)
    roles = draw(one_hot(CIFAR, 10), official, protocol="cifar10-full")
    np.testing.assert_array_equal(roles["query"], np.arange(50_000, 60_000))
    np.testing.assert_array_equal(roles["gallery"], np.arange(50_000))
    train = np.concatenate([roles["train"], roles["validation"]])
    np.testing.assert_array_equal(np.sort(train), np.arange(50_000))


def test_counts_that_are_not_the_published_ones() -> None:
    assert refusal(one_hot(CIFAR[:59_990], 10), protocol="cifar10-54k") == (
        "cifar10-54k wants 1,000 query, 5,000 training and 54,000 gallery rows; these rows give "
        "1,000 query, 5,000 training and 53,990 gallery rows"
    )
    assert "give 0 query, 0 training and 0 gallery" in refusal(
        one_hot(CIFAR, 10), protocol="cifar10-full"
    )
    assert refusal(one_hot([0, 1], 2), protocol="cifar10-full") == (
        "cifar10-full wants 10 classes, got 2"
    )
    few = one_hot(np.arange(60_000) % 9, 10)
    assert "class 'c9' has 0: cifar10-59k needs at least 601" in refusal(
        few, protocol="cifar10-59k"
    )
    double = one_hot(CIFAR, 10).tolil()
    double[0] = 1
    assert "some rows have two labels" in refusal(csr_array(double), protocol="cifar10-54k")


@pytest.mark.skipif(not (SHARED / "data/cifar10.parquet").is_file(), reason="no shared data")
@pytest.mark.parametrize(
    ("protocol", "counts"),
    [
        ("cifar10-54k", (5_000, 0, 1_000, 54_000)),
        ("cifar10-59k", (5_000, 0, 1_000, 59_000)),
        ("cifar10-full", (50_000, 0, 10_000, 50_000)),
    ],
)
def test_the_real_cifar10(protocol: str, counts: tuple[int, ...]) -> None:
    table = pq.read_table(SHARED / "data/cifar10.parquet", columns=["label", "split"])
    official = table["split"].cast(pa.string()).to_numpy()
    labels = one_hot(table["label"].to_numpy(), 10)
    roles = draw(labels, official, protocol=protocol, validation_share=0)
    assert tuple(len(roles[role]) for role in ROLES) == counts


def several_labels(rows: int, classes: int, seed: int = 0) -> csr_array[Any]:
    """Draw rows of one to four labels; class c is rarer the larger c is, as in NUS-WIDE."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, classes + 1)
    columns = rng.choice(classes, (rows, 4), p=weights / weights.sum())
    dense = np.zeros((rows, classes), np.uint8)
    several = rng.integers(1, 5, rows)
    for place, column in enumerate(columns.T):
        has = several > place
        dense[np.flatnonzero(has), column[has]] = 1
    return csr_array(dense)


def test_nuswide_draws_for_each_class_and_ranks_all_others() -> None:
    labels = several_labels(195_834, 21)
    roles = draw(labels, protocol="nuswide-21", validation_share=0)
    train, query, gallery = (roles[role] for role in ("train", "query", "gallery"))
    assert (len(query), len(train), len(gallery)) == (2_100, 10_500, 193_734)
    assert not np.intersect1d(query, np.concatenate([train, gallery])).size
    assert np.isin(train, gallery).all()
    counts = np.asarray(labels[query].sum(axis=0)).ravel()
    assert (counts >= 100).all()
    assert (np.asarray(labels[train].sum(axis=0)).ravel() >= 500).all()
    short = refusal(several_labels(195_834, 21)[:195_000], protocol="nuswide-21")
    assert "wants 2,100 query, 10,500 training and 193,734 gallery rows" in short
    few = csr_array(np.vstack([np.eye(21, dtype=np.uint8)] * 50))
    assert "needs 100 of each" in refusal(few, protocol="nuswide-21")


def test_the_most_frequent_classes() -> None:
    labels = csr_array(np.array([[1, 0, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1], [0, 1, 0, 1]], np.uint8))
    assert most_frequent(labels, 2).tolist() == [2, 3]  # of three times each
    assert most_frequent(labels, 9).tolist() == [0, 1, 2, 3]


def test_coco_and_its_unlabelled_rows() -> None:
    dense = several_labels(122_218, 80).toarray()
    labels = csr_array(np.vstack([dense, np.zeros((1_069, 80), np.uint8)]))
    roles = draw(labels, protocol="coco", validation_share=0.1)
    assert {role: len(rows) for role, rows in roles.items()} == {
        "train": 9_000,
        "validation": 1_000,
        "query": 5_000,
        "gallery": 117_218,
    }
    expected = (
        "coco wants 5,000 query, 10,000 training and 117,218 gallery rows; these rows give 5,000"
    )
    assert expected in refusal(labels, protocol="coco", keep_unlabelled=True)


def test_imagenet100_goes_by_its_lists() -> None:
    words = ["test"] * 5_000 + ["database train"] * 13_000 + ["database"] * 115_503
    labels = one_hot(np.arange(len(words)) % 100, 100)
    roles = draw(labels, words, protocol="imagenet100", validation_share=0)
    np.testing.assert_array_equal(roles["query"], np.arange(5_000))
    np.testing.assert_array_equal(roles["train"], np.arange(5_000, 18_000))
    np.testing.assert_array_equal(roles["gallery"], np.arange(5_000, 133_503))
    assert "give 4,999 query" in refusal(labels[1:], words[1:], protocol="imagenet100")


@pytest.mark.parametrize(
    ("protocol", "identities", "counts", "junk"),
    [
        ("market1501", 1_501, (3_368, 12_936, 15_913), 3_819),
        ("veri776", 776, (1_678, 37_778, 11_579), 0),
    ],
)
def test_reidentification(
    protocol: str, identities: int, counts: tuple[int, int, int], junk: int
) -> None:
    words = ["test"] * counts[0] + ["train"] * counts[1] + ["database"] * counts[2]
    labels = one_hot(np.arange(len(words)) % identities, identities).toarray()
    labels[-2_798:] = 0  # distractors are in the gallery
    nobody = np.zeros((junk, identities), np.uint8)
    official = words + ["junk"] * junk
    roles = draw(csr_array(np.vstack([labels, nobody])), official, protocol=protocol)
    train = len(roles["train"]) + len(roles["validation"])
    assert (len(roles["query"]), train, len(roles["gallery"])) == counts
    assert len(roles.get("junk", ())) == junk
    everywhere = np.concatenate(list(roles.values()))
    assert sorted(everywhere) == list(range(len(official)))


def test_every_protocol_says_its_metric_and_sums_up() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol.metric, name
        if protocol.counts is not None:
            assert protocol.classes, name


def test_a_data_set_that_does_not_say_who_is_who() -> None:
    labels = one_hot(np.arange(10) % 2, 2)
    assert "has to say which rows are train, test and database" in refusal(
        labels, protocol="listed"
    )
    assert "has to say which rows are train and test" in refusal(
        labels, ["train"] * 10, protocol="official"
    )
