"""The README's chains for photos without labels and for embeddings of one's own."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from support.image_files import encode_image, write_tree

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.models.backbones.build import build_backbone
from schn_ray.models.config import BackboneConfig


def write_photos(folder: Path, rows: int) -> Path:
    """Write a flat folder of images."""
    folder.mkdir()
    for row in range(rows):
        (folder / f"{row:04}.png").write_bytes(encode_image(row))
    return folder


def write_weights(file: Path) -> Path:
    """Write weights of the small backbone; nothing can be downloaded here."""
    torch.manual_seed(0)
    save_file(build_backbone(BackboneConfig(name="small")).module.state_dict(), file)
    return file


def test_photos_without_labels_are_searched(tmp_path: Path) -> None:
    photos, weights = (
        write_photos(tmp_path / "photos", 120),
        write_weights(tmp_path / "w.safetensors"),
    )
    store = schn_ray.prepare(photos, tmp_path / "store")
    assert schn_ray.open_store(store).protocol == "unlabelled"
    run = schn_ray.train(
        store, tmp_path / "run", method="itq", backbone="small", weights=str(weights)
    )
    assert not (tmp_path / "run" / "features").exists()
    assert "None" not in run.text()  # nothing can be validated
    codes = schn_ray.encode(photos, run, tmp_path / "codes")
    index = schn_ray.build_index(codes, tmp_path / "index")
    (result,) = schn_ray.search(index, [photos / "0007.png"], model=run, k=3)
    assert (result.hits[0].distance, len(result.hits)) == (0, 3)
    assert "0007.png" in [hit.id for hit in result.hits if hit.distance == 0]
    figures = schn_ray.evaluate(run, store, out=tmp_path / "evaluation")
    assert "recall" in figures.text()


def test_embeddings_are_searched(tmp_path: Path) -> None:
    digits = load_digits()
    X = digits.data[:300].astype(np.float16)
    ids = [f"digit-{row}" for row in range(len(X))]
    table = pa.table({"id": ids, "embedding": pa.array(list(X), pa.list_(pa.float16()))})
    pq.write_table(table, tmp_path / "embeddings.parquet")
    store = schn_ray.prepare(tmp_path / "embeddings.parquet", tmp_path / "store")
    run = schn_ray.train(store, tmp_path / "run", method="itq")
    assert schn_ray.load(run).input == "vectors"
    codes = schn_ray.encode(tmp_path / "embeddings.parquet", run, tmp_path / "codes")
    index = schn_ray.build_index(codes, tmp_path / "index")
    np.save(tmp_path / "query.npy", X[7])
    np.save(tmp_path / "queries.npy", X[:3].astype(np.float32))
    files = [tmp_path / "query.npy", tmp_path / "queries.npy"]
    results = schn_ray.search(index, files, model=run, k=5)
    assert [result.query for result in results][1:] == [f"{files[1]}#{row}" for row in range(3)]
    for result, row in zip(results, (7, 0, 1, 2), strict=True):
        assert f"digit-{row}" in [hit.id for hit in result.hits if hit.distance == 0]
    (tmp_path / "query.png").write_bytes(encode_image())
    with pytest.raises(SchnRayError, match=r"The model takes vectors: give \.npy files"):
        schn_ray.search(index, [tmp_path / "query.png"], model=run)


def test_a_head_is_trained_on_features_of_the_store(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "w.safetensors")
    photos = write_tree(tmp_path / "photos", {"cat": 30, "dog": 30, "owl": 30})
    store = schn_ray.prepare(photos, tmp_path / "store")
    features = schn_ray.embed(store, tmp_path / "features", backbone="small", weights=str(weights))
    assert features.counts["embedded"] == 90
    settings = {"schedule.iterations": 2, "schedule.epochs": 2, "optimiser.learning_rate": 1e-2}
    run = schn_ray.train(
        store, tmp_path / "run", method="csq", features=features, settings=settings
    )
    hasher = schn_ray.load(run)
    assert hasher.input == "images"
    of_images = schn_ray.encode(store, run, tmp_path / "of-images", settings={"relaxed": True})
    of_features = schn_ray.encode(
        features, run, tmp_path / "of-features", settings={"relaxed": True}
    )
    assert np.abs(relaxed(of_images) - relaxed(of_features)).max() < 0.05  # float16 features
    assert parts_of(of_features)["uri"].equals(parts_of(of_images)["uri"])  # where the images are
    assert parts_of(of_features)["sha256"].equals(parts_of(of_images)["sha256"])
    other = tmp_path / "other.safetensors"
    torch.manual_seed(1)
    save_file(build_backbone(BackboneConfig(name="small")).module.state_dict(), other)
    strange = schn_ray.embed(store, tmp_path / "strange", backbone="small", weights=str(other))
    with pytest.raises(SchnRayError, match=r"did not compute"):
        schn_ray.encode(strange, run, tmp_path / "codes")


def parts_of(codes: str) -> pa.Table:
    """Return all rows of codes in the order of their ids."""
    tables = [pq.read_table(file) for file in sorted(Path(codes).glob("data/part-*.parquet"))]
    return pa.concat_tables(tables).sort_by("id")


def relaxed(codes: str) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Return all relaxed codes in the order of their ids."""
    return np.array(parts_of(codes)["relaxed"].to_pylist(), np.float32)
