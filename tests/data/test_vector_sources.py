"""Sources of vectors: tables, .npy, and what Hugging Face's datasets saves."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.image_files import encode_image

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import BadRow, Row, Source
from schn_ray.data.shards.vectors import (
    NOT_FINITE,
    NULL,
    NULL_INSIDE,
    ZERO,
    VectorFormat,
    vectors_of,
    width_problem,
)
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.sources.vector_columns import vectors_in

X = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)


def opened(location: Path | str, **settings: Any) -> Source:
    return open_source(str(location), SourceConfig(**settings))


def read_all(source: Source) -> list[Row | BadRow]:
    """Read every shard, after the trip through pickle that a worker would give it."""
    rows: list[Row | BadRow] = []
    for shard in source.shards():
        source_copy, shard_copy = pickle.loads(pickle.dumps((source, shard)))
        of_shard = list(source_copy.read(shard_copy))
        assert len(of_shard) == shard.rows
        rows += of_shard
    return rows


def good(source: Source) -> list[Row]:
    rows = read_all(source)
    assert all(isinstance(row, Row) for row in rows), rows
    return [row for row in rows if isinstance(row, Row)]


def vectors(rows: list[Row]) -> np.ndarray:
    return np.stack([row.vector for row in rows if row.vector is not None])


def reasons(source: Source) -> dict[str, str]:
    return {row.id: row.reason for row in read_all(source) if isinstance(row, BadRow)}


def refusal(location: Path | str, **settings: Any) -> str:
    with pytest.raises(SchnRayError) as caught:
        list(opened(location, **settings).shards())
    return str(caught.value)


def write(path: Path, batch_rows: int = 3, **columns: Any) -> Path:
    table = pa.table(columns)
    if path.suffix == ".parquet":
        pq.write_table(table, path, row_group_size=batch_rows)
    elif path.suffix == ".feather":
        feather.write_feather(table, str(path), chunksize=batch_rows)
    else:
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table, batch_rows)
    return path


def lists(kind: pa.DataType, values: Any = X) -> pa.Array:
    return pa.array([None if row is None else list(row) for row in values], kind)


KINDS = {
    "list": (pa.list_(pa.float32()), "float32"),
    "large": (pa.large_list(pa.float64()), "float32"),
    "fixed": (pa.list_(pa.float16(), 4), "float16"),
    "tensor": (pa.fixed_shape_tensor(pa.float32(), [4]), "float32"),
}


@pytest.mark.parametrize("suffix", [".parquet", ".feather", ".arrow"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_column_of_vectors(tmp_path: Path, suffix: str, kind: str) -> None:
    arrow_type, dtype = KINDS[kind]
    column = lists(pa.list_(pa.float32(), 4))
    if kind != "tensor":
        column = pa.array(X.astype(arrow_type.value_type.to_pandas_dtype()).tolist(), arrow_type)
    else:
        column = pa.ExtensionArray.from_storage(arrow_type, column)
    names = [f"n{i}" for i in range(10)]
    labels = [None, "b", *["a"] * 8]
    path = write(tmp_path / f"e{suffix}", id=names, embedding=column, label=labels)
    source = opened(path, shard_rows=1)
    rows = good(source)
    assert vectors_of(source) == VectorFormat(4, dtype)
    assert [row.id for row in rows] == names
    assert [row.labels for row in rows[:3]] == [(), ("b",), ("a",)]
    assert {(row.image, row.split, row.camera) for row in rows} == {(None, None, -1)}
    assert rows[7].uri == f"{path}#7"
    assert vectors(rows).dtype == dtype
    np.testing.assert_array_equal(vectors(rows), X.astype(dtype))


def test_without_ids_a_row_has_its_number(tmp_path: Path) -> None:
    for name in ("a.parquet", "b.parquet"):
        write(tmp_path / name, whatever=lists(pa.list_(pa.float32())))
    rows = good(opened(tmp_path))
    assert [row.id for row in rows[8:12]] == [
        "a.parquet#8",
        "a.parquet#9",
        "b.parquet#0",
        "b.parquet#1",
    ]


def test_bad_vectors_are_quarantined_with_their_reasons(tmp_path: Path) -> None:
    values = [list(map(float, row)) for row in X] * 2
    values[1], values[2], values[3] = values[1][:3], [0.0, -0.0, 0.0, 0.0], [1.0, None, 2.0, 3.0]
    values[4], values[5], values[6] = [1.0, np.nan, 0.0, 0.0], [np.inf, 0.0, 0.0, 0.0], None
    values[7], values[8] = [1e300, 1.0, 1.0, 1.0], []
    labels = pa.array([*[["b", "a", "b"]] * 9, [""], *[None] * 10], pa.list_(pa.string()))
    ids = [*map(str, range(19)), None]
    path = write(
        tmp_path / "a.parquet",
        vector=pa.array(values, pa.list_(pa.float64())),
        label=labels,
        id=ids,
        split=["train", None] * 10,
        camera=pa.array([3, None] * 10, pa.int64()),
    )
    assert reasons(opened(path)) == {
        "1": width_problem(3, 4),
        "2": ZERO,
        "3": NULL_INSIDE,
        "4": NOT_FINITE,
        "5": NOT_FINITE,
        "6": NULL,
        "7": NOT_FINITE,
        "8": width_problem(0, 4),
        "9": "an empty label in 'label'",
        "a.parquet#19": "no id: column 'id' is null",
    }
    first = read_all(opened(path))[0]
    assert isinstance(first, Row)
    assert (first.labels, first.split, first.camera) == (("a", "b"), "train", 3)


# training rounds tiny numbers to 0 in the whole process, and hypothesis wants to be told
NUMBERS = st.floats(width=32, allow_subnormal=False) | st.sampled_from([0.0, 1.0, -2.5])


@given(
    rows=st.lists(
        st.none() | st.lists(st.none() | NUMBERS, max_size=4),
        min_size=1,
        max_size=12,
    ),
    kind=st.sampled_from([pa.list_(pa.float32()), pa.large_list(pa.float64())]),
    width=st.integers(1, 3),
    cut=st.integers(0, 3),
)
def test_vectors_of_a_column_are_those_of_its_rows(
    rows: list[Any], kind: pa.DataType, width: int, cut: int
) -> None:
    result, problems = vectors_in(pa.array(rows, kind)[cut:], VectorFormat(width, "float32"))
    assert len(result) == len(rows[cut:])
    for number, row in enumerate(rows[cut:]):
        is_good = row is not None and len(row) == width and None not in row
        is_good = is_good and bool(np.isfinite(row).all() and np.any(row))
        assert is_good == (number not in problems)
        if is_good:
            np.testing.assert_array_equal(result[number], np.float32(row))


def test_which_column_has_the_vectors(tmp_path: Path) -> None:
    column, images = lists(pa.list_(pa.float32())), [encode_image(i) for i in range(10)]
    two = write(tmp_path / "two.parquet", a=column, b=column)
    message = refusal(two)
    assert "the vectors may be in a or b; choose a column" in message
    assert vectors_of(opened(two, vector_column="b")) == VectorFormat(4, "float32")
    usual = write(tmp_path / "usual.parquet", a=column, Features=column)
    assert np.array_equal(vectors(good(opened(usual))), X)
    assert "no column 'feature' of vectors; did you mean 'Features'?" in refusal(
        usual, vector_column="feature"
    )
    boxes = write(tmp_path / "boxes.parquet", image=images, bbox=column, label=[[1, 2]] * 10)
    assert vectors_of(opened(boxes)) is None
    assert vectors_of(opened(boxes, vector_column="bbox")) == VectorFormat(4, "float32", True)
    text = write(tmp_path / "text.parquet", a=["x"] * 10, counts=[[1, 2]] * 10)
    assert "no column 'image'" in refusal(text)
    assert "source.vector_column=NAME" in refusal(text)
    assert "column 'counts' holds list<element: int64>; expected lists of float16" in refusal(
        text, vector_column="counts"
    )


def test_images_and_vectors_together(tmp_path: Path) -> None:
    images: list[Any] = [encode_image(i) for i in range(10)]
    images[3] = None
    values: list[Any] = list(X.astype(np.float16))
    values[5] = values[5][:2]
    for suffix in (".parquet", ".feather"):
        path = write(
            tmp_path / f"both{suffix}",
            image=images,
            embedding=lists(pa.list_(pa.float16()), values),
        )
        source = opened(path)
        rows = read_all(source)
        assert vectors_of(source) == VectorFormat(4, "float16", images=True)
        assert [row.reason for row in rows if isinstance(row, BadRow)] == [
            "no image: 'image' is null",
            width_problem(2, 4),
        ]
        for number, row in enumerate(rows):
            if isinstance(row, Row):
                assert row.image == images[number] == fetch(row.uri)
                np.testing.assert_array_equal(row.vector, X[number].astype(np.float16))
        alone = opened(path, image_column="")
        assert {row.image for row in read_all(alone) if isinstance(row, Row)} == {None}
        only_images = read_all(opened(path, vector_column=""))
        assert all(row.vector is None for row in only_images if isinstance(row, Row))


def test_the_width_is_that_of_most_of_the_first_rows(tmp_path: Path) -> None:
    values = [X[0, :2], *X[1:9], X[9, :3]]
    path = write(tmp_path / "a.parquet", embedding=lists(pa.list_(pa.float32()), values))
    source = opened(path)
    list(source.shards())
    assert pickle.loads(pickle.dumps(source)).__dict__["layout"].vectors.width == 4
    assert [row.id for row in read_all(source) if isinstance(row, BadRow)] == [
        "a.parquet#0",
        "a.parquet#9",
    ]
    assert len(reasons(opened(path, vector_width=3))) == 9
    assert len(reasons(opened(path, shard_rows=1))) == 9  # the first row decides
    null = write(tmp_path / "null.parquet", embedding=lists(pa.list_(pa.float32()), [None] * 3))
    assert "have no vector in 'embedding'; give the number" in refusal(null)
    assert set(reasons(opened(null, vector_width=4)).values()) == {NULL}


def test_files_of_one_source_have_one_type(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", embedding=lists(pa.list_(pa.float32())))
    write(tmp_path / "b.parquet", embedding=lists(pa.list_(pa.float64())))
    assert len(good(opened(tmp_path))) == 20
    write(
        tmp_path / "c.parquet",
        embedding=pa.array(X.astype(np.float16).tolist(), pa.list_(pa.float16())),
    )
    assert "c.parquet: column 'embedding' holds list" in refusal(tmp_path)
    write(tmp_path / "c.parquet", other=lists(pa.list_(pa.float32())))
    assert "c.parquet: column 'embedding' is missing; the first file has float32[4]" in refusal(
        tmp_path
    )


def test_a_table_without_rows(tmp_path: Path) -> None:
    empty = write(tmp_path / "a.parquet", embedding=pa.array([], pa.list_(pa.float32())))
    assert "no rows in there" in refusal(empty)
    write(tmp_path / "b.parquet", embedding=lists(pa.list_(pa.float32())))
    assert len(good(opened(tmp_path))) == 10


def test_ids_that_are_not_utf8(tmp_path: Path) -> None:
    bad = pa.Array.from_buffers(
        pa.string(),
        3,
        [None, pa.array([0, 1, 2, 3], pa.int32()).buffers()[1], pa.py_buffer(b"a\xffc")],
    )
    path = write(tmp_path / "a.feather", id=bad, embedding=lists(pa.list_(pa.float32()), X[:3]))
    assert list(reasons(opened(path)).values()) == ["its id in 'id' is not UTF-8"]


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64(), pa.int8()])
def test_cameras_of_each_type(tmp_path: Path, kind: pa.DataType) -> None:
    last = 7 if kind == pa.int8() else 1 << 40
    cameras = pa.array([3, None, *[0] * 7, last], kind)
    path = write(tmp_path / "a.parquet", vec=lists(pa.list_(pa.float32())), camera=cameras)
    rows = read_all(opened(path))
    assert [row.camera for row in rows[:3] if isinstance(row, Row)] == [3, -1, 0]
    assert isinstance(rows[9], Row if last == 7 else BadRow)


def test_files_of_one_row(tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"{i}.parquet", vec=lists(pa.list_(pa.float32()), X[i : i + 1]))
    np.testing.assert_array_equal(vectors(good(opened(tmp_path))), X[:3])


def test_class_names_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "names").write_text("cat\ndog\n")
    column = lists(pa.list_(pa.float32()))
    path = write(tmp_path / "a.parquet", embedding=column, label=[0, 1, 2, *[0] * 7])
    rows = read_all(opened(path, class_names=str(tmp_path / "names")))
    assert [row.labels for row in rows if isinstance(row, Row)][:2] == [("cat",), ("dog",)]
    assert isinstance(rows[2], BadRow)


# --- npy


def save(path: Path, values: Any = X, **others: Any) -> Path:
    np.save(path, values)
    for ending, content in others.items():
        (path.parent / f"{path.stem}.{ending}.txt").write_bytes(content)
    return path


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", "i1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_of_each_type(tmp_path: Path, dtype: str, order: str) -> None:
    values = np.array(X * 20, dtype=dtype, order=order)  # type: ignore[call-overload]
    rows = good(opened(save(tmp_path / "e.npy", values), shard_rows=1))
    assert [row.id for row in rows] == [str(i) for i in range(10)]
    assert vectors(rows).dtype == ("float32" if dtype[1:] in ("f4", "f8") else np.dtype(dtype))
    np.testing.assert_array_equal(vectors(rows), values.astype(vectors(rows).dtype))
    assert rows[3].uri == f"{tmp_path}/e.npy#3"
    with pytest.raises(SchnRayError, match="row 3 is a vector and has no image"):
        fetch(rows[3].uri)


def test_npy_with_ids_and_labels(tmp_path: Path) -> None:
    ids = b"\xef\xbb\xbfa\r\nb\r\n\xff\r\n\r\n" + b"".join(b"%d\n" % i for i in range(4, 10))
    path = save(tmp_path / "e.npy", ids=ids, labels=b"dog;cat;dog\n\n" + b"cat\n" * 8)
    rows = read_all(opened(path, shard_rows=1))
    assert [row.id for row in rows] == ["a", "b", "2", "3", *map(str, range(4, 10))]
    assert [row.labels for row in rows if isinstance(row, Row)][:3] == [
        ("cat", "dog"),
        (),
        ("cat",),
    ]
    assert reasons(opened(path)) == {
        "2": "row 3 of e.ids.txt is not UTF-8",
        "3": "no id: row 4 of e.ids.txt is empty",
    }
    stamp = next(iter(opened(path).shards())).stamps
    save(path, labels=b"dog\n" * 10)
    assert next(iter(opened(path).shards())).stamps != stamp
    (tmp_path / "e.labels.txt").write_bytes(b"dog\n" * 9)
    assert "e.labels.txt has 9 rows, the vectors are 10" in refusal(path)
    (tmp_path / "e.labels.txt").write_bytes(b"dog\n" * 9 + b"\n\n\n")  # the last is unlabelled
    assert list(opened(path).shards())


def test_npy_with_an_array_of_ids(tmp_path: Path) -> None:
    path = save(tmp_path / "e.npy")
    for ids, expected in (
        (np.arange(10) * 7, "21"),
        (np.array([f"ä{i}" for i in range(10)]), "ä3"),
    ):
        np.save(tmp_path / "e.ids.npy", ids)
        assert good(opened(path))[3].id == expected
        assert good(opened(tmp_path))[3].id == expected
    np.save(tmp_path / "e.ids.npy", np.array([b"a%d" % i for i in range(9)] + [b"\xff"]))
    assert reasons(opened(path)) == {"9": "row 10 of e.ids.npy is not UTF-8"}
    assert read_all(opened(path))[3].id == "a3"
    np.save(tmp_path / "e.ids.npy", np.arange(9))
    assert "e.ids.npy has 9 rows, the vectors are 10" in refusal(path)
    np.save(tmp_path / "e.ids.npy", np.array(["a"] * 10, object), allow_pickle=True)
    assert "cannot be read as .npy" in refusal(path)
    np.save(tmp_path / "e.ids.npy", np.zeros(10))
    assert "expected texts or whole numbers [n]; got float64[10]" in refusal(path)
    (tmp_path / "e.ids.txt").write_text("a\n" * 10)
    assert "expected one of them" in refusal(path)


def test_npy_that_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "e.npy", X[0])
    assert "expected vectors [n, D], a row each; got [4]" in refusal(path)
    np.save(path, np.array([[1, "a"]], object), allow_pickle=True)
    assert "cannot be read as .npy" in refusal(path)
    for values in (np.ones((3, 2), np.int64), np.ones((3, 2), complex), np.ones((3, 2), bool)):
        assert "expected float16, float32, float64 or int8" in refusal(save(path, values))
    assert "no rows in there" in refusal(save(path, X[:0]))
    assert "a row each; got [10, 0]" in refusal(save(path, X[:, :0]))
    for content in (b"", b"\x93NUMPY", b"hello, this is no array"):
        path.write_bytes(content)
        assert "cannot be read as .npy" in refusal(path)
    assert "source.vector_width is 5" in refusal(save(path), vector_width=5)
    save(tmp_path / "f.npy", X[:, :3])
    assert "f.npy: its vectors are float32[3]; the first file has float32[4]" in refusal(tmp_path)


def test_a_folder_of_images_with_an_npy_stays_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "e.npy")
    assert opened(tmp_path).kind == "npy"
    (tmp_path / "a.png").write_bytes(encode_image())
    assert opened(tmp_path).kind == "folder"


# --- datasets


def save_to_disk(folder: Path, features: dict[str, Any], table: pa.Table) -> Path:
    folder.mkdir(parents=True)
    names = [f"data-0000{part}-of-00002.arrow" for part in range(2)]
    for part, name in enumerate(names):
        with (
            pa.OSFile(str(folder / name), "wb") as file,
            pa.ipc.new_stream(file, table.schema) as writer,
        ):
            writer.write_table(table.slice(part * 6, 6), 4)
    state = {"_data_files": [{"filename": name} for name in names], "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": features}))
    return folder


FEATURES = {
    "labels": {"names": ["zero", "one"], "_type": "ClassLabel"},
    "emb": {"feature": {"dtype": "float32", "_type": "Value"}, "_type": "Sequence"},
    "img": {"_type": "Image"},
}


def columns(*names: str) -> pa.Table:
    images = [{"bytes": encode_image(i), "path": None} for i in range(10)]
    table = pa.table(
        {
            "emb": lists(pa.list_(pa.float32())),
            "img": pa.array(images, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
            "labels": pa.array([0, 1, -1, None, 7, *[1] * 5], pa.int64()),
        }
    )
    return table.select(list(names))


def test_datasets_with_vectors(tmp_path: Path) -> None:
    folder = save_to_disk(tmp_path / "d", FEATURES, columns("emb", "labels"))
    (folder / "cache-1.arrow").write_bytes(b"left by a map")
    source = opened(folder, shard_rows=1)
    assert source.kind == "datasets"
    rows = read_all(source)
    assert [row.labels for row in rows[:4] if isinstance(row, Row)] == [("zero",), ("one",), (), ()]
    assert isinstance(rows[4], BadRow)
    assert rows[4].reason == "label '7' in 'labels' has no name: there are 2"
    assert rows[7].id == "data-00001-of-00002.arrow#1"
    np.testing.assert_array_equal(rows[7].vector, X[7])  # type: ignore[union-attr]


def test_datasets_with_images_in_splits(tmp_path: Path) -> None:
    table = columns("img", "labels")
    for split in ("train", "test"):
        save_to_disk(tmp_path / split, FEATURES, table.slice(5))
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    rows = good(opened(tmp_path))
    assert [row.split for row in rows] == ["train"] * 5 + ["test"] * 5
    assert {row.labels for row in rows} == {("one",)}
    assert rows[9].image == encode_image(9) == fetch(rows[9].uri)
    assert rows[9].uri.endswith("test/data-00000-of-00002.arrow#4:img")


def test_datasets_with_both(tmp_path: Path) -> None:
    folder = save_to_disk(tmp_path / "d", FEATURES, columns("img", "emb"))
    source = opened(folder, vector_column="emb")
    rows = good(source)
    assert vectors_of(source) == VectorFormat(4, "float32", images=True)
    assert rows[3].image == encode_image(3)
    np.testing.assert_array_equal(vectors(rows), X)


def test_datasets_that_are_not_whole(tmp_path: Path) -> None:
    folder = save_to_disk(tmp_path / "d", FEATURES, columns("emb"))
    (folder / "data-00001-of-00002.arrow").unlink()
    assert "the data set is not whole" in refusal(folder)
    (folder / "state.json").write_text("{")
    assert "state.json cannot be read as JSON" in refusal(folder)
    (folder / "state.json").write_text(json.dumps({"_indices_data_files": [{"filename": "i"}]}))
    assert "flatten_indices()" in refusal(folder)
    (folder / "state.json").write_text("{}")
    assert "no data set that save_to_disk wrote" in refusal(folder)
