"""Planted copies: recall and precision against codes and pictures compared one by one."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.models import write_model
from support.pictures import picture_difference, picture_of
from support.users import Run

import schn_ray as face
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.duplicates.planted import KINDS, copies_of
from schn_ray.retrieval.duplicates.thumbnails import LIMIT


def write_photos(folder: Path, count: int) -> Path:
    """Write photos, a model, and codes; the last photo is a copy of the first."""
    (folder / "photos").mkdir()
    for number in range(count):
        picture_of(number).save(folder / "photos" / f"{number:02}.png")
    picture_of(0).resize((60, 45), Image.Resampling.BICUBIC).save(folder / "photos" / "copy.png")
    write_model(folder / "model")
    face.encode(folder / "photos", folder / "model", folder / "codes")
    return folder


def test_recall_and_precision_equal_pairs_one_by_one(tmp_path: Path, schn_ray: Run) -> None:
    folder = write_photos(tmp_path, 12)
    out = folder / "planted.parquet"
    asked = ("duplicates", folder / "codes", "--out", out, "-r", 2, "--plant", 13)
    answer = schn_ray(*asked, "--model", folder / "model", "--json")
    assert answer.code == 0, answer.err
    counts = json.loads(answer.out)
    paths = sorted((folder / "photos").iterdir())
    originals = [path.read_bytes() for path in paths]
    rows = pq.read_table(out).to_pylist()
    reported = {(row["kind"], row["id"], row["match_id"]): row["right"] for row in rows}
    expected: dict[tuple[str, str, str | None], bool | None] = {}
    near = dict.fromkeys(KINDS, 0)
    hasher = face.load(folder / "model")
    codes = hasher.encode(originals)
    for row, original in enumerate(originals):
        for kind, copy in zip(KINDS, copies_of(original, row), strict=True):
            apart = np.bitwise_count(codes ^ hasher.encode([copy])).sum(axis=1)
            near[kind] += bool(apart[row] <= 2)
            matches = [
                other
                for other in range(len(paths))
                if apart[other] <= 2 and picture_difference(originals[other], copy) <= LIMIT
            ]
            for other in matches:
                pair = paths[row].name, paths[other].name
                twins = {pair[0], pair[1]} == {"00.png", "copy.png"}
                expected[kind, *pair] = other == row or twins
            if not matches:
                expected[kind, paths[row].name, None] = None
    assert reported == expected
    assert counts["pairs"] == sum(right is not None for right in expected.values())
    assert counts["right"] == sum(bool(right) for right in expected.values())
    for kind in counts["kinds"]:
        recovered = [key for key in expected if key[0] == kind["kind"] and key[1] == key[2]]
        assert (kind["planted"], kind["recovered"]) == (13, len(recovered))
        assert kind["near"] == near[kind["kind"]]
    assert 13 < counts["right"] < 4 * 13
    assert "recovered" in str(schn_ray(*asked, "--model", folder / "model").out)


def test_what_cannot_be_planted(tmp_path: Path) -> None:
    codes, out = tmp_path / "codes", tmp_path / "planted.parquet"
    for options in ({"plant": 3}, {"model": "run"}, {"plant": 3, "model": "run", "keep": "best"}):
        with pytest.raises(SchnRayError, match="--plant N, of 1 or more, and --model RUN"):
            face.duplicates(codes, out, **options)
