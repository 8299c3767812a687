"""The split for sources that grow: roles stay, and what was trained on is never a query."""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_array

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import PrepareConfig
from schn_ray.data.shards.equal_rows import first_with_hash
from schn_ray.data.splits.protocols import ROLES
from schn_ray.data.splits.stable import stable_split

Images = dict[str, int]  # id -> number of its content


def draw(images: Images, labelled: bool = True, **config: Any) -> dict[str, set[str]]:
    """Return role -> ids; every label is the same, which must not matter."""
    ids = list(images)
    digests = [hashlib.sha256(str(number).encode()).digest() for number in images.values()]
    sha256 = pa.chunked_array([pa.array(digests, pa.binary(32))])
    labels = csr_array(np.full((len(ids), 1), labelled, np.uint8))
    roles = stable_split(
        labels,
        pa.chunked_array([pa.array(ids)]),
        sha256,
        first_with_hash(sha256),
        PrepareConfig(**{"query_share": 0.25} | config),
    )
    return {role: {ids[row] for row in roles[role]} for role in ROLES}


def test_roles_outlive_other_rows_and_training_rows_never_become_queries() -> None:
    images = {f"{n:04}": n for n in range(1600)}
    before = draw(images)
    trained = before["train"] | before["validation"]
    left = {id: number for id, number in images.items() if number >= 200}
    new = {f"new{n}": 10_000 + n for n in range(400)}
    edited = {id: 20_000 + n for n, id in enumerate(trained & set(left))}
    renamed = {f"moved{n}": images[id] for n, id in enumerate(trained - set(left))}
    assert min(len(edited), len(renamed)) > 20
    after = draw(renamed | new | left | edited)  # also in another order
    for role, ids in before.items():
        assert (ids & set(left)) - set(edited) <= after[role]
    assert after["query"] & set(new)
    assert not after["query"] & (set(edited) | set(renamed))


def test_each_row_has_one_role_and_shares_are_those_of_the_settings() -> None:
    images = {f"{n:05}": n for n in range(20_000)}
    roles = draw(images, query_share=0.1, train_share=0.3)
    shares = {role: len(ids) / len(images) for role, ids in roles.items()}
    expected = {"query": 0.1, "train": 0.27, "validation": 0.03, "gallery": 0.6}
    assert shares == pytest.approx(expected, abs=0.01)
    assert sum(map(len, roles.values())) == len(set().union(*roles.values())) == len(images)
    assert draw(images, seed=1, query_share=0.1) != draw(images, query_share=0.1)


def test_a_query_has_no_copy_anywhere() -> None:
    twins = {f"twin{n:04}": n // 2 for n in range(1000)}
    roles = draw(twins | {f"single{n:04}": 1000 + n for n in range(300)})
    assert roles["query"]
    assert not [id for id in roles["query"] if id.startswith("twin")]


def test_without_labels_the_gallery_is_all_that_are_not_queries() -> None:
    roles = draw({f"{n:04}": n for n in range(1000)}, labelled=False)
    assert len(roles["query"]) + len(roles["gallery"]) == 1000
    assert roles["train"] <= roles["gallery"]
    assert not roles["validation"]


def test_too_few_rows() -> None:
    with pytest.raises(SchnRayError, match=r"of 2 rows, none is a \w+ row.*add images"):
        draw({"a": 1, "b": 2})
