"""Lists, CSV, paths in Parquet, and sources that lie at URIs."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.image_files import encode_image, write_tree

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import filesystem_of
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import BadRow, Row, listing_sha256, units_of
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.sources.roots import OutsideRootError, Root


def read(location: Path | str, **settings: Any) -> list[Row | BadRow]:
    """Read every shard, after the trip through pickle that a worker would give it."""
    source = open_source(str(location), SourceConfig(**{"shard_rows": 3} | settings))
    all_rows: list[Row | BadRow] = []
    for shard in source.shards():
        source_copy, shard_copy = pickle.loads(pickle.dumps((source, shard)))
        rows = list(source_copy.read(shard_copy))
        assert len(rows) == shard.rows == sum(unit.rows for unit in units_of(shard))
        all_rows += rows
    return all_rows


def bad(rows: list[Row | BadRow]) -> dict[str, str]:
    assert all(row.stage == "read" for row in rows if isinstance(row, BadRow))
    return {row.id: row.reason for row in rows if isinstance(row, BadRow)}


def labels(rows: list[Row | BadRow]) -> dict[str, tuple[str, ...]]:
    return {row.id: row.labels for row in rows if isinstance(row, Row)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """``list.txt``'s folder: two classes of three."""
    return write_tree(tmp_path / "photos", {"cat": 3, "dog": 3})


@pytest.fixture
def bucket(photos: Path) -> Iterator[str]:
    """The same photos, where only fsspec reaches them."""
    memory = fsspec.filesystem("memory")
    for file in photos.rglob("*.png"):
        memory.pipe(f"/bucket/photos/{file.relative_to(photos).as_posix()}", file.read_bytes())
    memory.pipe("/bucket/photos/.hidden.png", b"")
    memory.pipe("/bucket/photos/notes.txt", b"")
    yield "memory://bucket/photos"
    memory.rm("/bucket", recursive=True)


# --- text lists


def test_a_path_a_line(photos: Path) -> None:
    (photos / "list.txt").write_bytes(b"\xef\xbb\xbfcat/000.png  \r\n\ndog/001.png\ncat/002.png")
    rows = read(photos / "list.txt")
    assert labels(rows) == {"cat/000.png": (), "dog/001.png": (), "cat/002.png": ()}
    assert [row.uri for row in rows][1] == str(photos / "dog" / "001.png")
    assert all(isinstance(row, Row) and fetch(row.uri) == row.image for row in rows)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["cat/000.png 3", "dog/000.png 010"], {"cat/000.png": ("3",), "dog/000.png": ("10",)}),
        (
            ["cat/000.png 0 1 1", "dog/000.png 0 0 0 "],
            {"cat/000.png": ("1", "2"), "dog/000.png": ()},
        ),
        (["my photo 1.png", "12 5.png"], {"my photo 1.png": (), "12 5.png": ()}),
        (["my photo 1.png\t7", "a 12.png 0"], {"my photo 1.png": ("7",), "a 12.png": ("0",)}),
    ],
)
def test_labels_behind_the_path(
    photos: Path, lines: list[str], expected: dict[str, tuple[str, ...]]
) -> None:
    for name in expected:
        (photos / name).write_bytes(encode_image(len(name)))
    (photos / "list.txt").write_text("\n".join(lines))
    assert labels(read(photos / "list.txt")) == expected


def test_lines_that_are_wrong_are_named(photos: Path) -> None:
    lines = ["cat/000.png 0 1", "cat/001.png 0", "cat/002.png 0 2", "gone.png 0 1", "x\0y.png 1 0"]
    (photos / "list.txt").write_bytes("\n".join(lines).encode() + b"\ncat/\xff.png 0 1\n")
    rows = read(photos / "list.txt")
    assert list(labels(rows)) == ["cat/000.png"]
    assert bad(rows) == {
        "cat/001.png": "line 2: 2 fields, where the first line has 3",
        "cat/002.png": "line 3: labels other than 0 and 1",
        "gone.png": "line 4: No such file or directory",
        "x\0y.png": "line 5: embedded null byte",
        "cat/\\xff.png": "line 6: its name is not UTF-8; rename the file",
    }
    assert rows[3].uri == f"{photos}/list.txt:4"


def test_paths_that_lead_out_of_the_folder_are_quarantined(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(encode_image(99))
    inside = ["cat/../dog/000.png", f"{photos}/cat/001.png", "./cat/002.png"]
    outside = ["../secret.png", f"{tmp_path}/secret.png", "../photos2/a.png", "nosuch://b/a.png"]
    (photos / "list.txt").write_text("\n".join(inside + outside))
    rows = read(photos / "list.txt")
    assert list(labels(rows)) == inside
    assert list(bad(rows)) == outside
    hint = f"leads out of {photos}; if that is right, allow it with --set source.allow_outside"
    assert all(hint in reason for reason in bad(rows).values())
    allowed = read(photos / "list.txt", allow_outside=True)
    assert list(labels(allowed)) == [*inside, *outside[:2]]
    elsewhere = read(photos / "list.txt", root=str(tmp_path))
    assert list(labels(elsewhere)) == [inside[1], outside[1]]


def test_a_prefix_is_cut_off(photos: Path) -> None:
    (photos / "list.txt").write_text("/home/other/nus/cat/000.png 1\ncat/001.png 1\n")
    rows = read(photos / "list.txt", strip_prefix="/home/other/nus")
    assert [row.uri for row in rows] == [f"{photos}/cat/000.png", f"{photos}/cat/001.png"]
    assert not bad(rows)


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        ("/a", "../a2/x"),
        ("/a", "/a"),
        ("/a", "b/../../c"),
        ("/a", "https://host/x.png"),
        ("s3://b/a", "../x"),
        ("s3://b/a", "/a/x"),
        ("s3://b/a", "s3://b/a/../x"),
        ("s3://b/a", "s3://b2/a/x"),
        ("s3://b", "s3://b/../c/x"),
    ],
)
def test_the_ways_out_of_a_folder(folder: str, path: str) -> None:
    with pytest.raises(OutsideRootError):
        Root(folder).resolve(path)


def test_the_ways_in() -> None:
    assert Root("/").resolve("/a/b.png") == "/a/b.png"
    assert Root("s3://b").resolve("s3://b/x.png") == "s3://b/x.png"
    assert Root("s3://b/a").resolve("c/../d x.png") == "s3://b/a/d x.png"
    assert Root("s3://b/a", "/old").resolve("/old/x.png") == "s3://b/a/x.png"


# --- CSV


def test_csv_with_labels_and_ids(photos: Path) -> None:
    (photos / "x.csv").write_text(
        "id,path,labels\n1,cat/000.png,cat; animal;cat\n,cat/001.png,\n3,,x\n4,cat/002.png\n"
        '5,"a ""b"",\nc.png",q\n'
    )
    (photos / 'a "b",\nc.png').write_bytes(encode_image(5))
    rows = read(photos / "x.csv")
    assert labels(rows) == {"1": ("cat", "animal"), "cat/001.png": (), "5": ("q",)}
    assert bad(rows) == {
        "3": "line 4: no path",
        "4": "line 5: 2 fields, where the header has 3",
    }


def test_a_csv_with_categories_is_labelled(photos: Path) -> None:
    (photos / "x.csv").write_text("path,category\ncat/000.png,cat;animal\n")
    assert labels(read(photos / "x.csv")) == {"cat/000.png": ("cat", "animal")}
    (photos / "x.csv").write_text("path,category,label\ncat/000.png,no,cat\n")
    assert labels(read(photos / "x.csv")) == {"cat/000.png": ("cat",)}


def test_csv_columns_are_settings(photos: Path) -> None:
    (photos / "x.csv").write_text("photo,what,key\ncat/000.png,cat,k\n")
    settings = {"path_column": "photo", "label_column": "what", "id_column": "key"}
    assert labels(read(photos / "x.csv", **settings)) == {"k": ("cat",)}
    with pytest.raises(SchnRayError, match=r"no column 'path'.*photo, what, key.*path_column"):
        read(photos / "x.csv")


def test_lists_that_are_none(photos: Path) -> None:
    for name, content, message in [
        ("a.txt", b"\n \n", "no images listed"),
        ("a.csv", b"", "no column 'path'"),
        ("b.csv", b"path,id\n", "no images listed"),
        ("c.csv", b'path\n"' + b"x" * 200_000, r"c\.csv:.*not CSV"),
    ]:
        (photos / name).write_bytes(content)
        with pytest.raises(SchnRayError, match=message):
            read(photos / name)


# --- paths in Parquet


def test_parquet_may_hold_paths(photos: Path) -> None:
    paths = ["cat/000.png", "../secret.png", None, "dog/002.png", "gone.png"]
    table = pa.table({"id": list("abcde"), "image": paths, "label": [0, 1, 2, 3, 4]})
    pq.write_table(table, photos / "x.parquet")
    rows = read(photos / "x.parquet")
    assert labels(rows) == {"a": ("0",), "d": ("3",)}
    assert [row.uri for row in rows][3] == str(photos / "dog" / "002.png")
    assert bad(rows)["c"] == "no image: 'image' is null"
    assert "leads out of" in bad(rows)["b"]
    assert bad(rows)["e"] == "No such file or directory"


# --- stamps


def test_stamps_see_what_sizes_do_not(photos: Path) -> None:
    (photos / "list.txt").write_text("cat/000.png\ncat/000.png\n")
    (photos / "x.csv").write_text("path,id\ncat/000.png,a\n")
    locations = (photos, photos / "list.txt", photos / "x.csv")
    sources = [open_source(str(path), SourceConfig(shard_rows=3)) for path in locations]
    before = [list(source.shards()) for source in sources]
    os.utime(photos / "cat" / "000.png", ns=(0, 1))
    after = [list(source.shards()) for source in sources]
    for old, new in zip(before, after, strict=True):
        assert listing_sha256(old) == listing_sha256(new)
        changed = [a != b for a, b in zip(units_of(old[0]), units_of(new[0]), strict=True)]
        assert changed[0]
        assert not changed[-1] or len(set(old[0].files)) == 1
    (photos / "x.csv").write_text("path,id\ncat/000.png,b\n")
    assert units_of(next(iter(sources[2].shards()))) != units_of(after[2][0])


# --- URIs


def test_a_folder_at_a_uri(photos: Path, bucket: str) -> None:
    remote, local = read(bucket + "/"), read(photos)
    assert [(row.id, row.image, row.labels) for row in remote if isinstance(row, Row)] == [
        (row.id, row.image, row.labels) for row in local if isinstance(row, Row)
    ]
    assert remote[0].uri == f"{bucket}/cat/000.png"
    assert fetch(remote[0].uri) == (photos / "cat" / "000.png").read_bytes()
    assert [row.uri for row in read(photos.as_uri())] == [row.uri for row in local]


def test_lists_and_parquet_at_a_uri(photos: Path, bucket: str) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/bucket/photos/list.txt", b"cat/000.png 4\ngone.png 5\n../x.png 6\n")
    rows = read(f"{bucket}/list.txt")
    assert labels(rows) == {"cat/000.png": ("4",)}
    assert "memory://bucket/photos/gone.png" in bad(rows)["gone.png"] or bad(rows)["gone.png"]
    assert "leads out of" in bad(rows)["../x.png"]
    images = [encode_image(i) for i in range(5)]
    pq.write_table(pa.table({"image": images}), photos / "x.parquet", row_group_size=2)
    memory.pipe("/bucket/shards/a.parquet", (photos / "x.parquet").read_bytes())
    for location in ("memory://bucket/shards", "memory://bucket/shards/a.parquet"):
        rows = read(location)
        assert [row.id for row in rows] == [f"a.parquet#{i}" for i in range(5)]
        assert [fetch(row.uri) for row in rows] == images


def test_a_local_list_of_uris(photos: Path, bucket: str) -> None:
    (photos / "list.txt").write_text(f"{bucket}/cat/000.png\n{bucket}/gone.png\n")
    rows = read(photos / "list.txt", root="memory://bucket")
    assert list(labels(rows)) == [f"{bucket}/cat/000.png"]
    assert list(bad(rows)) == [f"{bucket}/gone.png"]


def test_a_bucket_that_cannot_be_reached_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(uri: str) -> None:
        raise OSError("could not resolve host")

    arrow = SimpleNamespace(FileSystem=SimpleNamespace(from_uri=unreachable))
    monkeypatch.setattr("schn_ray.core.storage.files.fs", arrow)
    with pytest.raises(SchnRayError, match=r"s3://a-bucket .*: could not resolve host$"):
        filesystem_of("s3://a-bucket/photos")


def test_locations_that_cannot_be_opened(photos: Path, bucket: str) -> None:
    for location, message in [
        ("https://example.org/photos", "not fetched from web addresses"),
        ("nosuch://bucket/photos", r"cannot be opened .*pip install"),
        ("memory://bucket/nowhere", "no such file or folder"),
        ("memory://bucket/photos/cat/000.png", "cannot tell what this file is"),
    ]:
        with pytest.raises(SchnRayError, match=message):
            read(location)
    with pytest.raises(SchnRayError, match="has to be local"):
        read(bucket, kind="cifar10")
    with pytest.raises(SchnRayError, match="nothing finished there"):
        read(bucket, kind="store")
    with pytest.raises(SchnRayError, match="not there any more"):
        fetch(f"{bucket}/gone.png")
