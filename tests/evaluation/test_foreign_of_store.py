"""Codes of another program that are rows of a store: joined by ids, with its labels and split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.image_files import write_tree
from support.models import write_model
from support.users import Run

import schn_ray
from schn_ray.core.documents import parse_json
from schn_ray.core.errors import SchnRayError
from schn_ray.data.store.reader import Store
from schn_ray.evaluation.results import read_examples

K = 16


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("of-store")
    photos = write_tree(folder / "photos", {"cat": 20, "dog": 20, "owl": 10})
    return schn_ray.open_store(schn_ray.prepare(photos, folder / "store"))


@pytest.fixture(scope="module")
def codes(store: Store) -> np.ndarray:
    classes = store.labels.argmax(axis=1)
    generator = np.random.default_rng(0)
    centres = generator.random((3, K)) < 0.5
    return centres[classes] ^ (generator.random((len(store), K)) < 0.2)


def written(path: Path, ids: list[str], codes: np.ndarray, **columns: Any) -> Path:
    pq.write_table(pa.table({"id": ids, "code": codes.tolist(), **columns}), path)
    return path


def test_rows_in_any_order_are_joined_to_labels_and_split(
    store: Store, codes: np.ndarray, tmp_path: Path
) -> None:
    order = np.random.default_rng(1).permutation(len(store))
    ids = [store.ids[int(row)].as_py() for row in order]
    labels = ["wrong"] * (len(store) + 1)  # the store's are taken
    shuffled = np.concatenate([codes[order], codes[:1]])
    file = written(tmp_path / "mine.parquet", [*ids, "elsewhere.png"], shuffled, label=labels)
    measured = schn_ray.evaluate(codes=file, store=store, out=tmp_path / "joined")
    query, gallery = store.rows("query"), store.rows("gallery")
    by_hand = schn_ray.evaluate(
        codes=codes[gallery],
        labels=store.labels[gallery].toarray(),
        queries=codes[query],
        query_labels=store.labels[query].toarray(),
        out=tmp_path / "by-hand",
    ).figures
    figures = measured.figures
    assert (figures.map, figures.map_best, figures.mrr) == (
        by_hand.map,
        by_hand.map_best,
        by_hand.mrr,
    )
    assert [each.name for each in figures.by_class] == ["cat", "dog", "owl"]
    assert measured.to_arrow()["id"].to_pylist() == store.ids.take(pa.array(query)).to_pylist()
    assert (figures.protocol, figures.gallery_codes) == (store.protocol, "given")
    assert "1 rows of the file are not in the store" in measured.text()
    (shown, *_) = read_examples(measured)
    row = store.ids.to_pylist().index(shown.query.id)
    assert shown.query.uri == store.uri(row)


def test_a_model_of_ours_and_its_codes_as_a_file_compare_as_equal(
    store: Store, tmp_path: Path, schn_ray: Run
) -> None:
    import schn_ray as face

    model = write_model(tmp_path / "model")
    ours = face.evaluate(model, store, tmp_path / "ours", settings={"controls.train_rows": 0})
    options = ("--store", store.location, "--gallery", "encoded", "--out", tmp_path / "theirs")
    bits = ("--bits", ours.figures.bits)
    answer = schn_ray("evaluate", "--codes", tmp_path / "ours" / "codes", *bits, *options)
    assert answer.code == 0, answer.err
    compared = face.compare([ours, tmp_path / "theirs"]).comparison
    assert [gap.difference.interval.mean for gap in compared.gaps] == [0]
    given = face.evaluate(
        codes=tmp_path / "ours" / "codes",
        bits=ours.figures.bits,
        store=store,
        out=tmp_path / "given",
    )
    with pytest.raises(SchnRayError, match="gallery codes of another kind"):
        face.compare([ours, given])


def test_rows_without_a_code_are_refused_or_counted_and_listed(
    store: Store, codes: np.ndarray, tmp_path: Path
) -> None:
    lost = [int(store.rows("query")[0]), *store.rows("gallery")[:4].tolist()]
    left = [row for row in range(len(store)) if row not in lost]
    ids = store.ids.to_pylist()
    file = written(tmp_path / "mine.parquet", [ids[row] for row in left], codes[left])
    with pytest.raises(SchnRayError) as refused:
        schn_ray.evaluate(codes=file, store=store)
    assert f"1 query rows of the store have no code, such as {ids[lost[0]]!r}" in str(refused.value)
    assert "4 gallery rows of the store have no code" in str(refused.value)
    assert "and 1 more" in str(refused.value)
    measured = schn_ray.evaluate(codes=file, store=store, settings={"audit": "report"})
    sizes = len(store.rows("query")) - 1, len(store.rows("gallery")) - 4
    assert (measured.figures.queries, measured.figures.gallery) == sizes
    assert "4 gallery rows of the store have no code" in measured.text()
    listed = parse_json((Path(measured) / "audit.json").read_bytes(), "audit.json")["found"]
    assert listed[-1]["ids"] == [ids[row] for row in lost[1:]]


def test_embeddings_of_a_store_are_ranked_by_cosine_too(
    store: Store, codes: np.ndarray, tmp_path: Path
) -> None:
    vectors = np.where(codes, 1.0, -1.0) + np.random.default_rng(3).normal(0, 0.1, codes.shape)
    order = np.arange(len(store))[::-1]
    arrays = {"embeddings": vectors[order], "id": np.array(store.ids.to_pylist())[order]}
    np.savez(tmp_path / "mine.npz", **arrays)
    drawn = {"controls.queries": 3, "controls.gallery_rows": 10}
    joined = schn_ray.evaluate(
        embeddings=tmp_path / "mine.npz", store=store, settings=drawn
    ).figures
    query, gallery = store.rows("query"), store.rows("gallery")
    by_hand = schn_ray.evaluate(
        embeddings=vectors[gallery],
        labels=store.labels[gallery].toarray(),
        queries=vectors[query],
        query_labels=store.labels[query].toarray(),
        out=tmp_path / "by-hand",
        settings=drawn,
    ).figures
    assert joined.controls is not None
    assert by_hand.controls is not None
    assert joined.controls.cosine == by_hand.controls.cosine
    assert joined.controls.recall == by_hand.controls.recall


def test_what_does_not_fit_a_store_is_said(store: Store, codes: np.ndarray, tmp_path: Path) -> None:
    ids = store.ids.to_pylist()
    twice = written(tmp_path / "twice.parquet", [*ids, ids[3]], codes[[*range(len(ids)), 3]])
    others = written(tmp_path / "others.parquet", [f"x{id}" for id in ids], codes)
    train = store.rows("train")
    only = written(tmp_path / "train.parquet", [ids[row] for row in train], codes[train])
    for options, message in (
        ({"codes": codes}, "has no ids, by which rows are those of the store"),
        ({"codes": twice}, f"has ids more than once: {ids[3]!r}"),
        ({"codes": others}, f"they look like 'x{ids[0]}', the store's like '{ids[0]}'"),
        ({"codes": only}, "query rows of the store have no code"),
        ({"codes": only, "settings": {"audit": "report"}}, "no query row of the store"),
        ({"codes": others, "labels": [1], "split": ["query"]}, "leave --labels, --split out"),
        ({"codes": others, "queries": codes}, "leave --queries out"),
    ):
        with pytest.raises(SchnRayError, match=message):
            schn_ray.evaluate(**options, store=store, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
