"""Several labels an image, and identities: prepared, trained on, solved, measured, reported."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import makers
from support.evaluations import evaluated_codes
from support.image_files import encode_image
from support.users import TINY

from schn_ray.core.manifest import Manifest
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.splits import protocols
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.metrics.reid import (
    ReidFigures,
    Sightings,
    reid_figures,
    reid_histograms,
)
from schn_ray.evaluation.results import read_figures
from schn_ray.evaluation.verdict import verdict_of
from schn_ray.report.runs import report_run
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally

SETTINGS = (*TINY, "schedule.iterations=1", "schedule.epochs=1", "schedule.batch_size=8")


def prepared(source: Path, out: Path, protocol: str) -> Manifest:
    config = PrepareConfig(protocol=protocol, validation_share=0)
    return prepare_store(open_source(str(source), SourceConfig()), config, out)


def through(folder: Path) -> Figures:
    """Train, evaluate and report; return the figures."""
    train_locally(train_config("digits", None, SETTINGS), folder / "store", folder / "run")
    evaluate_run(folder / "run", folder / "store", folder / "evaluation", EvaluateConfig(ks=(3,)))
    report_run(folder / "run", folder / "evaluation", folder / "report.html")
    text, figures = (folder / "report.html").read_text(), read_figures(folder / "evaluation")
    assert "<img" in text
    verdict = verdict_of(figures)
    assert f">{verdict.grade.capitalize()}</strong>: {verdict.summary}" in text
    return figures


def test_several_labels_and_the_most_frequent_concepts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(
        protocols.PROTOCOLS["nuswide-21"],
        query=2,
        train=5,
        counts=(6, 15, 33),
        classes=3,
        most_frequent=3,
    )
    monkeypatch.setitem(protocols.PROTOCOLS, "nuswide-21", small)
    tags = [[["sky", "sea"], ["sea"], ["dog", "sky"], ["dog"]][i % 4] for i in range(39)]
    tags += [["rare"]] * 3
    images = [encode_image(i) for i in range(42)]
    pq.write_table(pa.table({"image": images, "label": tags}), tmp_path / "x.parquet")
    counts = prepared(tmp_path / "x.parquet", tmp_path / "store", "nuswide-21").counts
    store = open_store(tmp_path / "store")
    assert store.classes == ("dog", "sea", "sky")
    assert (counts["rows"], counts["unlabelled"], counts["gallery"]) == (42, 3, 33)
    assert store.labels[[0]].indices.tolist() == [1, 2]
    assert store.labels[[39, 40, 41]].nnz == 0  # 'rare' is none of the three
    assert store.labels.indices.min() >= 0
    measured = through(tmp_path)
    assert measured.queries == 6
    assert 0 < measured.map <= 1


def test_identities_with_distractors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, number = tmp_path / "market", 0
    for folder, cameras in (("bounding_box_train", 4), ("query", 1), ("bounding_box_test", 3)):
        for identity in range(1, 7) if folder == "bounding_box_train" else range(11, 17):
            for camera in range(1, cameras + 1):
                name = f"{folder}/{identity:04}_c{camera}s1_{number:06}_00.jpg"
                makers.write(photos, {name: makers.jpeg(number)})
                number += 1
    for identity, frame in (("0000", 1), ("-1", 2)):
        name = f"bounding_box_test/{identity}_c1s1_{frame:06}_00.jpg"
        makers.write(photos, {name: makers.jpeg(1000 + frame)})
    small = replace(protocols.PROTOCOLS["market1501"], counts=(6, 24, 19), classes=12)
    monkeypatch.setitem(protocols.PROTOCOLS, "market1501", small)
    counts = prepared(photos, tmp_path / "store", "market1501").counts
    assert (counts["gallery"], counts["junk"], counts["unlabelled"]) == (19, 1, 2)
    store = open_store(tmp_path / "store")
    assert (np.diff(store.labels[store.rows("gallery")].indptr) == 0).sum() == 1
    assert set(store.cameras) == {1, 2, 3, 4}
    measured = through(tmp_path)
    assert (measured.queries, measured.gallery) == (6, 19)
    assert measured.undefined_queries == 0
    assert measured.reidentification == by_the_files_names(tmp_path / "evaluation")


def by_the_files_names(evaluation: Path) -> ReidFigures:
    """Measure re-identification by identity and camera as Market-1501's names have them."""
    table, packed = evaluated_codes(evaluation)
    ids = np.array(table["id"].to_pylist())
    asked = np.char.startswith(ids, "query")
    junk = np.char.find(ids, "/-1_") >= 0
    held = np.char.startswith(ids, "bounding_box_test") & ~junk
    names = [id.rpartition("/")[2].split("_") for id in ids]
    identities = np.array([int(name[0]) for name in names])
    cameras = np.array([int(name[1][1]) for name in names])
    sides = (Sightings(packed[m], identities[m], cameras[m]) for m in (asked, held))
    found = reid_figures(reid_histograms(*sides, bits=12))
    assert found.undefined_queries == 0
    return found
