from __future__ import annotations

import functools
import hashlib
import itertools
import json
import pickle
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.image_files import encode_image, write_tree

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.directories import AlreadyDone, new_directory
from schn_ray.core.errors import SchnRayError, TooManyBadRows
from schn_ray.core.manifest import read_manifest
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.shards.map_shards import T
from schn_ray.data.shards.rows import Shard
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.sources.stored import open_rows
from schn_ray.data.splits.protocols import ROLES
from schn_ray.data.store.describe import multi_hot_matrix, vocabulary
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.data.store.row_files import ROWS

SHARED = Path(__file__).parents[3] / "shared"


def config(**settings: Any) -> PrepareConfig:
    source = {key: settings.pop(key) for key in [*settings] if key in SourceConfig.model_fields}
    return PrepareConfig(source=SourceConfig(**source), **settings)


def make(location: Path, out: Path, map_shards: Any = None, **settings: Any) -> dict[str, Any]:
    chosen = config(**settings)
    extra = () if map_shards is None else (map_shards,)
    return prepare_store(open_source(str(location), chosen.source), chosen, out, *extra).counts


def quarantine(out: Path) -> list[tuple[str, str, str]]:
    rows = pq.read_table(out / "quarantine.parquet").to_pylist()
    return [(row["id"], row["stage"], row["reason"]) for row in rows]


def shuffled_workers(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterable[T]:
    """As other processes would: the function and results are pickled, shards end in any order."""
    order = list(shards)
    random.Random(1).shuffle(order)
    return [pickle.loads(pickle.dumps(pickle.loads(pickle.dumps(function))(s))) for s in order]


def test_a_store_holds_every_row(image_tree: Path, tmp_path: Path) -> None:
    counts = make(image_tree, tmp_path / "store", shard_rows=7)
    assert counts == {
        "rows_read": 30,
        "quarantined": 0,
        "rows": 30,
        "classes": 3,
        "label_sets": 3,
        "unlabelled": 0,
        "repeated_images": 0,
        "train": 12,
        "validation": 3,
        "query": 3,
        "gallery": 12,
        "audit": "nothing found",
    }
    store = open_store(tmp_path / "store")
    files = sorted(image_tree.rglob("*.png"))
    assert len(store) == 30
    assert store.classes == ("cat", "dog", "owl")
    assert store.ids.to_pylist() == [file.relative_to(image_tree).as_posix() for file in files]
    assert [store.image(row) for row in range(30)] == [file.read_bytes() for file in files]
    assert [store.uri(row) for row in range(30)] == [str(file) for file in files]
    np.testing.assert_array_equal(store.labels.toarray(), np.repeat(np.eye(3), 10, axis=0))
    assert store.labels.dtype == np.uint8
    assert {role: len(store.rows(role)) for role in ROLES} == {role: counts[role] for role in ROLES}
    rows = np.array([29, 0, 12])
    assert [digest.tobytes() for digest in store.sha256(rows)] == [
        hashlib.sha256(files[row].read_bytes()).digest() for row in rows
    ]
    assert len(np.intersect1d(store.sha256(rows), store.sha256(np.array([0, 1])))) == 1
    split = pq.read_table(tmp_path / "store" / "split.parquet")
    assert split["id"].to_pylist() == [store.ids[row].as_py() for row in split["row"].to_pylist()]
    open_artefact(tmp_path / "store", "store").check()


def test_a_store_goes_through_pickle(image_tree: Path, tmp_path: Path) -> None:
    make(image_tree, tmp_path / "store")
    store = open_store(tmp_path / "store")
    data = pickle.dumps(store)
    assert len(data) < 1000
    assert pickle.loads(data).image(7) == store.image(7)


def test_workers_and_shard_size_change_nothing(image_tree: Path, tmp_path: Path) -> None:
    for name in ("cat/bad.png", "dog/bad.png", "owl/bad.png"):
        (image_tree / name).write_bytes(b"<html>")
    make(image_tree, tmp_path / "a", max_bad_share=0.1)
    for name, shard_rows in (("b", 4), ("c", 1)):
        out = tmp_path / name
        make(image_tree, out, shuffled_workers, max_bad_share=0.1, shard_rows=shard_rows)
        one, other = open_store(tmp_path / "a"), open_store(out)
        assert one.ids.equals(other.ids)
        assert all(np.array_equal(one.rows(role), other.rows(role)) for role in ROLES)
        assert quarantine(out) == quarantine(tmp_path / "a")
    again = make(image_tree, tmp_path / "d", shuffled_workers, max_bad_share=0.1, shard_rows=4)
    assert again == read_manifest(tmp_path / "b", "store").counts
    fingerprints = [read_manifest(tmp_path / n, "store").fingerprint for n in ("b", "d", "a")]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_bad_images_are_put_aside_and_counted(image_tree: Path, tmp_path: Path) -> None:
    (image_tree / "cat" / "empty.jpg").write_bytes(b"")
    (image_tree / "owl" / "html.png").write_bytes(b"<!DOCTYPE html>")
    (image_tree / "owl" / "large.png").write_bytes(encode_image(1, (200, 100)))
    counts = make(image_tree, tmp_path / "s", shard_rows=5, max_bad_share=0.1, max_pixels=500)
    assert (counts["rows_read"], counts["rows"], counts["quarantined"]) == (33, 30, 3)
    (empty, html, large) = quarantine(tmp_path / "s")
    assert empty == ("cat/empty.jpg", "decode", "empty: 0 bytes")
    assert html[2].startswith("not an image: starts with b'<!DOCTYPE html>'")
    assert large[2] == "200 x 100 pixels, more than max_pixels = 500"
    assert "cat/empty.jpg" not in open_store(tmp_path / "s").ids.to_pylist()


def test_too_many_bad_images_stop_the_job(image_tree: Path, tmp_path: Path) -> None:
    for i in range(7):
        (image_tree / "cat" / f"bad{i}.jpg").write_bytes(b"")
    with pytest.raises(TooManyBadRows) as caught:
        make(image_tree, tmp_path / "store", shuffled_workers, shard_rows=5)
    assert caught.value.exit_code == 3
    lines = str(caught.value).splitlines()
    assert lines[0] == "7 of 37 rows are bad, more than max_bad_share = 0.01 allows:"
    assert lines[1] == f"  cat/bad0.jpg ({image_tree}/cat/bad0.jpg): empty: 0 bytes"
    assert lines[6] == "  and 2 more"
    assert lines[-1].endswith("or allow more with --set source.max_bad_share=0.19")
    assert not (tmp_path / "store" / "manifest.json").exists()
    # what is done stays: with more allowed, nothing is decoded again
    again = make(image_tree, tmp_path / "store", must_not_work, shard_rows=5, max_bad_share=0.19)
    assert (again["rows"], again["quarantined"]) == (30, 7)


def must_not_work(function: object, shards: Iterable[Shard]) -> Iterable[Any]:
    assert not list(shards)
    return []


def test_exactly_the_allowed_share_passes(image_tree: Path, tmp_path: Path) -> None:
    for i in range(10):
        (image_tree / "cat" / f"bad{i}.jpg").write_bytes(b"")
    assert make(image_tree, tmp_path / "s", max_bad_share=0.25)["quarantined"] == 10


def parquet(path: Path, count: int = 40, **columns: Any) -> Path:
    images = [encode_image(i, (4, 4)) for i in range(count)]
    defaults = {"id": [str(i) for i in range(count)], "image": images, "label": ["a", "b"] * 20}
    pq.write_table(pa.table(defaults | columns), path)
    return path


@pytest.mark.parametrize("shard_rows", [1, 7, 100])
def test_later_rows_with_an_id_are_put_aside(tmp_path: Path, shard_rows: int) -> None:
    ids = [str(i) for i in range(40)]
    ids[9], ids[33], ids[34] = "8", "2", "2"
    source = parquet(tmp_path / "x.parquet", id=ids)
    settings = {"shard_rows": shard_rows, "max_bad_share": 0.1}
    counts = make(source, tmp_path / "s", shuffled_workers, **settings)
    assert (counts["rows_read"], counts["rows"], counts["quarantined"]) == (40, 37, 3)
    assert quarantine(tmp_path / "s") == [
        ("8", "id", f"same id as {source}#8"),
        ("2", "id", f"same id as {source}#2"),
        ("2", "id", f"same id as {source}#2"),
    ]
    store = open_store(tmp_path / "s")
    assert store.ids.to_pylist() == [ids[i] for i in range(40) if i not in (9, 33, 34)]
    assert store.image(9) == encode_image(10, (4, 4))
    uris = pq.read_table(tmp_path / "s" / "quarantine.parquet")["uri"].to_pylist()
    assert uris == [f"{source}#{row}" for row in (9, 33, 34)]
    assert not list((tmp_path / "s").glob("*.partial"))


def test_unlabelled_rows_stay_in_the_store_but_in_no_role(tmp_path: Path) -> None:
    labels = [[None, ["a"], ["b", "a"], ["a", "b"]][i % 4] for i in range(40)]
    source = parquet(tmp_path / "x.parquet", label=labels)
    counts = make(source, tmp_path / "s")
    assert (counts["rows"], counts["unlabelled"], counts["label_sets"]) == (40, 10, 3)
    store = open_store(tmp_path / "s")
    used = np.concatenate([store.rows(role) for role in ROLES])
    assert sorted(used) == [i for i in range(40) if i % 4]
    assert store.labels[[2]].indices.tolist() == [0, 1]


def test_repeated_images_are_counted(tmp_path: Path) -> None:
    images = [encode_image(i % 30, (4, 4)) for i in range(40)]
    assert (
        make(parquet(tmp_path / "x.parquet", image=images), tmp_path / "s")["repeated_images"] == 10
    )


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"cat": 5}, r"at least two classes, got 1 \(cat\)"),
        ({"cat": 5, "dog": 1}, "class 'dog' has 1: random needs at least 4 images"),
    ],
)
def test_rows_that_cannot_be_split(tmp_path: Path, classes: dict[str, int], message: str) -> None:
    tree = write_tree(tmp_path / "images", classes)
    with pytest.raises(SchnRayError, match=message):
        make(tree, tmp_path / "store")
    assert not (tmp_path / "store" / "manifest.json").exists()
    with pytest.raises(SchnRayError, match="is unfinished"):
        open_store(tmp_path / "store")


def test_an_unfinished_store_may_be_split_otherwise(tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "images", {"cat": 5, "dog": 3})
    with pytest.raises(SchnRayError, match="class 'dog' has 3"):
        make(tree, tmp_path / "store")
    counts = make(tree, tmp_path / "store", must_not_work, validation_share=0)
    assert (counts["rows"], counts["validation"]) == (8, 0)


def test_an_unknown_protocol_stops_before_any_work(image_tree: Path, tmp_path: Path) -> None:
    def must_not_run(function: object, shards: object) -> Iterable[Any]:
        raise AssertionError

    with pytest.raises(SchnRayError, match="did you mean 'random'"):
        make(image_tree, tmp_path / "store", must_not_run, protocol="randon")


def test_nothing_good_left(tmp_path: Path) -> None:
    (tmp_path / "images" / "a").mkdir(parents=True)
    (tmp_path / "images" / "a" / "x.png").write_bytes(b"")
    with pytest.raises(SchnRayError, match=r"none of the 1 rows can be used; quarantine"):
        make(tmp_path / "images", tmp_path / "s", max_bad_share=1)


def test_a_lost_shard_is_noticed(image_tree: Path, tmp_path: Path) -> None:
    def loses_one(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterable[T]:
        return map(function, itertools.islice(shards, 1, None))

    message = "30 rows were listed, but 23 are written and 0 quarantined"
    with pytest.raises(SchnRayError, match=message):
        make(image_tree, tmp_path / "store", loses_one, shard_rows=7)


def test_the_same_command_again_does_nothing(image_tree: Path, tmp_path: Path) -> None:
    make(image_tree, tmp_path / "store")
    with pytest.raises(AlreadyDone):
        make(image_tree, tmp_path / "store")
    with pytest.raises(SchnRayError, match="seed: 0 there, 1 now"):
        make(image_tree, tmp_path / "store", seed=1)
    (image_tree / "cat" / "new.png").write_bytes(encode_image(99))
    with pytest.raises(SchnRayError, match="take in what is new, changed or gone with --update"):
        make(image_tree, tmp_path / "store")


def test_stores_that_cannot_be_opened(image_tree: Path, tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match="wanted a store directory, but there is none"):
        open_store(tmp_path / "store")
    out = tmp_path / "store"
    make(image_tree, out)
    rows, split, classes = out / "rows-00000.arrow", out / "split.parquet", out / "classes.json"
    for file in (rows, split, classes):
        whole = file.read_bytes()
        for length in (0, 10, len(whole) // 2, len(whole) - 5):
            file.write_bytes(whole[:length])
            with pytest.raises(SchnRayError, match="differs from its manifest"):
                open_store(out)
        file.unlink()
        with pytest.raises(SchnRayError, match="make the store again"):
            open_store(out)
        file.write_bytes(whole)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    with pytest.raises(SchnRayError, match="has format 99"):
        open_store(out)


def test_vocabulary_counts_as_people_do() -> None:
    names = ["10", "9", "1", "01", "b", "a10", "a9", "9" * 5000, "é", ""]
    rows = pa.chunked_array([[[name] for name in names]])
    assert vocabulary(rows) == ("", "01", "1", "9", "10", "9" * 5000, "a9", "a10", "b", "é")


def test_multi_hot_over_chunks_and_slices() -> None:
    rows = [["b"], [], ["a", "c"], ["c"], []]
    column = pa.chunked_array([rows[:1], rows, rows]).slice(1, 9)
    expected = [[name in row for name in "abc"] for row in [*rows, *rows[:4]]]
    np.testing.assert_array_equal(multi_hot_matrix(column, ["a", "b", "c"]).toarray(), expected)


@pytest.mark.skipif(not (SHARED / "data/cifar10.parquet").is_file(), reason="no shared data")
def test_a_part_of_the_real_cifar10(tmp_path: Path) -> None:
    whole = pq.read_table(SHARED / "data/cifar10.parquet")
    pq.write_table(whole.take(np.arange(0, 60_000, 60)), tmp_path / "part.parquet")
    counts = make(tmp_path / "part.parquet", tmp_path / "store")
    assert (counts["rows"], counts["quarantined"], counts["classes"]) == (1_000, 0, 10)
    assert (counts["query"], counts["train"] + counts["validation"]) == (100, 500)


def test_the_work_is_small_to_send(image_tree: Path, tmp_path: Path) -> None:
    sizes = []

    def measure(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterable[T]:
        assert isinstance(function, functools.partial)
        sizes.append(len(pickle.dumps(function)))
        return map(function, shards)

    make(image_tree, tmp_path / "store", measure)
    assert sizes[0] < 2000


def test_files_of_rows_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    def write(folder: Path, number: int) -> None:
        batch = pa.record_batch(
            {name: [str(number) if name == "id" else None] for name in ROWS.names}, ROWS
        )
        path = folder / f"rows-{number:05}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, ROWS) as writer:
            writer.write_batch(batch)

    with new_directory(tmp_path / "store", "store", {}, {}) as draft:
        for number in (99_999, 100_000, 2):
            write(draft.path, number)
    write(tmp_path / "store", 3)  # somebody's copy, of which the manifest knows nothing
    assert open_rows(tmp_path / "store")["id"].to_pylist() == ["2", "99999", "100000"]
