"""Encoding in one process: what is written, and what a second call does."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.image_files import encode_image, write_tree
from support.models import write_model

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.bits import unpack
from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError, TooManyBadRows
from schn_ray.core.manifest import read_manifest
from schn_ray.data.config import SourceConfig
from schn_ray.data.images import evaluation_view
from schn_ray.data.shards import image_views
from schn_ray.data.shards.map_shards import map_locally
from schn_ray.data.shards.rows import Shard
from schn_ray.data.sources.kinds import open_source
from schn_ray.models.load import load
from schn_ray.retrieval.code_files import code_features
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source

BITS = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model", BITS)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Every image that is decoded for the network, as long as the test runs."""
    seen: list[bytes] = []

    def view(data: bytes, preprocessing: Any) -> Any:
        seen.append(data)
        return evaluation_view(data, preprocessing)

    monkeypatch.setattr(image_views, "evaluation_view", view)
    return seen


def code(
    location: Path, model: Path, out: Path, map_shards: Any = map_locally, **options: Any
) -> dict[str, Any]:
    """Encode in shards of 7 rows; settings of the source and of the verb may be mixed."""
    modes = {name: options.pop(name) for name in ("update", "retry_failed") if name in options}
    of_source = {n: options.pop(n) for n in [*options] if n in SourceConfig.model_fields}
    source = SourceConfig(**{"shard_rows": 7, "max_bad_share": 0.5} | of_source)
    config = EncodeConfig(source=source, **options)
    return encode_source(
        open_source(str(location), source), model, out, config, map_shards, **modes
    ).counts


def rows(out: Path) -> dict[str, tuple[bytes, bytes]]:
    """id -> (code, sha256); an id must not come twice."""
    tables = [pq.read_table(part).to_pylist() for part in sorted(out.glob("data/part-*.parquet"))]
    found = [(row["id"], (row["code"], row["sha256"])) for table in tables for row in table]
    assert len(dict(found)) == len(found)
    return dict(found)


def quarantine(out: Path) -> dict[str, tuple[str, str]]:
    table = pq.read_table(out / "quarantine.parquet").to_pylist()
    return {row["id"]: (row["stage"], row["reason"]) for row in table}


def parts(out: Path) -> dict[str, bytes]:
    """Name of each part -> its bytes and its receipt's."""
    return {
        path.name: path.read_bytes() + (out / "receipts" / f"{path.stem}.receipt").read_bytes()
        for path in out.glob("data/part-*.parquet")
    }


def change(path: Path, data: bytes) -> None:
    """Write a file so that its time of change is another one, however coarse the clock."""
    path.write_bytes(data)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1_000_000_000))


# --- what is written


def test_a_part_a_shard_with_codes_hashes_and_addresses(
    image_tree: Path, model: Path, tmp_path: Path
) -> None:
    counts = code(image_tree, model, tmp_path / "codes")
    assert counts == {"rows": 30, "encoded": 30, "quarantined": 0}
    assert len(parts(tmp_path / "codes")) == 5
    files = sorted(image_tree.rglob("*.png"))
    expected = load(model).encode(files)
    table = pa.concat_tables(
        pq.read_table(p) for p in sorted((tmp_path / "codes").glob("data/part-*.parquet"))
    )
    assert table.schema.field("code").type == pa.binary(2)
    assert table["id"].to_pylist() == [file.relative_to(image_tree).as_posix() for file in files]
    assert table["uri"].to_pylist() == list(map(str, files))
    assert table["code"].to_pylist() == [code.tobytes() for code in expected]
    assert table["sha256"].to_pylist() == [hashlib.sha256(f.read_bytes()).digest() for f in files]
    assert len(set(table["code"].to_pylist())) > 5
    open_artefact(tmp_path / "codes", "codes").check()


def test_relaxed_codes_on_request(image_tree: Path, model: Path, tmp_path: Path) -> None:
    code(image_tree, model, tmp_path / "codes", relaxed=True)
    table = pq.read_table(tmp_path / "codes" / "data" / "part-00002.parquet")
    assert table.schema.field("relaxed").type == pa.list_(pa.float16(), BITS)
    relaxed = np.array(table["relaxed"].to_pylist(), np.float32)
    packed = np.frombuffer(b"".join(table["code"].to_pylist()), np.uint8).reshape(-1, 2)
    np.testing.assert_array_equal(np.where(relaxed < 0, -1, 1), unpack(packed, BITS))
    assert (np.abs(relaxed) < 1).any()


def test_features_on_request(image_tree: Path, model: Path, tmp_path: Path) -> None:
    def check(rows: int) -> None:
        folder = sorted((tmp_path / "codes").glob("data/part-*.parquet"))
        table = pa.concat_tables([pq.read_table(part) for part in folder])
        F, _ = load(model).outputs_of(table["uri"].to_pylist())
        stored = code_features(table)
        assert (stored.dtype, stored.shape) == (np.int8, (rows, F.shape[1]))
        # a batch of another size may round the last digit to the other side
        largest = np.abs(F).max(axis=1, keepdims=True)
        np.testing.assert_allclose(stored, F / largest * 127, atol=0.51)

    code(image_tree, model, tmp_path / "codes", features=True)
    check(30)
    disturb(image_tree)
    code(image_tree, model, tmp_path / "codes", features=True, update=True)
    check(31)
    assert "features" in read_manifest(tmp_path / "codes", "codes").config
    code(image_tree, model, tmp_path / "bare")
    assert "features" not in read_manifest(tmp_path / "bare", "codes").config


@pytest.mark.parametrize("settings", [{"shard_rows": 1}, {"shard_rows": 100}, {"batch_size": 3}])
def test_shards_and_batches_decide_nothing(
    image_tree: Path, model: Path, tmp_path: Path, settings: dict[str, int]
) -> None:
    code(image_tree, model, tmp_path / "a")
    code(image_tree, model, tmp_path / "b", **settings)
    assert rows(tmp_path / "a") == rows(tmp_path / "b")


def test_bf16_is_recorded_and_is_nearly_the_same(
    image_tree: Path, model: Path, tmp_path: Path
) -> None:
    code(image_tree, model, tmp_path / "a")
    code(image_tree, model, tmp_path / "b", precision="bf16")
    assert read_manifest(tmp_path / "b", "codes").config["precision"] == "bf16"
    a, b = (
        np.frombuffer(b"".join(c for c, _ in rows(tmp_path / n).values()), np.uint8) for n in "ab"
    )
    assert np.bitwise_count(a ^ b).sum() < 0.1 * 30 * BITS
    with pytest.raises(SchnRayError, match=r"config\.precision: float32 there, bf16 now"):
        code(image_tree, model, tmp_path / "a", precision="bf16")


@pytest.mark.parametrize("shard_rows", [1, 4, 100])
def test_later_rows_with_an_id_are_put_aside(tmp_path: Path, model: Path, shard_rows: int) -> None:
    names = [str(i) for i in range(20)]
    names[3], names[13], names[14] = "2", "2", "7"
    source = tmp_path / "x.parquet"
    images = [encode_image(i, (4, 4)) for i in range(20)]
    pq.write_table(pa.table({"id": names, "image": images}), source)
    counts = code(source, model, tmp_path / "codes", shard_rows=shard_rows)
    assert counts == {"rows": 20, "encoded": 17, "quarantined": 3}
    assert set(rows(tmp_path / "codes")) == set(names)
    assert rows(tmp_path / "codes")["2"][1] == hashlib.sha256(images[2]).digest()
    table = pq.read_table(tmp_path / "codes" / "quarantine.parquet").to_pylist()
    assert [(row["uri"], row["stage"], row["reason"]) for row in table] == [
        (f"{source}#3", "id", f"same id as {source}#2"),
        (f"{source}#13", "id", f"same id as {source}#2"),
        (f"{source}#14", "id", f"same id as {source}#7"),
    ]


def test_a_row_put_aside_for_its_id_comes_back_when_the_first_one_goes(
    tmp_path: Path, model: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name, ids in (("a", ["1", "2"]), ("b", ["2", "3"])):
        images = [encode_image(ord(name) + i) for i in range(2)]
        pq.write_table(pa.table({"id": ids, "image": images}), folder / f"{name}.parquet")
    code(folder, model, tmp_path / "codes")
    assert quarantine(tmp_path / "codes")["2"][0] == "id"
    (folder / "a.parquet").unlink()
    code(folder, model, tmp_path / "codes", update=True)
    code(folder, model, tmp_path / "fresh")
    assert rows(tmp_path / "codes") == rows(tmp_path / "fresh")
    assert set(rows(tmp_path / "codes")) == {"2", "3"}


# --- stopped, and run again


class Killed(BaseException):
    pass


def killed_after(shards: int) -> Callable[..., Iterable[Any]]:
    def map_shards(function: Callable[[Shard], Any], todo: Iterable[Shard]) -> Iterable[Any]:
        for done, shard in enumerate(todo):
            if done == shards:
                raise Killed
            yield function(shard)
        raise Killed

    return map_shards


def test_a_stopped_job_codes_only_the_rest(
    image_tree: Path, model: Path, tmp_path: Path, looked_at: list[bytes]
) -> None:
    out = tmp_path / "codes"
    with pytest.raises(Killed):
        code(image_tree, model, out, killed_after(3))
    assert len(looked_at) == 21
    with pytest.raises(SchnRayError, match="unfinished"):
        read_manifest(out, "codes")
    before = parts(out)
    (out / "data" / "part-00004.parquet.0123.partial").write_bytes(b"half")
    code(image_tree, model, out)
    assert len(looked_at) == 30
    code(image_tree, model, tmp_path / "whole")
    assert parts(out) == parts(tmp_path / "whole")
    assert before.items() <= parts(out).items()
    assert not list(out.rglob("*.partial"))
    names = ("fingerprint", "files", "counts")
    ours, whole = (read_manifest(p, "codes") for p in (out, tmp_path / "whole"))
    assert [getattr(ours, n) for n in names] == [getattr(whole, n) for n in names]


def test_finished_or_other_requests(image_tree: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "codes"
    code(image_tree, model, out)
    with pytest.raises(AlreadyDone):
        code(image_tree, model, out)
    with pytest.raises(AlreadyDone):
        code(image_tree, model, out, update=True)
    other = write_model(tmp_path / "other", BITS, seed=1)
    for update in (False, True):
        with pytest.raises(SchnRayError, match=r"another request.*\n *made_from\.model: "):
            code(image_tree, other, out, update=update)
    (image_tree / "cat" / "new.png").write_bytes(encode_image(50))
    with pytest.raises(SchnRayError, match=r"held other files: .* with --update"):
        code(image_tree, model, out)
    assert len(rows(out)) == 30
    assert not (out / "request.json").exists()


def test_a_source_that_changes_meanwhile_is_an_error(model: Path, tmp_path: Path) -> None:
    source = tmp_path / "x.parquet"
    images = [encode_image(i, (4, 4)) for i in range(20)]
    pq.write_table(pa.table({"image": images}), source)

    def changes(function: Callable[[Shard], Any], todo: Iterable[Shard]) -> Iterable[Any]:
        pq.write_table(pa.table({"image": images[:10]}), source)
        yield from map(function, todo)

    with pytest.raises(SchnRayError, match=r"x\.parquet: 7 rows .* it changed meanwhile"):
        code(source, model, tmp_path / "codes", changes)
    assert code(source, model, tmp_path / "codes", update=True)["encoded"] == 10


def test_a_lost_shard_is_noticed(image_tree: Path, model: Path, tmp_path: Path) -> None:
    def loses_one(function: Callable[[Shard], Any], todo: Iterable[Shard]) -> Iterable[Any]:
        yield from map(function, list(todo)[1:])

    message = "30 rows were listed, but 23 are written and 0 quarantined"
    with pytest.raises(SchnRayError, match=message):
        code(image_tree, model, tmp_path / "codes", loses_one)
    code(image_tree, model, tmp_path / "codes")
    assert len(rows(tmp_path / "codes")) == 30


def test_too_many_bad_rows_keep_what_was_coded(
    image_tree: Path, model: Path, tmp_path: Path, looked_at: list[bytes]
) -> None:
    (image_tree / "cat" / "bad.png").write_bytes(b"")
    with pytest.raises(TooManyBadRows, match=r"cat/bad\.png .*empty: 0 bytes"):
        code(image_tree, model, tmp_path / "codes", max_bad_share=0.01)
    before = len(looked_at)
    assert code(image_tree, model, tmp_path / "codes")["quarantined"] == 1
    assert len(looked_at) == before


# --- update


def disturb(tree: Path) -> list[bytes]:
    """Add, change, touch, rename and remove; return the bytes that have to be coded."""
    new = [encode_image(100 + i) for i in range(3)]
    (tree / "ape").mkdir()
    (tree / "ape" / "first.png").write_bytes(new[0])  # all slices of the sorted listing shift
    (tree / "zoo.png").write_bytes(new[1])
    change(tree / "cat" / "003.png", new[2])
    change(tree / "cat" / "004.png", (tree / "cat" / "004.png").read_bytes())
    (tree / "dog" / "001.png").unlink()
    return new


def test_update_takes_in_what_changed_and_nothing_else(
    image_tree: Path, model: Path, tmp_path: Path, looked_at: list[bytes]
) -> None:
    out = tmp_path / "codes"
    code(image_tree, model, out)
    before = parts(out)
    looked_at.clear()
    new = disturb(image_tree)
    counts = code(image_tree, model, out, update=True)
    assert sorted(looked_at) == sorted(new)
    wanted = {"rows": 31, "encoded": 31, "quarantined": 0}
    assert counts == wanted | {"new": 2, "changed": 2, "gone": 1, "tried_again": 0}
    same = [name for name, data in parts(out).items() if before.get(name) == data]
    assert sorted(same) == ["part-00002.parquet", "part-00003.parquet", "part-00004.parquet"]
    code(image_tree, model, tmp_path / "fresh")
    assert rows(out) == rows(tmp_path / "fresh")
    with pytest.raises(AlreadyDone):
        code(image_tree, model, out, update=True)
    open_artefact(out, "codes").check()


@pytest.mark.parametrize("moment", range(4))
def test_an_update_may_be_killed_and_run_again(
    image_tree: Path, model: Path, tmp_path: Path, moment: int
) -> None:
    out = tmp_path / "codes"
    code(image_tree, model, out)
    disturb(image_tree)
    with pytest.raises(Killed):
        code(image_tree, model, out, killed_after(moment), update=True)
    with pytest.raises(SchnRayError, match="unfinished"):
        read_manifest(out, "codes")
    (image_tree / "owl" / "late.png").write_bytes(encode_image(200))
    code(image_tree, model, out, update=True)
    code(image_tree, model, tmp_path / "fresh")
    assert rows(out) == rows(tmp_path / "fresh")


def test_an_update_that_never_began_leaves_the_codes_readable(
    image_tree: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "codes"
    code(image_tree, model, out)
    damaged = out / "data" / "part-00001.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:-50] + b"x" * 50)
    with pytest.raises(SchnRayError, match=r"part-00001\.parquet differs from its manifest"):
        code(image_tree, model, out, update=True)
    read_manifest(out, "codes")
    damaged.unlink()
    code(image_tree, model, out, update=True)
    assert damaged.read_bytes() == whole


def test_update_of_parquet_codes_new_bytes_only(
    model: Path, tmp_path: Path, looked_at: list[bytes]
) -> None:
    folder, out = tmp_path / "images", tmp_path / "codes"
    folder.mkdir()
    images = [encode_image(i) for i in range(40)]

    def write(name: str, of: list[bytes]) -> None:
        pq.write_table(pa.table({"image": of}), folder / name)

    write("a.parquet", images[:20])
    write("b.parquet", images[20:30])
    code(folder, model, out)
    before = parts(out)
    looked_at.clear()
    write("a.parquet", [*images[:4], images[39], *images[5:19]])
    write("c.parquet", images[30:33])
    counts = code(folder, model, out, update=True)
    assert sorted(looked_at) == sorted([images[39], *images[30:33]])
    assert (counts["encoded"], counts["changed"], counts["new"]) == (32, 20, 3)
    assert all(parts(out)[f"part-{n:05}.parquet"] == before[f"part-{n:05}.parquet"] for n in (3, 4))
    code(folder, model, tmp_path / "fresh")
    assert rows(out) == rows(tmp_path / "fresh")


def test_files_of_one_row_are_read_together(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    pq.write_table(pa.table({"image": [encode_image(9)]}), folder / "0.parquet")
    code(folder, model, tmp_path / "codes")
    for i in range(1, 4):
        pq.write_table(pa.table({"image": [encode_image(i)]}), folder / f"{i}.parquet")
    (folder / "0.parquet").unlink()
    code(folder, model, tmp_path / "codes", update=True)
    code(folder, model, tmp_path / "fresh")
    assert rows(tmp_path / "codes") == rows(tmp_path / "fresh")


def test_random_changes_end_where_a_fresh_job_ends(model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tree, out = write_tree(tmp_path / "images", {"a": 9, "b": 9}), tmp_path / "codes"
    code(tree, model, out)
    for step in range(6):
        for file in sorted(tree.rglob("*.png")):
            draw = rng.random()
            if draw < 0.15:
                file.unlink()
            elif draw < 0.3:
                bad = rng.random() < 0.3
                change(file, b"bad" if bad else encode_image(int(rng.integers(10**6))))
        for _ in range(rng.integers(0, 5)):
            name = f"{int(rng.integers(10**6))}.png"
            (tree / rng.choice(["a", "b"]) / name).write_bytes(encode_image(step))
        code(tree, model, out, update=True)
        code(tree, model, tmp_path / f"fresh-{step}")
        assert rows(out) == rows(tmp_path / f"fresh-{step}")
        assert quarantine(out) == quarantine(tmp_path / f"fresh-{step}")


# --- quarantined rows, tried again


def test_retry_failed_tries_only_what_failed(
    image_tree: Path, model: Path, tmp_path: Path, looked_at: list[bytes]
) -> None:
    out, good = tmp_path / "codes", encode_image(77)
    for name in ("cat/bad.png", "dog/bad.png"):
        (image_tree / name).write_bytes(b"")
    code(image_tree, model, out)
    before = parts(out)
    looked_at.clear()
    change(image_tree / "cat" / "bad.png", good)
    counts = code(image_tree, model, out, retry_failed=True)
    assert looked_at == [good, b""]
    assert (counts["encoded"], counts["quarantined"], counts["tried_again"]) == (31, 1, 2)
    assert quarantine(out) == {"dog/bad.png": ("decode", "empty: 0 bytes")}
    same = [name for name, data in parts(out).items() if before[name] == data]
    assert sorted(same) == ["part-00000.parquet", "part-00002.parquet", "part-00004.parquet"]
    code(image_tree, model, tmp_path / "fresh")
    assert rows(out) == rows(tmp_path / "fresh")


def test_retry_failed_leaves_other_changes_to_update(
    image_tree: Path, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "codes"
    (image_tree / "cat" / "bad.png").write_bytes(b"")
    code(image_tree, model, out)
    change(image_tree / "cat" / "bad.png", encode_image(77))
    (image_tree / "cat" / "new.png").write_bytes(encode_image(78))
    with pytest.raises(SchnRayError, match=r"1 rows are new, 0 changed, 0 are gone\. Add --update"):
        code(image_tree, model, out, retry_failed=True)
    read_manifest(out, "codes")
    assert code(image_tree, model, out, retry_failed=True, update=True)["encoded"] == 32


def test_retry_failed_may_be_killed(image_tree: Path, model: Path, tmp_path: Path) -> None:
    out = tmp_path / "codes"
    for name in ("cat/bad.png", "owl/bad.png"):
        (image_tree / name).write_bytes(b"")
    code(image_tree, model, out)
    for name in ("cat/bad.png", "owl/bad.png"):
        change(image_tree / name, encode_image(len(name)))
    with pytest.raises(Killed):
        code(image_tree, model, out, killed_after(1), retry_failed=True)
    code(image_tree, model, out, retry_failed=True)
    code(image_tree, model, tmp_path / "fresh")
    assert rows(out) == rows(tmp_path / "fresh")


# --- a source that was moved


def addresses(out: Path) -> set[str]:
    parts = sorted(out.glob("data/part-*.parquet"))
    return {uri for part in parts for uri in pq.read_table(part)["uri"].to_pylist()}


def test_images_that_were_moved_are_the_same_and_update_gives_their_addresses(
    image_tree: Path, model: Path, tmp_path: Path, looked_at: list[bytes]
) -> None:
    out, moved = tmp_path / "codes", tmp_path / "moved"
    code(image_tree, model, out)
    before = rows(out)
    image_tree.rename(moved)
    with pytest.raises(AlreadyDone, match=rf"addresses in {image_tree}, --update"):
        code(moved, model, out)
    looked_at.clear()
    code(moved, model, out, update=True)
    assert looked_at == []  # the same bytes: no image is encoded again
    assert rows(out) == before
    assert addresses(out) == {str(path) for path in moved.rglob("*.png")}
    with pytest.raises(AlreadyDone, match=r"nothing to do$"):
        code(moved, model, out, update=True)


@pytest.mark.parametrize("update", [False, True])
def test_killed_and_moved_it_goes_on_to_what_it_would_have_been(
    image_tree: Path, model: Path, tmp_path: Path, update: bool, looked_at: list[bytes]
) -> None:
    def dies(function: Callable[[Shard], Any], shards: Iterable[Shard]) -> Iterable[Any]:
        for number, shard in enumerate(shards):
            if number == 2:
                raise KeyboardInterrupt
            yield function(shard)

    out, moved = tmp_path / "codes", tmp_path / "moved"
    if update:
        code(image_tree, model, out)
    else:
        with pytest.raises(KeyboardInterrupt):
            code(image_tree, model, out, dies)
    image_tree.rename(moved)
    with pytest.raises(KeyboardInterrupt):
        code(moved, model, out, dies, update=update)
    code(moved, model, out, update=update)
    code(moved, model, tmp_path / "undisturbed")
    assert rows(out) == rows(tmp_path / "undisturbed")
    assert addresses(out) == addresses(tmp_path / "undisturbed")


def test_other_images_elsewhere_are_another_request(
    image_tree: Path, model: Path, tmp_path: Path
) -> None:
    code(image_tree, model, out := tmp_path / "codes")
    other = tmp_path / "other"
    shutil.copytree(image_tree, other)
    for path in other.rglob("*.png"):
        os.utime(path, (1, 1))  # the same names and sizes, and another time: not the same for sure
    for update in (False, True):
        with pytest.raises(SchnRayError, match=r"another request.*\n *made_from\.source: "):
            code(other, model, out, update=update)
    shutil.copytree(image_tree, tmp_path / "copy")  # which keeps times
    with pytest.raises(AlreadyDone):
        code(tmp_path / "copy", model, out)
    next((tmp_path / "copy").rglob("*.png")).write_bytes(encode_image(99))
    with pytest.raises(SchnRayError, match=r"another request.*\n *made_from\.source: "):
        code(tmp_path / "copy", model, out)
