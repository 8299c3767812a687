"""A store in a bucket on this machine: prepared to it, trained and encoded from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from support.buckets import served_bucket
from support.image_files import encode_image, write_tree
from support.manifests import edited
from support.users import TINY

from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest
from schn_ray.core.storage.cache import CACHE
from schn_ray.core.storage.files import join, names_in, read_file, write_file
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.shards.map_shards import T
from schn_ray.data.shards.rows import Shard
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.retrieval.code_files import read_codes
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served_bucket("photos", tmp_path_factory.mktemp("cache")) as uri:
        yield uri


@pytest.fixture(scope="module")
def photos(bucket: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder a class, in the bucket and here, of the same name."""
    folder = write_tree(tmp_path_factory.mktemp("s3") / "in", {"cat": 8, "dog": 8})
    for file in folder.rglob("*.png"):
        write_file(join(bucket, f"in/{file.relative_to(folder).as_posix()}"), file.read_bytes())
    return f"{bucket}/in"


CONFIG = PrepareConfig(source=SourceConfig(shard_rows=5))


@pytest.fixture(scope="module")
def made(photos: str, bucket: str) -> Manifest:
    return prepare_store(open_source(photos, CONFIG.source), CONFIG, f"{bucket}/store")


def test_prepared_from_it_and_to_it(made: Manifest, photos: str, bucket: str) -> None:
    assert names_in(f"{bucket}/store") == {
        "rows-00000.arrow",
        "rows-00001.arrow",
        "rows-00002.arrow",
        "rows-00003.arrow",
        "receipts",
        "classes.json",
        "split.parquet",
        "quarantine.parquet",
        "manifest.json",
    }
    store = open_store(f"{bucket}/store")
    assert store.manifest.fingerprint == made.fingerprint
    assert store.path.is_relative_to(os.environ[CACHE])
    assert [store.image(row) for row in range(16)] == [
        read_file(store.uri(row)) for row in range(16)
    ]
    with pytest.raises(AlreadyDone):
        prepare_store(open_source(photos, CONFIG.source), CONFIG, f"{bucket}/store")


def test_killed_and_run_again(made: Manifest, photos: str, bucket: str) -> None:
    def dies(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterable[T]:
        yield function(list(shards)[2])
        raise KeyboardInterrupt

    def counts(function: Callable[[Shard], T], shards: Iterable[Shard]) -> Iterable[T]:
        remaining = list(shards)
        left.extend(shard.number for shard in remaining)
        return map(function, remaining)

    left: list[int] = []
    source, out = open_source(photos, CONFIG.source), f"{bucket}/again"
    with pytest.raises(KeyboardInterrupt):
        prepare_store(source, CONFIG, out, dies)
    assert "manifest.json" not in names_in(out)
    with pytest.raises(SchnRayError, match="nothing finished there"):
        open_store(out)
    again = prepare_store(source, CONFIG, out, counts)
    assert left == [0, 1, 3]
    assert again.fingerprint == made.fingerprint
    assert "request.json" not in names_in(out)
    other = CONFIG.model_copy(update={"seed": 5})
    with pytest.raises(SchnRayError, match=r"seed: 0 there, 5 now"):
        prepare_store(source, other, out)


def test_trained_and_encoded_from_it(made: Manifest, bucket: str, tmp_path: Path) -> None:
    config = train_config("digits", None, (*TINY, "schedule.iterations=1"))
    # a path, as the command line has it: it makes s3:/ of s3://
    train_locally(config, Path(f"{bucket}/store"), tmp_path / "run")
    source = open_source(f"{bucket}/store", SourceConfig(shard_rows=7))
    assert source.kind == "store"
    encode_source(source, tmp_path / "run", tmp_path / "codes", EncodeConfig())
    local = prepare_store(open_source(f"{bucket}/in", CONFIG.source), CONFIG, tmp_path / "store")
    assert local.files["split.parquet"] == made.files["split.parquet"]
    source = open_source(str(tmp_path / "store"), SourceConfig())
    encode_source(source, tmp_path / "run", tmp_path / "local", EncodeConfig())
    (remote, codes), (table, local_codes) = (
        read_codes(tmp_path / name) for name in ("codes", "local")
    )
    assert remote["id"].to_pylist() == table["id"].to_pylist()
    np.testing.assert_array_equal(codes, local_codes)
    first = remote["uri"][3].as_py()
    assert first == f"{bucket}/store#3"
    assert fetch(first) == read_file(f"{bucket}/in/cat/003.png")


def test_update_there(photos: str, bucket: str) -> None:
    folder, out = f"{bucket}/grows", f"{bucket}/grown"
    for i in range(12):
        write_file(f"{folder}/{'ab'[i % 2]}/{i:02}.png", encode_image(i))
    source = open_source(folder, CONFIG.source)
    prepare_store(source, CONFIG, out)
    before = open_store(out)
    write_file(f"{folder}/a/99.png", encode_image(99))
    counts = prepare_store(source, CONFIG, out, update=True).counts
    assert (counts["new"], counts["gone"], counts["rows"]) == (1, 0, 13)
    after = open_store(out)
    assert after.path != before.path  # another fingerprint, another copy
    assert set(after.ids.to_pylist()) == {*before.ids.to_pylist(), "a/99.png"}


def test_damage_on_the_way_is_found(made: Manifest, bucket: str) -> None:
    out = f"{bucket}/damaged"
    for name in made.files:
        write_file(f"{out}/{name}", read_file(f"{bucket}/store/{name}"))
    manifest = read_file(f"{bucket}/store/manifest.json")
    write_file(f"{out}/manifest.json", edited(manifest, fingerprint="0" * 64))
    data = bytearray(read_file(f"{out}/rows-00001.arrow"))
    data[len(data) // 2] ^= 1
    write_file(f"{out}/rows-00001.arrow", bytes(data))
    with pytest.raises(SchnRayError, match=r"rows-00001\.arrow differs from its manifest"):
        open_store(out)
    leads_out = made.files | {"../../escaped": "0" * 64}
    changed = edited(manifest, fingerprint="1" * 64, files=leads_out)
    write_file(f"{out}/manifest.json", changed)
    with pytest.raises(SchnRayError, match="leads out of it"):
        open_store(out)
