"""``prepare`` at work: killed, run again, brought up to date, made smaller, split by others."""

from __future__ import annotations

import json
import os
import pickle
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import makers
from support.image_files import encode_image, write_tree

from schn_ray.core import artefacts
from schn_ray.core.artefacts import Artefact
from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.images import decode
from schn_ray.data.shards.map_shards import T
from schn_ray.data.shards.part_files import PartFiles
from schn_ray.data.shards.receipts import Receipt
from schn_ray.data.shards.rows import Shard
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.splits.protocols import ROLES, split
from schn_ray.data.store import describe as describing
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import Store, open_store

SHARED = Path(__file__).parents[3] / "shared" / "data"
CIFAR = [
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
]


def make(location: Path, out: Path, *extra: Any, update: bool = False, **settings: Any) -> Manifest:
    source = {key: settings.pop(key) for key in [*settings] if key in SourceConfig.model_fields}
    config = PrepareConfig(source=SourceConfig(**source), **settings)
    return prepare_store(
        open_source(str(location), config.source), config, out, *extra, update=update
    )


class Killed(BaseException):
    """What SIGKILL is to a process, for one that has to go on testing."""


def killed_after(shards_done: int, half_written: bool = False) -> Any:
    """Map over some shards, in any order, and stop; perhaps in the middle of a file."""

    def work(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterable[T]:
        order = list(shards)
        random.Random(shards_done).shuffle(order)
        for shard in order[:shards_done]:
            yield function(pickle.loads(pickle.dumps(shard)))
        if half_written:
            out = Path(function.keywords["job"].parts.location)  # type: ignore[attr-defined]
            (out / f"rows-{order[-1].number:05}.arrow.1.partial").write_bytes(b"half")
        raise Killed

    return work


def counted(done: list[int]) -> Any:
    def work(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterable[T]:
        shards = list(shards)
        done.extend(shard.number for shard in shards)
        return map(function, shards)

    return work


def states(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("rows-*.arrow")}


def contents(store: Store) -> list[tuple[Any, ...]]:
    return sorted(
        (store.ids[row].as_py(), store.image(row), tuple(store.labels[[row]].indices))
        for row in range(len(store))
    )


# --- stopped and run again


@pytest.mark.parametrize("shards_done", [0, 1, 5])
def test_killed_and_run_again_is_as_undisturbed(
    image_tree: Path, tmp_path: Path, shards_done: int
) -> None:
    (image_tree / "cat" / "bad.png").write_bytes(b"<html>")
    settings = {"shard_rows": 5, "max_bad_share": 0.1}
    undisturbed = make(image_tree, tmp_path / "a", **settings)
    out = tmp_path / "b"
    with pytest.raises(Killed):
        make(image_tree, out, killed_after(shards_done, half_written=True), **settings)
    with pytest.raises(SchnRayError):
        open_store(out)
    before = states(out)
    done: list[int] = []
    finished = make(image_tree, out, counted(done), **settings)
    assert len(done) == 7 - shards_done
    assert before.items() <= states(out).items()  # nothing that was done is done again
    assert finished.fingerprint == undisturbed.fingerprint
    assert finished.counts == undisturbed.counts
    assert not [path for path in out.rglob("*.partial*")]
    Artefact(out, finished).check()


def test_rows_without_their_receipt_do_not_count(image_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    with pytest.raises(Killed):
        make(image_tree, out, killed_after(3), shard_rows=5)
    (receipt, other, _) = sorted((out / "receipts").iterdir())
    receipt.unlink()
    (out / f"{other.stem}.arrow").unlink()
    done: list[int] = []
    make(image_tree, out, counted(done), shard_rows=5)
    assert len(done) == 5


def test_killed_between_two_files_of_repeated_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = [encode_image(i) for i in range(12)]
    ids = ["a", "b", "c", "a", "e", "f", "b", "h", "i", "c", "k", "l"]
    table = pa.table({"id": ids, "image": images, "label": ["x", "y"] * 6})
    pq.write_table(table, tmp_path / "x.parquet")
    settings = {"shard_rows": 3, "max_bad_share": 0.5, "validation_share": 0}
    undisturbed = make(tmp_path / "x.parquet", tmp_path / "a", **settings)

    write, calls = PartFiles.write, []

    def dies(parts: PartFiles, number: int, *rows: Any) -> Receipt:
        calls.append(number)
        if len(calls) == 4 + 2:  # four parts, and two of them again
            raise Killed
        return write(parts, number, *rows)

    monkeypatch.setattr(PartFiles, "write", dies)
    with pytest.raises(Killed):
        make(tmp_path / "x.parquet", tmp_path / "b", **settings)
    monkeypatch.undo()
    done: list[int] = []
    again = make(tmp_path / "x.parquet", tmp_path / "b", counted(done), **settings)
    assert done == []
    assert (again.fingerprint, again.counts) == (undisturbed.fingerprint, undisturbed.counts)


@pytest.mark.parametrize("layout", [makers.market, makers.nuswide])
def test_a_data_set_that_was_moved_is_the_same(layout: Any, tmp_path: Path) -> None:
    """Each row of Market-1501 names its list by its whole path."""
    settings = {"protocol": "unlabelled", "query_share": 0.4, "train_share": 0.4}
    location, out = layout(tmp_path / "there"), tmp_path / "store"
    make(location, out, **settings)
    with pytest.raises(AlreadyDone):
        make(location.rename(tmp_path / "elsewhere"), out, **settings)


# --- brought up to date


def test_however_many_rows_are_described_at_once(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make(image_tree, tmp_path / "whole", shard_rows=5)
    monkeypatch.setattr(describing, "_AT_ONCE", 4)
    blocks = make(image_tree, tmp_path / "blocks", shard_rows=5)
    assert whole.counts == blocks.counts
    tables = [pq.read_table(tmp_path / name / "split.parquet") for name in ("whole", "blocks")]
    assert tables[0].equals(tables[1])
    ids = open_store(tmp_path / "whole").ids
    assert tables[0]["id"].to_pylist() == ids.take(tables[0]["row"].combine_chunks()).to_pylist()


def test_update_takes_in_what_is_new_changed_and_gone(image_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    make(image_tree, out, shard_rows=10)
    before = states(out)
    with pytest.raises(AlreadyDone):
        make(image_tree, out, shard_rows=10, update=True)
    (image_tree / "cat" / "new.png").write_bytes(encode_image(100))
    (image_tree / "dog" / "003.png").write_bytes(encode_image(101, (20, 20)))
    (image_tree / "dog" / "004.png").unlink()
    read: list[str] = []

    def noting(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterable[T]:
        shards = list(shards)
        read.extend(name for shard in shards for name in shard.files)
        return map(function, shards)

    counts = make(image_tree, out, noting, shard_rows=10, update=True).counts
    assert sorted(read) == ["cat/new.png", "dog/003.png"]
    assert (counts["new"], counts["changed"], counts["gone"]) == (1, 1, 1)
    after = states(out)
    assert {name for name in before if after[name] == before[name]} == {
        "rows-00000.arrow",
        "rows-00002.arrow",
    }
    make(image_tree, tmp_path / "fresh", shard_rows=10)
    assert contents(open_store(out)) == contents(open_store(tmp_path / "fresh"))


def test_an_update_after_an_update_takes_out_the_right_rows(
    image_tree: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    make(image_tree, out, shard_rows=10)
    for name in ("dog/003.png", "dog/000.png"):
        (image_tree / name).unlink()
        make(image_tree, out, shard_rows=10, update=True)
    make(image_tree, tmp_path / "fresh", shard_rows=10)
    assert contents(open_store(out)) == contents(open_store(tmp_path / "fresh"))


def test_a_store_of_another_format_is_not_updated(image_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    make(image_tree, out, shard_rows=10)
    before = states(out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(manifest | {"format": 1}))
    (image_tree / "cat" / "new.png").write_bytes(encode_image(100))
    with pytest.raises(SchnRayError, match=r"has format 1 .*make the store again"):
        make(image_tree, out, shard_rows=10, update=True)
    assert states(out) == before


def test_another_label_in_a_list_is_a_change(tmp_path: Path) -> None:
    photos = write_tree(tmp_path / "photos", {"x": 8})
    lines = [f"x/{i:03}.png {i % 2}" for i in range(8)]
    (photos / "list.txt").write_text("\n".join(lines))
    settings = {"validation_share": 0, "query_share": 0.25}
    make(photos / "list.txt", tmp_path / "store", **settings)
    (photos / "list.txt").write_text("\n".join([*lines[:7], "x/007.png 0"]))
    counts = make(photos / "list.txt", tmp_path / "store", update=True, **settings).counts
    assert counts["changed"] == 1
    assert open_store(tmp_path / "store").labels.toarray()[:, 0].tolist() == [
        1,
        0,
        1,
        0,
        1,
        0,
        1,
        1,
    ]


def test_an_update_that_is_killed_goes_on(image_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    make(image_tree, out, shard_rows=5)
    for i in range(12):
        (image_tree / "owl" / f"new{i:02}.png").write_bytes(encode_image(200 + i))
    with pytest.raises(Killed):
        make(image_tree, out, killed_after(1), shard_rows=5, update=True)
    with pytest.raises(SchnRayError, match="is unfinished"):
        open_store(out)
    make(image_tree, out, shard_rows=5, update=True)
    make(image_tree, tmp_path / "fresh", shard_rows=5)
    assert contents(open_store(out)) == contents(open_store(tmp_path / "fresh"))


# --- made smaller


def test_large_images_are_stored_smaller(tmp_path: Path) -> None:
    sizes = {
        "large.png": (60, 30),
        "tall.jpg": (10, 50),
        "small.png": (20, 10),
        "edge.png": (24, 3),
    }
    for number, (name, size) in enumerate(sizes.items()):
        for label in ("a", "b"):
            path = tmp_path / "photos" / label / name
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = "PNG" if name.endswith("png") else "JPEG"
            path.write_bytes(encode_image(number + 10 * (label == "b"), size, kind))
    manifest = make(tmp_path / "photos", tmp_path / "store", largest_side=24, quality=80)
    assert (manifest.config["largest_side"], manifest.config["quality"]) == (24, 80)
    store = open_store(tmp_path / "store")
    scale = store._table["scale"].to_pylist()
    for row in range(len(store)):
        original = Path(store.uri(row)).read_bytes()
        size = decode(store.image(row), 10_000).size
        name = Path(store.uri(row)).name
        wanted = {"large.png": (24, 12), "tall.jpg": (5, 24)}.get(name, sizes[name])
        assert size == wanted
        assert scale[row] == pytest.approx(max(wanted) / max(sizes[name]))
        assert (store.image(row) == original) == (scale[row] == 1)
        assert fetch(store.uri(row)) == original


def test_a_smaller_image_looks_like_the_large_one(tmp_path: Path) -> None:
    from PIL import Image

    from schn_ray.data.images import downsized

    across = np.linspace(0, 255, 400).astype(np.uint8)
    pixels = np.stack([np.tile(across, (300, 1))] * 3, axis=2)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    data, factor = downsized((tmp_path / "x.png").read_bytes(), 10**6, 100, 95)
    small = np.asarray(decode(data, 10**6)).astype(int)
    assert (small.shape, factor) == ((75, 100, 3), 0.25)
    expected = pixels.reshape(75, 4, 100, 4, 3).mean(axis=(1, 3))
    assert np.abs(small - expected).max() < 6


# --- split by others


def given_split(store: Store, kind: str, path: Path) -> Path:
    ids = {role: [store.ids[int(r)].as_py() for r in store.rows(role)] for role in ROLES}
    if kind == "json":
        path.write_text(json.dumps(ids))
    elif kind == "csv":
        lines = [f"{role},{row_id}" for role, names in ids.items() for row_id in names]
        path.write_text("role,id\n" + "\n".join(lines))
    else:
        return store.path / "split.parquet"
    return path


@pytest.mark.parametrize("kind", ["parquet", "json", "csv"])
def test_a_split_of_somebody_else(image_tree: Path, tmp_path: Path, kind: str) -> None:
    make(image_tree, tmp_path / "theirs", seed=9)
    theirs = open_store(tmp_path / "theirs")
    file = given_split(theirs, kind, tmp_path / f"split.{kind}")
    manifest = make(image_tree, tmp_path / "ours", shard_rows=4, split_from=str(file))
    ours = open_store(tmp_path / "ours")
    assert all(np.array_equal(ours.rows(role), theirs.rows(role)) for role in ROLES)
    assert manifest.config["protocol"] == "given"
    if kind == "parquet":
        pq.write_table(pq.read_table(file), file, compression="none")
    else:
        file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(SchnRayError, match=r"made_from\.split"):
        make(image_tree, tmp_path / "ours", shard_rows=4, split_from=str(file))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("role,id\nquery,cat/000.png\nquery,nowhere.png", r"1 of 2 query ids .* 'nowhere\.png'"),
        ("role,id\nqueery,cat/000.png", "no role 'queery'; did you mean 'query'"),
        ("role;id\nquery;cat/000.png", "wanted columns role and id"),
        ("role,id\nquery,cat/000.png\n,dog/000.png", "line 3 has no role"),
        ("role,id\nquery,cat/000.png\ngallery,dog/000.png", "has no train rows"),
    ],
)
def test_splits_that_do_not_fit(image_tree: Path, tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "split.csv").write_text(text)
    with pytest.raises(SchnRayError, match=wanted):
        make(image_tree, tmp_path / "store", split_from=str(tmp_path / "split.csv"))
    with pytest.raises(SchnRayError, match="no such file"):
        make(image_tree, tmp_path / "store", split_from=str(tmp_path / "gone.csv"))


def test_a_split_that_cannot_be_drawn_leaves_rows_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = write_tree(tmp_path / "photos", {"cat": 30, "dog": 2})
    out = tmp_path / "store"
    with pytest.raises(
        SchnRayError, match=r"dog.* has 2.*\n.*another --protocol.* goes on"
    ) as error:
        make(tree, out)
    assert str(out) in str(error.value)
    monkeypatch.setattr("schn_ray.data.store.store_rows.decode", None)  # nothing is read again
    assert make(tree, out, protocol="unlabelled").counts["rows"] == 32


def test_a_file_of_a_split_is_looked_at_first_and_can_be_corrected(
    image_tree: Path, tmp_path: Path
) -> None:
    file, out = tmp_path / "split.csv", tmp_path / "store"
    file.write_text("role,id\nqury,cat/000.png\n")
    with pytest.raises(SchnRayError, match="did you mean 'query'"):
        make(image_tree, out, split_from=str(file))
    assert not out.exists()
    file.write_text("role,id\nquery,cat/000.png\ntrain,dog/000.png\ngallery,nobody\n")
    with pytest.raises(SchnRayError, match=r"not in this source(.|\n)*goes on"):
        make(image_tree, out, split_from=str(file))
    file.write_text("role,id\nquery,cat/000.png\ntrain,dog/000.png\ngallery,owl/000.png\n")
    assert make(image_tree, out, split_from=str(file)).counts["gallery"] == 1


def test_a_given_split_has_to_be_the_protocols(image_tree: Path, tmp_path: Path) -> None:
    make(image_tree, tmp_path / "theirs")
    file = tmp_path / "theirs" / "split.parquet"
    with pytest.raises(SchnRayError, match="cifar10-full wants 10 classes, got 3"):
        make(image_tree, tmp_path / "ours", split_from=str(file), protocol="cifar10-full")


# --- verified


@pytest.mark.parametrize("time_kept", [True, False])
def test_a_flipped_bit_is_found_by_whoever_reads_the_store(
    time_kept: bool, image_tree: Path, tmp_path: Path
) -> None:
    """Also where the file's time is that of before, in a process that has not seen it yet."""
    make(image_tree, tmp_path / "store")
    rows = tmp_path / "store" / "rows-00000.arrow"
    before, data = rows.stat(), bytearray(rows.read_bytes())
    data[bytes(data).index(encode_image(5)[20:60])] ^= 4
    rows.write_bytes(data)
    if time_kept:
        os.utime(rows, ns=(before.st_atime_ns, before.st_mtime_ns))
    source = open_source(str(tmp_path / "store"), SourceConfig())
    readers: list[Callable[[], object]] = [
        lambda: open_store(tmp_path / "store"),
        lambda: list(source.read(next(iter(source.shards())))),
        lambda: fetch(f"{tmp_path / 'store'}#0"),
    ]
    for read in readers:
        with pytest.raises(SchnRayError, match=r"rows-00000\.arrow differs from its manifest"):
            read()


def test_hashes_are_read_once_for_each_state_of_the_files(
    image_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(image_tree, tmp_path / "store")
    read: list[Path] = []
    sha256_file = artefacts.sha256_file
    monkeypatch.setattr(artefacts, "sha256_file", lambda p: read.append(p) or sha256_file(p))
    files = {tmp_path / "store" / name for name in read_manifest(tmp_path / "store", "store").files}
    for _ in range(2):
        open_store(tmp_path / "store")
    assert set(read) == files
    assert len(read) == len(files)
    os.utime(tmp_path / "store" / "rows-00000.arrow", ns=(0, 1))
    open_store(tmp_path / "store")
    assert read[len(files) :] == [tmp_path / "store" / "rows-00000.arrow"]


def test_market_has_cameras_junk_and_distractors(tmp_path: Path) -> None:
    counts = make(makers.market(tmp_path / "m"), tmp_path / "s", protocol="listed").counts
    store = open_store(tmp_path / "s")
    named = {role: [store.ids[int(r)].as_py() for r in store.rows(role)] for role in store.split}
    assert [name.split("/")[1][:4] for name in named["gallery"]] == ["0001"]
    assert [name.split("/")[1][:2] for name in named["junk"]] == ["-1"]
    assert counts["junk"] == 1
    assert store.cameras.tolist() == [1, 3, 1, 1, 6, 2]
    again = open_source(str(tmp_path / "s"), SourceConfig())
    rows = [row for shard in again.shards() for row in again.read(shard)]
    assert [row.camera for row in rows] == store.cameras.tolist()  # type: ignore[union-attr]
    assert [row.split for row in rows][3] == "junk"  # type: ignore[union-attr]


def write_forms(root: Path, each: int) -> dict[str, Path]:
    """The same images as pickles, folder, list and Parquet; PNGs, as pickles become."""
    pickles = root / "pickles" / "cifar-10-batches-py"
    pickles.mkdir(parents=True)
    (pickles / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR}))
    rng = np.random.default_rng(7)
    for number in range(6):
        name = f"data_batch_{number + 1}" if number < 5 else "test_batch"
        pixels = rng.integers(0, 256, (each, 3072), np.uint8)
        batch = {"data": pixels, "labels": [int(c) for c in rng.integers(0, 10, each)]}
        (pickles / name).write_bytes(pickle.dumps(batch))
    source = open_source(str(pickles), SourceConfig())
    rows = [row for shard in source.shards() for row in source.read(shard)]
    lines, columns = [], {"id": [], "image": [], "label": [], "split": []}
    for row in rows:
        (label,) = row.labels  # type: ignore[union-attr]
        path = f"{label}/{row.id}.png"
        makers.write(root / "folder", {path: row.image})  # type: ignore[union-attr]
        lines.append(f"folder/{path} {CIFAR.index(label)} ")
        values = (row.id, row.image, CIFAR.index(label), row.split)  # type: ignore[union-attr]
        for column, value in zip(columns.values(), values, strict=True):
            column.append(value)
    makers.write(root, {"list.txt": "\n".join(lines), "names": "\n".join(CIFAR)})
    pq.write_table(pa.table(columns), root / "x.parquet")
    return {
        "pickles": pickles,
        "folder": root / "folder",
        "list": root / "list.txt",
        "parquet": root / "x.parquet",
    }


def test_cifar10_in_four_forms_is_the_same_store(tmp_path: Path) -> None:
    forms, stores = write_forms(tmp_path, 40), {}
    for name, location in forms.items():
        numbered = {"class_names": str(tmp_path / "names")} if name in ("list", "parquet") else {}
        make(location, tmp_path / f"store-{name}", shard_rows=70, **numbered)
        stores[name] = open_store(tmp_path / f"store-{name}")
    one = stores["pickles"]
    for name, other in stores.items():
        assert other.classes == one.classes
        ids = [Path(row_id).stem for row_id in other.ids.to_pylist()]
        order = np.argsort(ids) if name == "folder" else np.arange(len(ids))  # folders go by class
        rank = np.argsort(one.ids.to_pylist()) if name == "folder" else order
        assert [ids[i] for i in order] == [one.ids[int(i)].as_py() for i in rank]
        np.testing.assert_array_equal(other.labels[order].toarray(), one.labels[rank].toarray())
        assert (other.sha256(order) == one.sha256(rank)).all()
        assert [other.image(int(i)) for i in order] == [one.image(int(i)) for i in rank]
        if name != "folder":  # the draw goes by the order of the rows
            assert all(np.array_equal(other.rows(role), one.rows(role)) for role in ROLES)


@pytest.mark.skipif(not (SHARED / "mirflickr_labels.txt").is_file(), reason="no shared data")
def test_the_real_label_rows_of_mirflickr(tmp_path: Path) -> None:
    rows = np.loadtxt(SHARED / "mirflickr_labels.txt", np.uint8)
    assert rows.shape == (23_300, 38)
    # a byte of a GIF's palette numbers the images, which makes 23,300 of them in a second
    root = tmp_path / "m"
    (root / "mirflickr").mkdir(parents=True)
    gif = encode_image(0, (1, 1), "GIF")
    for number in range(1, len(rows) + 1):
        image = gif[:-1] + b"!\xfe\x04" + number.to_bytes(4, "big") + b"\0;"
        (root / "mirflickr" / f"im{number}.jpg").write_bytes(image)
    folder = root / "mirflickr25k_annotations_v080"
    folder.mkdir()
    for concept in range(38):
        numbers = np.flatnonzero(rows[:, concept]) + 1
        (folder / f"c{concept}.txt").write_text("\n".join(map(str, numbers)))
    counts = make(root, tmp_path / "s", protocol="mirflickr", validation_share=0).counts
    unlabelled = int((rows.sum(axis=1) == 0).sum())
    wanted = {
        "rows": 23_300,
        "classes": 38,
        "label_sets": 4_271,
        "unlabelled": unlabelled,
        "query": 1_000,
        "train": 5_000,
        "gallery": 23_300 - unlabelled - 1_000,
        "repeated_images": 0,
        "audit": "nothing found",
    }
    assert {name: counts[name] for name in wanted} == wanted
    store = open_store(tmp_path / "s")
    order = [int(name[1:]) for name in store.classes]
    np.testing.assert_array_equal(store.labels.toarray(), rows[:, order])
    config = PrepareConfig(protocol="mirflickr", keep_unlabelled=True)
    nothing_said = pa.chunked_array([pa.nulls(len(store), pa.string())])
    kept = split(store.labels, store.classes, nothing_said, config)
    assert len(kept["gallery"]) == 22_300
