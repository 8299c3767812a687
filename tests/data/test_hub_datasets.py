"""Data sets as hubs have them: open, saved or in Parquet, with their columns and class names."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.image_files import encode_image

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.rows import BadRow, Row, Source
from schn_ray.data.sources.dataset_objects import is_dataset, open_dataset
from schn_ray.data.sources.kinds import open_source

datasets: Any = pytest.importorskip("datasets")

IMAGES = [encode_image(number) for number in range(9)]
NUMBERS = [0, 1, 2, 0, 1, 2, -1, 0, 1]
NAMES = ("cat", "dog", "grey owl")
CONFIG = SourceConfig(shard_rows=4)


def dataset(label: str = "label") -> Any:
    features = datasets.Features(
        {"img": datasets.Image(), label: datasets.ClassLabel(names=list(NAMES))}
    )
    columns = {"img": [{"bytes": image, "path": None} for image in IMAGES], label: NUMBERS}
    return datasets.Dataset.from_dict(columns, features=features)


def read_all(source: Source) -> list[Row | BadRow]:
    """Read every shard, after the trip through pickle that a worker would give it."""
    return [
        row
        for shard in list(source.shards())
        for row in pickle.loads(pickle.dumps(source)).read(shard)
    ]


def opened(data: Any, _: Path) -> Source:
    return open_dataset(data, CONFIG)


def saved(data: Any, folder: Path) -> Source:
    data.save_to_disk(folder / "saved")
    return open_source(str(folder / "saved"), CONFIG)


def as_parquet(data: Any, folder: Path) -> Source:
    data.to_parquet(folder / "train.parquet")
    return open_source(str(folder / "train.parquet"), CONFIG)


@pytest.mark.parametrize("label", ["label", "labels", "category"])
@pytest.mark.parametrize("form", [opened, saved, as_parquet])
def test_images_and_class_names_in_every_form(
    form: Callable[[Any, Path], Source], label: str, tmp_path: Path
) -> None:
    rows = read_all(form(dataset(label), tmp_path))
    expected = [(NAMES[number],) if number >= 0 else () for number in NUMBERS]
    assert [row.image for row in rows if isinstance(row, Row)] == IMAGES
    assert [row.labels for row in rows if isinstance(row, Row)] == expected
    assert len({row.id for row in rows}) == len(rows)


def test_a_chosen_column_and_names_of_a_file_win(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("A\nB\nC\n")
    data = dataset().add_column("mine", ["x"] * len(IMAGES))
    data.to_parquet(tmp_path / "a.parquet")
    config = SourceConfig(label_column="mine")
    rows = read_all(open_source(str(tmp_path / "a.parquet"), config))
    assert {row.labels for row in rows if isinstance(row, Row)} == {("x",)}
    config = SourceConfig(class_names=str(tmp_path / "names.txt"))
    rows = read_all(open_source(str(tmp_path / "a.parquet"), config))
    assert [row.labels for row in rows if isinstance(row, Row)][:3] == [("A",), ("B",), ("C",)]


def test_splits_and_a_selection_of_rows() -> None:
    data = dataset()
    splits = datasets.DatasetDict({"train": data.select([5, 3, 1]), "test": data.select([0])})
    rows = read_all(open_dataset(splits, CONFIG))
    assert [(row.image, row.split) for row in rows if isinstance(row, Row)] == [
        (IMAGES[5], "train"),
        (IMAGES[3], "train"),
        (IMAGES[1], "train"),
        (IMAGES[0], "test"),
    ]
    assert [row.id for row in rows] == ["train#0", "train#1", "train#2", "test#0"]
    other = open_dataset(data.select([5, 3, 2]), CONFIG)
    assert other.location != open_dataset(data.select([5, 3, 1]), CONFIG).location


def test_embeddings_are_vectors() -> None:
    X = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    data = datasets.Dataset.from_dict({"embedding": X.tolist(), "label": NUMBERS})
    rows = read_all(open_dataset(data, CONFIG))
    np.testing.assert_allclose([row.vector for row in rows if isinstance(row, Row)], X)


def test_images_that_are_named_by_their_paths(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGES[0])
    paths = [str(tmp_path / "a.png"), str(tmp_path / "gone.png")]
    data = datasets.Dataset.from_dict({"image": paths}).cast_column("image", datasets.Image())
    first, second = read_all(open_dataset(data, CONFIG))
    assert isinstance(first, Row)
    assert (first.image, first.uri) == (IMAGES[0], paths[0])
    assert isinstance(second, BadRow)
    assert "No such file" in second.reason


def test_a_streamed_data_set_is_refused() -> None:
    streamed = dataset().to_iterable_dataset()
    assert is_dataset(streamed)
    with pytest.raises(SchnRayError, match="streaming=False"):
        open_dataset(streamed, CONFIG)


def test_a_data_set_is_checked_and_prepared(tmp_path: Path) -> None:
    images = [Image.open(io.BytesIO(encode_image(number))) for number in range(12)]
    data = datasets.Dataset.from_dict({"image": images, "label": ["cat", "dog"] * 6})
    assert schn_ray.check(data).report.classes == {"cat": 6, "dog": 6}
    store = schn_ray.prepare(data, tmp_path / "store")
    assert (store.counts["rows"], schn_ray.open_store(store).classes) == (12, ("cat", "dog"))
    assert schn_ray.prepare(data, tmp_path / "store").note


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "path,category\na.png,cat\nb.png,dog\n"),
        ("a.csv", "file_name,label\na.png,cat\nb.png,dog\n"),
        ("a.csv", "\ufeffimage;label\na.png;cat\nb.png;dog\n"),
        ("a.csv", '"img";"labels"\na.png;"cat"\nb.png;"dog"\n'),
        ("a.tsv", "label\tpath\ncat\ta.png\ndog\tb.png\n"),
        ("metadata.jsonl", None),
    ],
)
def test_lists_with_other_names_and_separators(name: str, text: str, tmp_path: Path) -> None:
    for number, image in enumerate(("a.png", "b.png")):
        (tmp_path / image).write_bytes(IMAGES[number])
    rows = [{"file_name": "a.png", "category": "cat"}, {"file_name": "b.png", "category": "dog"}]
    (tmp_path / name).write_text(text or "\n".join(map(json.dumps, rows)))
    location = tmp_path if name == "metadata.jsonl" else tmp_path / name
    read = read_all(open_source(str(location), CONFIG))
    assert [(row.id, row.labels) for row in read if isinstance(row, Row)] == [
        ("a.png", ("cat",)),
        ("b.png", ("dog",)),
    ]


def test_a_semicolon_in_quotes_is_between_labels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGES[0])
    (tmp_path / "a.csv").write_text('path;label\na.png;"cat;pet"\n')
    (row,) = read_all(open_source(str(tmp_path / "a.csv"), CONFIG))
    assert isinstance(row, Row)
    assert row.labels == ("cat", "pet")
