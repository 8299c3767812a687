"""Stores whose rows have vectors, with images or without; rows without labels."""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_array
from support.image_files import encode_image, write_tree
from support.users import Run

from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.data.check import Report, check_source, render
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.shards.map_shards import T
from schn_ray.data.shards.rows import BadRow, Row, Shard, Source
from schn_ray.data.shards.vectors import VectorFormat, rebatched, vectors_of
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.sources.stored import open_rows
from schn_ray.data.splits.audit import audit
from schn_ray.data.splits.protocols import PROTOCOLS, split
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import Store, open_store
from schn_ray.data.store.row_files import ROWS

X = np.random.default_rng(0).standard_normal((90, 5)).astype(np.float32)


def config(**settings: Any) -> PrepareConfig:
    source = {key: settings.pop(key) for key in [*settings] if key in SourceConfig.model_fields}
    return PrepareConfig(source=SourceConfig(**source), **settings)


def make(
    location: Path | Source, out: Path, *arguments: Any, update: bool = False, **settings: Any
) -> dict[str, Any]:
    chosen = config(**settings)
    is_path = isinstance(location, Path)
    source = open_source(str(location), chosen.source) if is_path else location
    return prepare_store(source, chosen, out, *arguments, update=update).counts


def shuffled_workers(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterable[T]:
    """As other processes would: the function and results are pickled, shards end in any order."""
    order = list(shards)
    random.Random(1).shuffle(order)
    return [pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(function))(s))) for s in order]


def hashes(store: Path) -> dict[str, str]:
    files = [file for file in store.rglob("*") if file.is_file() and file.name != "manifest.json"]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def write(path: Path, values: Any = X, **columns: Any) -> Path:
    kind = pa.list_(pa.float32())
    vectors = pa.array([None if row is None else list(row) for row in values], kind)
    pq.write_table(pa.table({"embedding": vectors} | columns), path, row_group_size=50)
    return path


def test_a_store_of_vectors(tmp_path: Path) -> None:
    values: list[Any] = list(X)
    values[7], values[40] = None, X[40, :2]
    ids = [f"n{i}" for i in range(90)]
    path = write(tmp_path / "a.parquet", values, id=ids, label=[i % 3 for i in range(90)])
    counts = make(path, tmp_path / "store", shard_rows=2, max_bad_share=0.1)
    assert (counts["rows"], counts["quarantined"], counts["classes"]) == (88, 2, 3)
    assert (counts["vector_width"], counts["vector_dtype"]) == (5, "float32")
    assert "protocol" not in counts
    assert counts["audit"] == "nothing found"
    store = pickle.loads(pickle.dumps(open_store(tmp_path / "store")))
    assert (store.vector_width, store.vector_dtype, store.has_images) == (5, "float32", False)
    assert len(list((tmp_path / "store").glob("rows-*.arrow"))) == 3
    rows = np.array([87, 0, 33, 33, 1])
    expected = np.delete(X, [7, 40], axis=0)
    np.testing.assert_array_equal(store.vectors(rows), expected[rows])
    np.testing.assert_array_equal(store.vectors(np.arange(88)), expected)
    assert store.vectors(rows[:0]).shape == (0, 5)
    assert store.vectors(rows).dtype == np.float32
    for outside in ([88], [-1]):
        with pytest.raises(IndexError):
            store.vectors(np.array(outside))
    with pytest.raises(SchnRayError, match="row 3 has no image, only a vector"):
        store.image(3)
    with pytest.raises(SchnRayError, match="row 3 has no image, only a vector"):
        fetch(f"{tmp_path}/store#3")
    sha256 = hashlib.sha256(expected[5].tobytes()).digest()
    assert store.sha256(np.array([5]))[0].tobytes() == sha256
    assert store.uri(8) == f"{path}#9"


@pytest.mark.parametrize("dtype", [np.float16, np.int8])
def test_vectors_keep_their_type(tmp_path: Path, dtype: Any) -> None:
    values = (X * 30).astype(dtype)
    np.save(tmp_path / "e.npy", values)
    make(tmp_path / "e.npy", tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert store.vector_dtype == np.dtype(dtype)
    np.testing.assert_array_equal(store.vectors(np.arange(90)), values.astype(np.float32))


def test_a_store_of_both(tmp_path: Path) -> None:
    images = [encode_image(i) for i in range(90)]
    path = write(tmp_path / "a.parquet", image=images, label=[i % 2 for i in range(90)])
    make(path, tmp_path / "store", shard_rows=20)
    store = open_store(tmp_path / "store")
    assert (store.vector_width, store.has_images) == (5, True)
    assert [store.image(row) for row in (0, 50)] == [images[0], images[50]]
    np.testing.assert_array_equal(store.vectors(np.arange(90)), X)
    assert store.sha256(np.array([4]))[0].tobytes() == hashlib.sha256(images[4]).digest()
    again = open_source(str(tmp_path / "store"), SourceConfig())
    assert vectors_of(again) == VectorFormat(5, "float32", images=True)
    counts = make(again, tmp_path / "again")
    assert (counts["rows"], counts["vector_width"]) == (90, 5)
    np.testing.assert_array_equal(open_store(tmp_path / "again").vectors(np.arange(90)), X)


def test_a_store_of_images_is_as_it_was(image_tree: Path, tmp_path: Path) -> None:
    counts = make(image_tree, tmp_path / "store")
    assert open_rows(tmp_path / "store").schema == ROWS
    assert not {"vector_width", "vector_dtype", "protocol"} & counts.keys()
    store = open_store(tmp_path / "store")
    assert (store.vector_width, store.vector_dtype, store.has_images) == (None, None, True)
    assert store.protocol == "random"
    assert not {"vector_column", "vector_width"} & store.manifest.config["source"].keys()
    with pytest.raises(SchnRayError, match="have images, but no vectors"):
        store.vectors(np.arange(3))


def test_workers_and_batches_do_not_change_the_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet")
    make(path, tmp_path / "one", shard_rows=1)
    make(path, tmp_path / "two", shuffled_workers, shard_rows=1)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


class Killed(Exception):
    pass


@pytest.mark.parametrize("done", [0, 2])
def test_killed_and_run_again(tmp_path: Path, done: int) -> None:
    path = write(tmp_path / "a.parquet")
    make(path, tmp_path / "whole", shard_rows=1)

    def stops(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterator[T]:
        yield from map(function, list(shards)[:done])
        raise Killed

    with pytest.raises(Killed):
        make(path, tmp_path / "store", stops, shard_rows=1)
    make(path, tmp_path / "store", shard_rows=1)
    assert hashes(tmp_path / "store") == hashes(tmp_path / "whole")


def test_an_update_of_vectors(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    write(tmp_path / "source" / "a.parquet", X[:30])
    write(tmp_path / "source" / "b.parquet", X[30:60])
    make(tmp_path / "source", tmp_path / "store")
    untouched = (tmp_path / "store" / "rows-00000.arrow").stat().st_mtime_ns
    write(tmp_path / "source" / "b.parquet", X[31:60])
    write(tmp_path / "source" / "c.parquet", X[60:])
    counts = make(tmp_path / "source", tmp_path / "store", update=True)
    assert (counts["rows"], counts["new"], counts["changed"]) == (89, 30, 30)
    assert (tmp_path / "store" / "rows-00000.arrow").stat().st_mtime_ns == untouched
    store = open_store(tmp_path / "store")
    np.testing.assert_array_equal(store.vectors(np.arange(89)), np.delete(X, 30, axis=0))
    for name in "abc":
        write(tmp_path / "source" / f"{name}.parquet", X[:, :4])
    with pytest.raises(SchnRayError, match=r"made_from.vectors: .*float32\[5\].*float32\[4\]"):
        make(tmp_path / "source", tmp_path / "store", update=True)


def test_other_vectors_in_a_file_of_the_same_size_are_noticed(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X)
    make(tmp_path / "x.npy", tmp_path / "store")
    with pytest.raises(AlreadyDone, match=r"nothing to do$"):
        make(tmp_path / "x.npy", tmp_path / "store")
    np.save(tmp_path / "x.npy", X[::-1])
    with pytest.raises(AlreadyDone, match="source has changed since, --update takes that in"):
        make(tmp_path / "x.npy", tmp_path / "store")
    assert make(tmp_path / "x.npy", tmp_path / "store", update=True)["changed"] == len(X)


def test_repeated_ids_of_vectors_are_quarantined(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", X[:6], id=["a", "b", "a", "c", "d", "b"])
    counts = make(path, tmp_path / "store", max_bad_share=0.5)
    assert (counts["rows"], counts["quarantined"]) == (4, 2)
    store = open_store(tmp_path / "store")
    np.testing.assert_array_equal(store.vectors(np.arange(4)), X[[0, 1, 3, 4]])


class OwnSource:
    """A user's own source, which hands out rows one by one."""

    kind, location = "own", "own"

    def __init__(self, rows: list[Row | BadRow], vectors: VectorFormat | None) -> None:
        self.rows, self.vectors = rows, vectors

    def shards(self) -> list[Shard]:
        return [Shard(0, len(self.rows))]

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        return iter(self.rows)


def own_row(number: int, vector: Any, image: bytes | None = None) -> Row:
    return Row(str(number), image, (), f"own#{number}", None, -1, vector)


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    rows: list[Row | BadRow] = [own_row(i, X[i]) for i in range(20)]
    rows[3], rows[4] = own_row(3, X[3, :2]), own_row(4, None)
    rows[5], rows[6] = own_row(5, np.zeros(5, np.float32)), own_row(6, X[6].astype(np.float64))
    source = OwnSource(rows, VectorFormat(5, "float32"))
    counts = make(source, tmp_path / "store", max_bad_share=0.5)  # type: ignore[arg-type]
    assert (counts["rows"], counts["quarantined"]) == (16, 4)
    reasons = pq.read_table(tmp_path / "store" / "quarantine.parquet")["reason"].to_pylist()
    assert reasons == [
        "the vector is float32[2], expected float32[5]",
        "no vector: it is null",
        "the vector is all zeros",
        "the vector is float64[5], expected float32[5]",
    ]
    kept = np.delete(X[:20], [3, 4, 5, 6], axis=0)
    np.testing.assert_array_equal(open_store(tmp_path / "store").vectors(np.arange(16)), kept)
    with pytest.raises(SchnRayError, match="its source has no attribute 'vectors'"):
        make(OwnSource(rows, None), tmp_path / "none")  # type: ignore[arg-type]
    empty = OwnSource([own_row(0, None)], None)
    with pytest.raises(SchnRayError, match=r"own#0.*: no image"):
        make(empty, tmp_path / "empty")  # type: ignore[arg-type]


@given(st.lists(st.integers(0, 7), max_size=8), st.integers(1, 5))
def test_batches_of_one_size(lengths: list[int], size: int) -> None:
    starts = np.cumsum([0, *lengths])
    batches = [
        pa.record_batch({"x": np.arange(start, start + n)})
        for start, n in zip(starts[:-1].tolist(), lengths, strict=True)
    ]
    cut = list(rebatched(batches, size))
    assert [value for batch in cut for value in batch["x"].to_pylist()] == list(range(starts[-1]))
    assert all(len(batch) == size for batch in cut[:-1])
    assert all(0 < len(batch) <= size for batch in cut)


# --- rows without labels


def unlabelled(n: int, **settings: Any) -> dict[str, Any]:
    official = pa.chunked_array([pa.nulls(n, pa.string())])
    chosen = PrepareConfig(protocol="unlabelled", **settings)
    return split(csr_array((n, 0), dtype=np.uint8), (), official, chosen)


@given(n=st.integers(2, 300), seed=st.integers(0, 3), share=st.floats(0.01, 0.5))
def test_a_split_without_labels(n: int, seed: int, share: float) -> None:
    roles = unlabelled(n, seed=seed, query_share=share)
    assert len(roles["query"]) == min(max(round(n * share), 1), n - 1)
    assert len(roles["train"]) == min(max(round(n * 0.5), 1), n - len(roles["query"]))
    assert len(roles["validation"]) == 0
    assert sorted([*roles["query"], *roles["gallery"]]) == list(range(n))
    assert set(roles["train"]) <= set(roles["gallery"])
    assert all(np.array_equal(rows, np.sort(rows)) for rows in roles.values())


def test_shares_that_do_not_fit() -> None:
    assert len(unlabelled(10, query_share=0.2, train_share=0.8)["train"]) == 8
    for query, train in ((0.0, 0.5), (0.5, 0.0), (0.5, 0.6)):
        with pytest.raises(SchnRayError, match="together at most 1"):
            unlabelled(10, query_share=query, train_share=train)
    with pytest.raises(SchnRayError, match="1 rows: a query and a gallery need at least two"):
        unlabelled(1)


def flat_folder(folder: Path, count: int = 20) -> Path:
    folder.mkdir()
    for i in range(count):
        (folder / f"{i:02}.png").write_bytes(encode_image(i))
    return folder


def store_without_labels(path: Path, **settings: Any) -> tuple[Store, dict[str, Any]]:
    counts = make(path, path.with_suffix(".store"), **settings)
    return open_store(path.with_suffix(".store")), counts


def test_a_flat_folder_of_photos(tmp_path: Path) -> None:
    folder = flat_folder(tmp_path / "photos")
    (folder / "copy.png").write_bytes((folder / "00.png").read_bytes())
    store, counts = store_without_labels(folder, query_share=0.5, train_share=0.5)
    assert store.classes == ()
    assert store.labels.shape == (21, 0)
    assert store.protocol == counts["protocol"] == "unlabelled"
    assert {role: len(rows) for role, rows in store.split.items()} == {
        "train": 10,
        "validation": 0,
        "query": 10,
        "gallery": 11,
        "junk": 0,
    }
    assert "no label" not in counts["audit"]
    first, copy = store.ids.to_pylist().index("00.png"), store.ids.to_pylist().index("copy.png")
    apart = len({first, copy} & set(store.rows("query"))) == 1
    assert apart == ("identical image" in counts["audit"])
    with pytest.raises(Exception, match="finished already"):
        make(folder, tmp_path / "photos.store", query_share=0.5, train_share=0.5)


def test_a_copy_across_the_split_counts_without_labels() -> None:
    ids = pa.chunked_array([pa.array(list("abcd"))])
    rows = {"query": np.array([0]), "gallery": np.array([1, 2, 3]), "train": np.array([1])}
    roles = rows | {"validation": np.zeros(0, np.int64)}
    result = audit(roles, ids, np.array([0, 0, 2, 3]), np.ones(4, bool), PROTOCOLS["unlabelled"])
    assert result.summary() == [
        "1 queries have an identical image in the gallery",
        "1 queries have an identical image in training",
    ]
    some = np.array([True, False, False, False])
    assert "1 query rows have no label" in audit(roles, ids, np.arange(4), some).summary()
    assert audit(roles, ids, np.arange(4), some, PROTOCOLS["unlabelled"]).summary() == []


def test_a_tree_may_be_split_without_its_labels(image_tree: Path, tmp_path: Path) -> None:
    counts = make(image_tree, tmp_path / "store", protocol="unlabelled")
    assert (counts["classes"], counts["query"], counts["train"], counts["gallery"]) == (
        3,
        3,
        15,
        27,
    )
    assert open_store(tmp_path / "store").protocol == "unlabelled"


def test_another_protocol_is_refused_with_the_right_one(tmp_path: Path) -> None:
    folder = flat_folder(tmp_path / "photos")
    with pytest.raises(SchnRayError, match="--protocol unlabelled"):
        make(folder, tmp_path / "store", protocol="official")


def test_a_given_split_of_rows_without_labels(tmp_path: Path) -> None:
    folder = flat_folder(tmp_path / "photos", 3)
    (tmp_path / "split.csv").write_text("role,id\nquery,00.png\ntrain,01.png\ngallery,02.png\n")
    counts = make(folder, tmp_path / "store", split_from=str(tmp_path / "split.csv"))
    assert (counts["query"], counts["audit"]) == (1, "nothing found")


def test_prepare_says_that_no_row_has_a_label(tmp_path: Path, schn_ray: Run) -> None:
    from schn_ray.cli.verbs.data import prepare

    np.save(tmp_path / "e.npy", X)
    store = prepare(tmp_path / "e.npy", tmp_path / "store")
    assert store.note == "no row has a label, so the split is that of --protocol unlabelled"
    again = prepare(tmp_path / "e.npy", tmp_path / "store")
    assert again.note.startswith(f"{tmp_path}/store is finished already; nothing to do; no row")


# --- check


def look(location: Path | str, **settings: Any) -> Report:
    chosen = SourceConfig(**settings)
    return check_source(open_source(str(location), chosen), chosen)


def test_check_of_vectors(tmp_path: Path) -> None:
    values = X[:20].copy()
    values[3], values[4, 2], values[5] = 0, np.nan, values[6]
    np.save(tmp_path / "e.npy", values)
    report = look(tmp_path / "e.npy", max_bad_share=0.5)
    norms = np.linalg.norm(np.delete(values, [3, 4], axis=0), axis=1)
    assert report.vectors == {
        "width": 5,
        "dtype": "float32",
        "smallest_norm": pytest.approx(norms.min()),
        "mean_norm": pytest.approx(norms.mean()),
        "largest_norm": pytest.approx(norms.max()),
        "zero": 1,
        "not_finite": 1,
        "bad": 0,
    }
    assert (report.rows, report.unlabelled, report.repeated_images) == (20, 18, 1)
    text = render(report)
    assert "5 numbers each, float32; 1 all zeros, 1 with NaN or infinity" in text
    assert "--protocol unlabelled" in report.next_command
    assert report.to_json()["vectors"]["width"] == 5


def test_check_of_nothing_but_bad_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "e.npy", np.zeros((3, 2)))
    assert look(tmp_path / "e.npy").vectors == {
        "width": 2,
        "dtype": "float32",
        "zero": 3,
        "not_finite": 0,
        "bad": 0,
    }
    with pytest.raises(SchnRayError, match="3 of 3 rows are bad"):
        make(tmp_path / "e.npy", tmp_path / "store")


def test_check_of_a_labelled_tree_recommends_as_before(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "tree", {"cat": 12, "dog": 12})
    assert look(tree).next_command == f"schn-ray prepare {tree} --out store"
    assert look(tree).vectors == {}
