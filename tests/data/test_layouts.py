"""Published data sets: each is recognised, read correctly, and refused when it is broken."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from support import makers
from support.makers import jpeg, tar, write

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import SourceConfig
from schn_ray.data.images import decode
from schn_ray.data.shards.rows import BadRow, Row
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.sources.kinds import open_source

Described = tuple[tuple[str, ...], str | None, int]  # labels, split, camera


def read(location: Path | str, **settings: Any) -> list[Row | BadRow]:
    """Read every shard, after the trip through pickle that a worker would give it."""
    source = open_source(str(location), SourceConfig(**{"shard_rows": 2} | settings))
    all_rows: list[Row | BadRow] = []
    for shard in source.shards():
        source_copy, shard_copy = pickle.loads(pickle.dumps((source, shard)))
        rows = list(source_copy.read(shard_copy))
        assert len(rows) == shard.rows
        all_rows += rows
    assert all(fetch(row.uri) == row.image for row in all_rows if isinstance(row, Row))
    return all_rows


def good(rows: list[Row | BadRow]) -> dict[str, Described]:
    assert all(isinstance(row, Row) for row in rows), [r for r in rows if isinstance(r, BadRow)]
    for row in rows:
        decode(row.image, 10_000)  # type: ignore[union-attr]
    return {r.id: (r.labels, r.split, r.camera) for r in rows if isinstance(r, Row)}


def bad(rows: list[Row | BadRow]) -> dict[str, tuple[str, str]]:
    return {row.id: (row.uri, row.reason) for row in rows if isinstance(row, BadRow)}


def refusal(location: Path, **settings: Any) -> str:
    with pytest.raises(SchnRayError) as caught:
        read(location, **settings)
    return str(caught.value)


KNOWN: list[tuple[str, Callable[[Path], Path], dict[str, Described]]] = [
    (
        "nuswide",
        makers.nuswide,
        {
            "actor/0001_2124494179.jpg": ((), None, -1),
            "zoo/0002_12.jpg": (("animal",), None, -1),
            "zoo/0003_99.jpg": (("animal", "zebra"), None, -1),
        },
    ),
    (
        "mirflickr",
        makers.mirflickr,
        {f"im{i}.jpg": ((), None, -1) for i in range(1, 13)}
        | {
            "im1.jpg": (("sea",), None, -1),
            "im2.jpg": (("sea",), None, -1),
            "im12.jpg": (("sea", "sea_r1"), None, -1),
        },
    ),
    (
        "coco",
        makers.coco,
        {
            "000000000009.jpg": (("toothbrush", "person"), "train", -1),
            "000000000025.jpg": ((), "train", -1),
            "000000000139.jpg": (("toothbrush",), "test", -1),
        },
    ),
    (
        "voc",
        makers.voc,
        {
            "2008_000002": (("cat", "dog"), "train", -1),
            "2008_000003": (("dog",), "train", -1),
            "2009_000001": ((), "test", -1),
        },
    ),
    (
        "market1501",
        makers.market,
        {
            "bounding_box_train/0002_c1s1_000451_03.jpg": (("0002",), "train", 1),
            "bounding_box_train/0007_c3s3_077419_03.jpg": (("0007",), "train", 3),
            "query/0001_c1s1_001051_00.jpg": (("0001",), "test", 1),
            "bounding_box_test/-1_c1s1_000401_03.jpg": ((), "junk", 1),
            "bounding_box_test/0000_c6s3_000001_01.jpg": ((), "database", 6),
            "bounding_box_test/0001_c2s1_000301_00.jpg": (("0001",), "database", 2),
        },
    ),
    (
        "veri776",
        makers.veri,
        {
            "image_train/0001_c001_00016450_0.jpg": (("0001",), "train", 1),
            "image_query/0002_c002_00030600_0.jpg": (("0002",), "test", 2),
            "image_test/0002_c019_00030605_1.jpg": (("0002",), "database", 19),
        },
    ),
    (
        "lists",
        makers.hashnet,
        {
            "images/a.jpg": (("0", "2"), "database train", -1),
            "images/e.jpg": (("1",), "test", -1),
            "images/b.jpg": (("2",), "database", -1),
            "images/c d.jpg": ((), "database", -1),
        },
    ),
    (
        "paired",
        makers.paired,
        {
            "images/a.jpg": (("0",), "database", -1),
            "images/b.jpg": (("0", "1"), "database", -1),
            "images/c.jpg": (("1",), "test", -1),
        },
    ),
    (
        "metadata",
        makers.metadata,
        {
            "train/0001.jpg": (("3",), "train", -1),
            "train/deep/0002.jpg": (("x",), "train", -1),
            "test/0001.jpg": ((), "test", -1),
        },
    ),
    (
        "webdataset",
        makers.webdataset,
        {
            "train-0000.tar/a/0": (("7",), "train", -1),
            "train-0000.tar/b": (("cat",), "train", -1),
            "test-0000.tar/c": ((), "test", -1),
        },
    ),
    (
        "cifar100",
        makers.cifar100,
        {
            f"{split}-{i:05}": ((f"fine{99 - i}",), split, -1)
            for split in ("train", "test")
            for i in range(3)
        },
    ),
]


@pytest.mark.parametrize(("kind", "make", "expected"), KNOWN, ids=[kind for kind, *_ in KNOWN])
def test_a_layout_is_known_and_read(
    kind: str, make: Callable[[Path], Path], expected: dict[str, Described], tmp_path: Path
) -> None:
    root = make(tmp_path)
    assert open_source(str(root), SourceConfig()).kind == kind
    rows = read(root)
    assert good(rows) == expected
    assert len({row.image for row in rows if isinstance(row, Row)}) == len(
        {row.image for row in read(root, kind=kind) if isinstance(row, Row)}
    )


def test_images_are_those_of_their_names(tmp_path: Path) -> None:
    rows = {row.id: row for row in read(makers.mirflickr(tmp_path))}
    assert list(rows)[1] == "im2.jpg"  # by number, not im1, im10, im11
    assert rows["im12.jpg"].image == jpeg(11)  # type: ignore[union-attr]
    rows = {row.id: row for row in read(makers.webdataset(tmp_path / "tars"))}
    assert rows["train-0000.tar/b"].image == jpeg(1)  # type: ignore[union-attr]


def test_layouts_at_a_uri(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    for make in (makers.mirflickr, makers.market, makers.webdataset, makers.hashnet):
        root = make(tmp_path / make.__name__)
        memory.put(str(root), f"/layouts/{make.__name__}", recursive=True)
        local, remote = read(root), read(f"memory://layouts/{make.__name__}")
        assert good(local) == good(remote)
        assert [row.image for row in local] == [row.image for row in remote]  # type: ignore[union-attr]
    memory.rm("/layouts", recursive=True)


def test_two_layouts_in_one_folder_have_to_be_told_apart(tmp_path: Path) -> None:
    makers.hashnet(tmp_path)
    makers.market(tmp_path)
    assert "looks like market1501 and like lists; choose one with --set source.kind" in refusal(
        tmp_path
    )
    assert len(read(tmp_path, kind="lists")) == 4


# --- what is broken is named, with file, line and reason


def test_broken_nuswide(tmp_path: Path) -> None:
    root = makers.nuswide(tmp_path)
    labels = root / "Groundtruth" / "AllLabels" / "Labels_animal.txt"
    labels.write_text("0\n1\n")
    assert f"{labels}:2: 2 lines, where the list of images has 3" in refusal(root)
    labels.write_text("0\n2\n1\n")
    assert f"{labels}:2: expected 0 or 1, got '2'" in refusal(root)
    labels.write_text("0\n1\n1\n")
    (root / "ImageList" / "Imagelist.txt").write_text("actor\\gone.jpg\n\nzoo\\0003_99.jpg\n")
    bad_rows = bad(read(root))
    assert bad_rows["actor/gone.jpg"][1] == "line 1: No such file or directory"
    assert bad_rows[""] == (f"{root}/ImageList/Imagelist.txt:2", "line 2: an empty line")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0", "there is no im0.jpg; numbers start at 1 and end at 12"),
        ("13", "there is no im13.jpg"),
        ("1.5", "expected the number of an image, got '1.5'"),
        ("9" * 5000, "expected the number of an image"),
        ("²", "expected the number of an image"),
    ],
)
def test_broken_mirflickr(tmp_path: Path, line: str, reason: str) -> None:
    root = makers.mirflickr(tmp_path)
    file = root / "mirflickr25k_annotations_v080" / "sea.txt"
    file.write_text(f"1\n{line}\n")
    assert f"{file}:2: {reason}" in refusal(root)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"annotations": [{"image_id": 9, "category_id": 2}]}, "category_id 2, which is not"),
        ({"annotations": [{"image_id": 7, "category_id": 1}]}, "annotations[0] has image_id 7"),
        ({"annotations": [{"image_id": 9}]}, "not COCO's layout: no field 'category_id'"),
        ({"images": 5}, "not COCO's layout"),
        ({"categories": [[]]}, "not COCO's layout"),
    ],
)
def test_broken_coco(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    message = refusal(makers.coco(tmp_path, **changes))
    assert reason in message
    assert f"{tmp_path}/annotations/instances_train2017.json" in message


def test_coco_that_is_not_json(tmp_path: Path) -> None:
    file = makers.coco(tmp_path) / "annotations" / "instances_val2017.json"
    file.write_text('{"images":\n [,')
    assert f"{file}:2: not JSON" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [("2008_000002 2", "expected 'image 1', 0 or -1"), ("2010_1 1", "2010_1 is in neither train")],
)
def test_broken_voc(tmp_path: Path, line: str, reason: str) -> None:
    root = makers.voc(tmp_path)
    file = root / "VOCdevkit/VOC2012/ImageSets/Main/cat_trainval.txt"
    file.write_text(f"2008_000003 -1\n{line}\n")
    assert f"{file}:2: {reason}" in refusal(root)


def test_broken_names_of_identities(tmp_path: Path) -> None:
    root = makers.market(tmp_path)
    (root / "query" / "person1.jpg").write_bytes(jpeg(5))
    bad_rows = bad(read(root))
    assert list(bad_rows) == ["query/person1.jpg"]
    uri, reason = bad_rows["query/person1.jpg"]
    assert uri.startswith(f"{root}/query/person1.jpg")
    assert "the name 'person1.jpg' is not of this data set" in reason
    (root / "bounding_box_train").rename(root / "train")
    assert "no folder bounding_box_train" in refusal(root)


def test_broken_lists(tmp_path: Path) -> None:
    root = makers.hashnet(tmp_path)
    (root / "train.txt").write_text("images/a.jpg 1 0 0\n")
    (root / "test.txt").write_text("images/e.jpg 0 1 0\nimages/e.jpg 0 1 0\nimages/b.jpg 0 1\n")
    bad_rows = bad(read(root))
    assert bad_rows["images/a.jpg"][0] == f"{root}/database.txt:2"
    assert bad_rows["images/a.jpg"][1] == "line 2: other labels than in train.txt line 1"
    assert bad_rows["images/b.jpg"][0] == f"{root}/test.txt:3"
    assert bad_rows["images/b.jpg"][1] == "line 3: 3 fields, where the first line has 4"


def test_broken_pairs(tmp_path: Path) -> None:
    root = makers.paired(tmp_path)
    labels = root / "database_label_onehot.txt"
    labels.write_text("1 0\n")
    assert f"{labels}:1: 1 lines of labels, but {root}/database_img.txt has 2" in refusal(root)
    labels.write_text("1 0\n1 2\n")
    uri, reason = bad(read(root))["images/b.jpg"]
    assert (uri, reason) == (f"{labels}:2", "line 2: labels other than 0 and 1")
    (root / "test_label.txt").unlink()
    assert "test_img.txt: no labels beside it" in refusal(root)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "line 1: not JSON"),
        ("[1]", "line 1: expected an object, got list"),
        ('{"label": 1}', "line 1: no 'file_name'"),
        ('{"file_name": "0001.jpg", "label": 0.5}', "line 1: the label 0.5 is neither text"),
        ('{"file_name": "0001.jpg", "label": true}', "line 1: the label true is neither text"),
        ('{"file_name": "gone.jpg"}', "line 1: No such file"),
        ('{"file_name": "../../x.jpg"}', "leads out of"),
        ("[" * 100_000, "line 1: not JSON"),
    ],
)
def test_broken_metadata(tmp_path: Path, line: str, reason: str) -> None:
    root = makers.metadata(tmp_path)
    (root / "train" / "metadata.jsonl").write_text(line + "\n")
    ((uri, message),) = bad(read(root)).values()
    assert reason in message
    assert uri == f"{root}/train/metadata.jsonl:1"


def test_broken_tars(tmp_path: Path) -> None:
    path = tar(
        tmp_path / "x.tar",
        {
            "a.cls": b"1",
            "b.jpg": jpeg(1),
            "b.json": b"{",
            "c.jpg": jpeg(2),
            "c.json": b'{"label": {}}',
            "d.jpg": jpeg(3),
            "d.cls": b"\xff",
            "e.jpg": jpeg(4),
        },
    )
    rows = read(path)
    reasons = {name: reason for name, (_, reason) in bad(rows).items()}
    assert reasons["x.tar/a"] == "no image in this sample, only: .cls"
    assert "its .json is not JSON" in reasons["x.tar/b"]
    assert "neither text nor a whole number" in reasons["x.tar/c"]
    assert "x.tar/d" in reasons
    assert [row.id for row in rows if isinstance(row, Row)] == ["x.tar/e"]
    whole = path.read_bytes()
    for length in (512 * 5 + 100, 512 * 2, 512 * 3, len(whole) // 2):
        path.write_bytes(whole[:length])
        assert "x.tar cannot be read as a tar" in refusal(path)
    (tmp_path / "z.tar").write_bytes(b"\x1f\x8b" + whole)
    assert "cannot be read as a tar" in refusal(tmp_path / "z.tar")


def test_coarse_labels_and_damage_of_cifar100(tmp_path: Path) -> None:
    folder = makers.cifar100(tmp_path)
    rows = good(read(tmp_path, label_column="coarse_label"))
    assert rows["train-00002"] == (("coarse2",), "train", -1)
    (folder / "train").write_bytes(pickle.dumps({"data": np.zeros((1, 3072), np.uint8)}))
    assert f"{folder}/train: expected 'fine_labels', a list of 1 numbers" in refusal(folder)


# --- Arrow


@pytest.mark.parametrize("stream", [False, True])
def test_arrow_files_and_streams(tmp_path: Path, stream: bool) -> None:
    images = [jpeg(i) for i in range(5)]
    image = [{"bytes": data, "path": None} for data in images]
    table = pa.table({"image": image, "label": [3, 1, 2, 0, 0], "id": list("abcde")})
    path = tmp_path / "data-00000-of-00001.arrow"
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    assert open_source(str(tmp_path), SourceConfig()).kind == "arrow"
    for location in (path, tmp_path):
        rows = read(location, shard_rows=3)
        assert [row.image for row in rows if isinstance(row, Row)] == images
        assert list(good(rows)) == list("abcde")
        assert good(rows)["b"] == (("1",), None, -1)
    assert "no column 'picture'" in refusal(path, image_column="picture")
    path.write_bytes(path.read_bytes()[:100])
    assert "cannot be read as Arrow" in refusal(path)


# --- names for numbers


def test_names_for_numbers(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": jpeg(0), "b.jpg": jpeg(1), "x.txt": "a.jpg 1\nb.jpg 2\n"})
    write(tmp_path, {"names": "cat\ndog\n"})
    rows = read(tmp_path / "x.txt", class_names=str(tmp_path / "names"))
    assert [row.labels for row in rows if isinstance(row, Row)] == [("dog",)]
    assert f"label '2' has no name: {tmp_path}/names names 0 to 1" in bad(rows)["b.jpg"][1]
    write(tmp_path, {"names": "cat\ncat\n"})
    message = refusal(tmp_path / "x.txt", class_names=str(tmp_path / "names"))
    assert "names:2: 'cat' is repeated" in message


def test_rows_know_their_list(tmp_path: Path) -> None:
    shards = list(open_source(str(makers.hashnet(tmp_path)), SourceConfig()).shards())
    lists = {entry.list for shard in shards for entry in shard.entries}
    assert lists == {f"{tmp_path}/{name}.txt" for name in ("train", "test", "database")}
    assert json.dumps([entry.line for shard in shards for entry in shard.entries])
