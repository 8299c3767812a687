"""A directory of codes opens, as it is, in what people read data sets with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.dataset as ds
import pytest
from support.image_files import write_tree
from support.manifests import edit_manifest
from support.models import write_model

from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST, REQUEST
from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.models.hasher import load
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source

Codes = dict[str, tuple[bytes, list[float]]]


def in_pandas(codes: Path, _: Path) -> Codes:
    frame = pd.read_parquet(codes / "data")
    rows = zip(frame["id"], frame["code"], frame["relaxed"], strict=True)
    return {id: (code, list(relaxed)) for id, code, relaxed in rows}


def in_arrow(codes: Path, _: Path) -> Codes:
    rows = ds.dataset(codes / "data").to_table().to_pylist()
    return {row["id"]: (row["code"], row["relaxed"]) for row in rows}


def in_duckdb(codes: Path, _: Path) -> Codes:
    query = "SELECT id, code, relaxed FROM read_parquet($1)"
    rows = duckdb.execute(query, [f"{codes}/data/*.parquet"]).fetchall()
    return {id: (code, list(relaxed)) for id, code, relaxed in rows}


def in_datasets(codes: Path, cache: Path) -> Codes:
    datasets = pytest.importorskip("datasets")
    data = datasets.load_dataset(str(codes / "data"), split="train", cache_dir=str(cache))
    return {row["id"]: (row["code"], row["relaxed"]) for row in data}


def encode(photos: Path, model: Path, out: Path, update: bool = False) -> dict[str, Any]:
    source = SourceConfig(shard_rows=4, max_bad_share=0.5)
    config = EncodeConfig(source=source, relaxed=True)
    return encode_source(open_source(str(photos), source), model, out, config, update=update).counts


@pytest.mark.parametrize("read", [in_pandas, in_arrow, in_duckdb, in_datasets])
def test_codes_are_a_data_set_also_after_an_update(
    read: Callable[[Path, Path], Codes], tmp_path: Path
) -> None:
    photos, codes = tmp_path / "photos", tmp_path / "codes"
    write_tree(photos, {"cat": 5, "dog": 5})
    (photos / "dog" / "broken.png").write_bytes(b"no image")  # so that a row is quarantined
    model = write_model(tmp_path / "model", 12)
    encode(photos, model, codes)
    assert read(codes, tmp_path / "first") == expected(photos, model)
    next(photos.rglob("*.png")).unlink()
    write_tree(photos, {"bird": 2})
    encode(photos, model, codes, update=True)
    assert read(codes, tmp_path / "second") == expected(photos, model)


def expected(photos: Path, model: Path) -> Codes:
    files = [file for file in sorted(photos.rglob("*.png")) if file.name != "broken.png"]
    hasher = load(model)
    relaxed = hasher.relaxed_of(files).astype(np.float16)
    return {
        file.relative_to(photos).as_posix(): (code.tobytes(), row.tolist())
        for file, code, row in zip(files, hasher.encode(files), relaxed, strict=True)
    }


def test_codes_of_the_older_layout_are_refused(tmp_path: Path) -> None:
    photos, codes = write_tree(tmp_path / "photos", {"cat": 5}), tmp_path / "codes"
    model = write_model(tmp_path / "model", 12)
    encode(photos, model, codes)
    edit_manifest(codes, format=3)
    for update in (False, True):
        with pytest.raises(SchnRayError, match=r"format 3 .* with format 4: make the codes again"):
            encode(photos, model, codes, update)
    request = json.loads((codes / MANIFEST).read_text())
    (codes / REQUEST).write_text(
        json.dumps({key: request[key] for key in ("kind", "config", "made_from")})
    )
    (codes / MANIFEST).unlink()  # as one that was killed
    with pytest.raises(SchnRayError, match="begun by an older schn-ray; remove it"):
        encode(photos, model, codes)
