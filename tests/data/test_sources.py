from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any, get_args
from urllib.error import URLError

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_digits
from support.image_files import encode_image, write_tree

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.images import decode
from schn_ray.data.shards.rows import BadRow, Row, Source, listing_sha256
from schn_ray.data.sources.cifar import download
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.sources.kinds import KINDS, open_source
from schn_ray.data.store.prepare import prepare_store

SHARED = Path(__file__).parents[3] / "shared"
CIFAR_NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse"]


def opened(location: Path | str, **settings: Any) -> Source:
    return open_source(str(location), SourceConfig(**settings))


def read_all(source: Source) -> list[Row | BadRow]:
    """Read every shard, after the trip through pickle that a worker would give it."""
    shards = list(source.shards())
    assert [shard.number for shard in shards] == list(range(len(shards)))
    all_rows: list[Row | BadRow] = []
    for shard in shards:
        source_copy, shard_copy = pickle.loads(pickle.dumps((source, shard)))
        rows = list(source_copy.read(shard_copy))
        assert len(rows) == shard.rows
        all_rows += rows
    return all_rows


def ids(source: Source) -> list[str]:
    return [row.id for row in read_all(source)]


def refusal(location: Path | str, **settings: Any) -> str:
    with pytest.raises(SchnRayError) as caught:
        list(opened(location, **settings).shards())
    return str(caught.value)


def test_a_config_may_name_every_kind() -> None:
    names = get_args(SourceConfig.model_fields["kind"].annotation)
    assert sorted(names) == sorted(["auto", *KINDS])


# --- digits


def test_digits_are_scikit_learns() -> None:
    rows = read_all(opened("digits", shard_rows=500))
    known = load_digits()
    assert [row.id for row in rows[:2]] + [rows[-1].id] == [
        "digit-0000",
        "digit-0001",
        "digit-1796",
    ]
    assert [row.labels for row in rows] == [(str(label),) for label in known.target]
    pixels = np.asarray(decode(rows[5].image, 100))[:, :, 0]
    np.testing.assert_array_equal(np.round(pixels / (255 / 16)), known.images[5])
    assert fetch(rows[5].uri) == rows[5].image


# --- folders


def test_a_folder_a_class(image_tree: Path) -> None:
    rows = read_all(opened(image_tree, shard_rows=7))
    assert len(rows) == 30
    assert rows[0].id == "cat/000.png"
    assert [row.labels[0] for row in rows] == ["cat"] * 10 + ["dog"] * 10 + ["owl"] * 10
    assert rows[3].uri == str(image_tree / "cat" / "003.png")
    assert all(fetch(row.uri) == row.image == Path(row.uri).read_bytes() for row in rows)


def test_shard_size_does_not_change_the_order(image_tree: Path) -> None:
    assert ids(opened(image_tree, shard_rows=1)) == ids(opened(image_tree, shard_rows=1000))


def test_strange_names_nesting_and_other_files(tmp_path: Path) -> None:
    names = ["a b/1.PNG", "a b/deep/er/2.Jpeg", "zürich/line\nbreak.png", "zürich/猫#7.webp"]
    for name in [*names, "a b/.hidden.png", ".git/3.png", "a b/notes.txt", "a b/Thumbs.db"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encode_image(len(name)))
    rows = read_all(opened(tmp_path))
    assert [row.id for row in rows] == sorted(names)
    assert {row.labels for row in rows} == {("a b",), ("zürich",)}
    assert all(fetch(row.uri) == row.image for row in rows)


def test_images_without_class_folders_are_unlabelled(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(encode_image(i))
    assert [(row.id, row.labels) for row in read_all(opened(tmp_path))] == [
        ("0.png", ()),
        ("1.png", ()),
        ("2.png", ()),
    ]


def test_links_are_followed_but_never_in_circles(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"cat": 2})
    elsewhere = write_tree(tmp_path / "elsewhere", {"x": 2}) / "x"
    (root / "dog").symlink_to(elsewhere)
    (root / "cat" / "up").symlink_to(root)
    (root / "cat" / "self").symlink_to(root / "cat" / "self")
    (elsewhere / "back").symlink_to(root / "dog")
    assert ids(opened(root)) == ["cat/000.png", "cat/001.png", "dog/000.png", "dog/001.png"]


def test_files_that_cannot_be_read_are_bad_rows(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "root", {"cat": 1})
    (root / "cat" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(root / "cat" / "pipe.png")
    (Path(os.fsdecode(os.fsencode(root) + b"/cat/\xff.png"))).write_bytes(encode_image(1))
    good, *bad = read_all(opened(root))
    assert isinstance(good, Row)
    assert [(row.id, row.stage, row.reason) for row in bad if isinstance(row, BadRow)] == [
        ("cat/gone.png", "read", "No such file or directory"),
        ("cat/pipe.png", "read", "not a regular file"),
        ("cat/\\xff.png", "read", "its name is not UTF-8; rename the file"),
    ]
    assert bad[2].uri.isprintable()


def test_missing_empty_and_unknown_locations(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere").startswith(f"{tmp_path}/nowhere: no such file or folder")
    (tmp_path / "empty" / "cat").mkdir(parents=True)
    assert "no images in there; expected a folder for each class" in refusal(tmp_path / "empty")
    (tmp_path / "x.dat").write_text("a")
    assert "source.kind=... (one of digits, folder, list" in refusal(tmp_path / "x.dat")
    assert "is a file; expected a folder of images" in refusal(tmp_path / "x.dat", kind="folder")
    assert "cannot be read as Parquet" in refusal(tmp_path / "x.dat", kind="parquet")
    assert "no .parquet files in there" in refusal(tmp_path / "empty", kind="parquet")
    assert "batches.meta is missing" in refusal(tmp_path / "empty", kind="cifar10")
    assert "wanted a store directory" in refusal(tmp_path / "empty", kind="store")
    with pytest.raises(SchnRayError, match="not there any more"):
        fetch(str(tmp_path / "nowhere.png"))
    with pytest.raises(SchnRayError, match="not there any more"):
        fetch("digits#1797")


def test_a_changed_listing_has_another_fingerprint(image_tree: Path) -> None:
    before = listing_sha256(opened(image_tree).shards())
    assert listing_sha256(opened(image_tree).shards()) == before
    (image_tree / "cat" / "new.png").write_bytes(b"x")
    assert listing_sha256(opened(image_tree).shards()) != before


# --- Parquet


IMAGES = [encode_image(i) for i in range(10)]


def write_parquet(path: Path, row_group_size: int = 3, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": IMAGES, **columns}), path, row_group_size=row_group_size)
    return path


@pytest.mark.parametrize("shard_rows", [1, 2, 4, 100])
@pytest.mark.parametrize("row_group_size", [1, 3, 100])
def test_row_ranges_of_parquet(tmp_path: Path, shard_rows: int, row_group_size: int) -> None:
    names = [f"n{i}" for i in range(10)]
    path = write_parquet(tmp_path / "a.parquet", row_group_size, id=names, label=list(range(10)))
    rows = read_all(opened(path, shard_rows=shard_rows))
    assert [row.id for row in rows] == names
    assert [row.image for row in rows] == IMAGES
    assert [row.labels for row in rows] == [(str(i),) for i in range(10)]
    assert [fetch(row.uri) for row in rows] == IMAGES


def test_a_folder_of_parquet_files_without_ids(tmp_path: Path) -> None:
    for name in ("b/x.parquet", "a.parquet", ".hidden.parquet"):
        write_parquet(tmp_path / name)
    rows = read_all(opened(tmp_path, shard_rows=4))
    assert [row.id for row in rows] == [
        f"{name}#{i}" for name in ("a.parquet", "b/x.parquet") for i in range(10)
    ]
    assert rows[13].uri == f"{tmp_path}/b/x.parquet#3"
    assert rows[13].labels == ()


def test_lists_structs_dictionaries_and_nulls(tmp_path: Path) -> None:
    structs = [{"bytes": image, "path": "p"} for image in IMAGES]
    structs[1] = {"bytes": None, "path": "p"}
    path = write_parquet(
        tmp_path / "a.parquet",
        key=[7, 8, None, *range(9, 16)],
        img=structs,
        tags=pa.array([["a", "b", "a"], [], [], None, ["c", None], [""], *[["a"]] * 4]),
        split=pa.array(["train", None] * 5).dictionary_encode(),
    )
    settings = {"id_column": "key", "image_column": "img", "label_column": "tags"}
    rows = read_all(opened(path, **settings))
    assert rows[0] == Row("7", IMAGES[0], ("a", "b"), f"{path}#0:img", "train")
    assert fetch(rows[0].uri) == IMAGES[0]
    assert rows[3] == Row("9", IMAGES[3], (), f"{path}#3:img", None)
    assert [row.reason for row in rows if isinstance(row, BadRow)] == [
        "No such file or directory",
        "no id: column 'key' is null",
        "an empty label in 'tags'",
        "an empty label in 'tags'",
    ]
    assert rows[2].id == "a.parquet#2"
    with pytest.raises(SchnRayError, match="row 1 has no image"):
        fetch(f"{path}#1:img")


def test_parquet_columns_that_do_not_fit(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "a.parquet", label=[0.5] * 10, id=[[1]] * 10, split=[1] * 10)
    message = refusal(path, image_column="imgae")
    assert "no column 'imgae'; did you mean 'image'?" in message
    assert "There are: image, label, id, split" in message
    assert "column 'label' holds double; expected whole numbers" in refusal(path, id_column="no")
    assert "column 'id' holds list<element: int64>; expected text" in refusal(path)
    assert "'label' holds double; expected the encoded images" in refusal(
        path, image_column="label"
    )
    assert "column 'split' holds int64; expected text" in refusal(
        path, id_column="no", label_column="no"
    )
    empty = tmp_path / "empty.parquet"
    pq.write_table(pa.table({"image": pa.array([], pa.binary())}), empty)
    assert "no rows in there" in refusal(empty)
    for length in (0, 3, 100, path.stat().st_size - 1):
        (tmp_path / "cut.parquet").write_bytes(path.read_bytes()[:length])
        assert "cannot be read as Parquet" in refusal(tmp_path / "cut.parquet")


def test_damage_inside_a_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    noise = np.random.default_rng(0).bytes(100_000)
    pq.write_table(pa.table({"image": [noise] * 3, "id": ["a", "b", "c"]}), path)
    data = bytearray(path.read_bytes())
    data[4:100] = bytes(96)  # the first page's header
    path.write_bytes(data)
    with pytest.raises(SchnRayError, match=r"a\.parquet cannot be read as Parquet"):
        read_all(opened(path))
    with pytest.raises(SchnRayError, match=r"a\.parquet cannot be read as Parquet"):
        fetch(f"{path}#1")


# --- CIFAR-10


def write_cifar(root: Path, rows: int = 3) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for number, name in enumerate(names):
        pixels = np.random.default_rng(number).integers(0, 256, (rows, 3072), np.uint8)
        batch = {"data": pixels, "labels": [(number + i) % 8 for i in range(rows)]}
        (folder / name).write_bytes(pickle.dumps(batch))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR_NAMES}))
    return folder


def python_2_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 pickled it, protocol 2: text and array data are byte strings."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    data = pixels.tobytes()
    return (
        b"\x80\x02}("
        + text(b"data")
        + b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
        + (b"K\x00\x85" + text(b"b") + b"\x87R")
        + (b"(K\x01" + number(len(pixels)) + number(pixels.shape[1]) + b"\x86")
        + (b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|"))
        + (b"NNN" + number(-1) + number(-1) + b"K\x00tb\x89")
        + (b"T" + struct.pack("<i", len(data)) + data + b"tb")
        + (text(b"labels") + b"](" + b"".join(number(label) for label in labels) + b"eu.")
    )


@pytest.mark.parametrize("parent", [False, True])
def test_cifar10_batches(tmp_path: Path, parent: bool) -> None:
    folder = write_cifar(tmp_path)
    rows = read_all(opened(tmp_path if parent else folder, shard_rows=2))
    assert [row.id for row in rows][:4] == [
        "train-00000",
        "train-00001",
        "train-00002",
        "train-10000",
    ]
    assert [(row.id, row.split) for row in rows][-1] == ("test-00002", "test")
    assert rows[4].labels == ("bird",)
    with (folder / "data_batch_2").open("rb") as file:
        planes = pickle.load(file)["data"][1].reshape(3, 32, 32)
    np.testing.assert_array_equal(
        np.asarray(decode(rows[4].image, 2000)).transpose(2, 0, 1), planes
    )
    assert all(fetch(row.uri) == row.image for row in rows)


def test_batches_written_by_python_2(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path)
    pixels = np.random.default_rng(9).integers(0, 256, (2, 3072), np.uint8)
    (folder / "test_batch").write_bytes(python_2_batch(pixels, [3, 200]))
    good, bad = read_all(opened(folder))[-2:]
    assert good.labels == ("cat",)
    shown = np.asarray(decode(good.image, 2000)).transpose(2, 0, 1)
    np.testing.assert_array_equal(shown.reshape(-1), pixels[0])
    assert bad == BadRow(
        "test-00001", f"{folder}/test_batch#1", "read", "label 200 is not in batches.meta"
    )


class Malicious:
    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.touched),)


@pytest.mark.parametrize("where", ["data_batch_1", "batches.meta"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, where: str) -> None:
    folder = write_cifar(tmp_path)
    touched = tmp_path / "touched"
    (folder / where).write_bytes(pickle.dumps({"data": Malicious(touched), "labels": []}))
    with pytest.raises(SchnRayError, match=rf"{where}: refused, .* wants to run posix\.mkdir"):
        read_all(opened(folder))
    assert not touched.exists()


def test_damaged_batches(tmp_path: Path) -> None:
    folder = write_cifar(tmp_path)
    batch = folder / "data_batch_3"
    pixels = np.zeros((2, 3072), np.uint8)
    for values, message in {
        b"": "not a batch of CIFAR",
        b"<html>": "not a batch of CIFAR",
        batch.read_bytes()[:5000]: "not a batch of CIFAR",
        pickle.dumps([1]): "holds a list; expected a dictionary",
        pickle.dumps({"data": pixels.astype(float), "labels": [0, 1]}): "an array of uint8",
        pickle.dumps({"data": pixels[:, 1:], "labels": [0, 1]}): "has shape (2, 3071)",
        pickle.dumps({"data": pixels, "labels": [0]}): "a list of 2 numbers",
        pickle.dumps({"data": pixels, "labels": [0, "x"]}): "not a whole number",
    }.items():
        batch.write_bytes(values)
        assert message in refusal(folder)
    batch.unlink()
    assert refusal(folder) == f"{batch} is missing; download it again"


# --- stores and the real thing


def test_a_store_is_a_source_of_the_same_rows(image_tree: Path, tmp_path: Path) -> None:
    original = opened(image_tree, shard_rows=7)
    prepare_store(original, PrepareConfig(), tmp_path / "store")
    stored = opened(tmp_path / "store", shard_rows=4)
    assert stored.kind == "store"
    expected = [(row.id, row.image, row.labels, row.split) for row in read_all(original)]
    rows = read_all(stored)
    assert [(row.id, row.image, row.labels, row.split) for row in rows] == expected
    assert all(fetch(row.uri) == row.image for row in rows)


@pytest.mark.skipif(not (SHARED / "data/cifar10.parquet").is_file(), reason="no shared data")
def test_the_real_cifar10_parquet() -> None:
    source = opened(SHARED / "data/cifar10.parquet")
    shards = list(source.shards())
    assert sum(shard.rows for shard in shards) == 60_000
    row = next(iter(source.read(shards[-1])))
    assert isinstance(row, Row)
    assert (row.split, decode(row.image, 2000).size) == ("test", (32, 32))
    assert fetch(row.uri) == row.image


def test_a_download_that_fails_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(root: str, download: bool) -> None:
        assert (Path(root), download) == (tmp_path, True)
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.CIFAR10", offline)
    for location in (tmp_path, tmp_path / "cifar-10-batches-py"):
        with pytest.raises(SchnRayError, match=r"was not downloaded .*no network.*yourself"):
            download(location)
