"""Encoding as a user types it: ranges of workers, updates, and errors that come from workers."""

import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from support.image_files import encode_image, write_tree
from support.models import write_model
from support.users import Run

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "photos", {"cat": 10, "dog": 10})


@pytest.fixture
def encode(schn_ray: Run, photos: Path, tmp_path: Path) -> Run:
    model = write_model(tmp_path / "model")
    settings = ("--set", "source.shard_rows=4", "--set", "source.max_bad_share=0.2")

    def run(*arguments: object):  # type: ignore[no-untyped-def]
        source, *rest = arguments or (photos,)
        return schn_ray(
            "encode", source, "--model", model, "--out", tmp_path / "codes", *settings, *rest
        )

    return run


@pytest.mark.slow
def test_a_range_of_workers_of_which_ray_says_nothing(
    encode: Run, photos: Path, tmp_path: Path
) -> None:
    answer = encode(photos, "--workers", "1:2", "--json")
    assert (answer.code, json.loads(answer.out)["counts"]["encoded"]) == (0, 20), answer.err
    assert re.fullmatch(r"encoding: 20 of 20 rows, [\d,]+/s, \d:\d\d\n", answer.err)
    assert len(list((tmp_path / "codes").glob("data/part-*.parquet"))) == 5


def test_more_workers_than_cpus(encode: Run, photos: Path) -> None:
    cpus = int(ray.cluster_resources()["CPU"])
    answer = encode(photos, "--workers", f"{cpus + 1}:{cpus + 5}")
    assert answer.code == 2
    assert f"{cpus + 1} workers want 1 CPU each, the cluster has {cpus}" in answer.err


@pytest.mark.slow
def test_update_and_retry_as_typed(encode: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "bad.png").write_bytes(b"")
    assert encode(photos).code == 0
    assert "nothing to do" in encode(photos, "--update").err
    (photos / "cat" / "bad.png").write_bytes(encode_image(7))
    answer = encode(photos, "--retry-failed")
    assert (answer.code, "tried again: 1" in answer.out) == (0, True), answer.err
    (photos / "ape.png").write_bytes(encode_image(8))
    refused = encode(photos)
    assert (refused.code, "--update" in refused.err) == (2, True)
    answer = encode(photos, "--update")
    assert (answer.code, "new: 1" in answer.out, "encoded: 22" in answer.out) == (0, True, True)


@pytest.mark.slow
def test_what_a_worker_cannot_read_is_said_without_a_traceback(
    encode: Run, photos: Path, tmp_path: Path
) -> None:
    images = [encode_image(i) for i in range(9)]
    source = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": images}), source)
    data = bytearray(source.read_bytes())
    data[4:60] = bytes(56)  # the first page's header
    source.write_bytes(data)
    answer = encode(source)
    assert answer.code == 2
    assert "x.parquet cannot be read as Parquet" in answer.err
    assert "Traceback" not in answer.err
    assert "RayTaskError" not in answer.err
