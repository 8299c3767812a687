"""Features that ``embed`` writes: those of the backbone, whatever happens meanwhile."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from support.faults import DIED, at_change, ends
from support.image_files import encode_image, write_tree

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.images import evaluation_view, normalise
from schn_ray.data.shards.map_shards import map_locally
from schn_ray.data.shards.vectors import vectors_of
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.sources.stored import open_rows
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.models import embed
from schn_ray.models.backbones.build import build_backbone
from schn_ray.models.backbones.saved import build_fixed_backbone
from schn_ray.models.config import BackboneConfig
from schn_ray.models.embed import EmbedConfig, embed_source
from schn_ray.models.stored_features import StoredFeatures
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally

SMALL = BackboneConfig(name="small", base_channels=4)
SHARDS = SourceConfig(shard_rows=8, max_bad_share=0.2)


def make(photos: Path, out: Path, update: bool = False, **settings: Any) -> Manifest:
    """Embed a folder of photos."""
    config = EmbedConfig.model_validate({"source": SHARDS, "backbone": SMALL} | settings)
    return embed_source(open_source(str(photos), SHARDS), out, config, update=update)


def features(out: Path) -> dict[str, NDArray[np.float32]]:
    """Return the vectors by id."""
    table = open_rows(out)
    X = np.array(table["vector"].to_pylist(), np.float32)
    return dict(zip(table["id"].to_pylist(), X, strict=True))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twenty photos of two classes."""
    return write_tree(tmp_path / "photos", {"cat": 10, "dog": 10})


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-5), ("float16", 2e-3)])
def test_features_are_those_of_a_bare_loop(
    dtype: str, apart: float, photos: Path, tmp_path: Path
) -> None:
    counts = make(photos, tmp_path / "features", dtype=dtype).counts
    assert (counts["rows"], counts["embedded"], counts["width"]) == (20, 20, 64)
    backbone = build_fixed_backbone(SMALL)
    preprocessing = backbone.preprocessing
    assert preprocessing is not None
    for id, vector in features(tmp_path / "features").items():
        view = torch.from_numpy(evaluation_view((photos / id).read_bytes(), preprocessing))
        with torch.inference_mode():
            expected = backbone.module(normalise(view[None], preprocessing))[0].numpy()
        np.testing.assert_allclose(vector, expected, rtol=apart, atol=apart)


def test_labels_and_hashes_come_along_and_features_are_a_source(
    photos: Path, tmp_path: Path
) -> None:
    make(photos, tmp_path / "features")
    source = open_source(str(tmp_path / "features"), SourceConfig())
    shards = list(source.shards())
    assert str(vectors_of(source)) == "float16[64]"
    rows = [row for shard in shards for row in source.read(shard)]
    assert {row.labels for row in rows} == {("cat",), ("dog",)}  # type: ignore[union-attr]
    prepare_store(source, PrepareConfig(), tmp_path / "vectors")
    assert open_store(tmp_path / "vectors").classes == ("cat", "dog")


def test_a_bad_image_is_quarantined_and_zeros_are_features(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "cat" / "000.png").write_bytes(encode_image()[:60])
    monkeypatch.setattr(
        embed.Embedder, "vectors", lambda self, views: np.zeros((len(views), 64), np.float32)
    )
    counts = make(photos, tmp_path / "features").counts
    assert (counts["embedded"], counts["quarantined"]) == (19, 1)
    assert not np.any(list(features(tmp_path / "features").values()))


def test_features_that_overflow_are_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        embed.Embedder, "vectors", lambda self, views: np.full((len(views), 64), 1e6, np.float32)
    )
    with pytest.raises(SchnRayError, match=r"cat/000\.png.*not finite in float16.*dtype=float32"):
        make(photos, tmp_path / "features")
    make(photos, tmp_path / "wide", dtype="float32")


def test_an_update_runs_the_network_for_what_is_new_only(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(photos, tmp_path / "features")
    before = features(tmp_path / "features")
    (photos / "cat" / "000.png").rename(photos / "cat" / "moved.png")
    (photos / "dog" / "000.png").write_bytes(encode_image(500))
    seen: list[int] = []
    vectors = embed.Embedder.vectors
    monkeypatch.setattr(
        embed.Embedder, "vectors", lambda self, v: seen.append(len(v)) or vectors(self, v)
    )
    make(photos, tmp_path / "features", update=True)
    after = features(tmp_path / "features")
    assert set(after) == set(before) - {"cat/000.png"} | {"cat/moved.png"}
    assert sum(seen) <= 2  # the changed one, and the moved one if it came into another part
    np.testing.assert_allclose(after["cat/moved.png"], before["cat/000.png"], atol=2e-3)
    assert not np.allclose(after["dog/000.png"], before["dog/000.png"], atol=1e-2)


def test_other_weights_are_another_request(photos: Path, tmp_path: Path) -> None:
    make(photos, tmp_path / "features")
    torch.manual_seed(7)
    save_file(build_backbone(SMALL).module.state_dict(), tmp_path / "other.safetensors")
    other = SMALL.model_copy(update={"weights": str(tmp_path / "other.safetensors")})
    with pytest.raises(SchnRayError, match="backbone"):
        make(photos, tmp_path / "features", backbone=other)
    with pytest.raises(SchnRayError, match="takes vectors: there is nothing to do"):
        make(photos, tmp_path / "none", backbone=BackboneConfig(name="features:7"))


def test_a_machine_with_other_weights_is_refused(photos: Path, tmp_path: Path) -> None:
    """The driver says what the weights have to be; a worker compares them with its own."""
    expected = "0" * 64
    with pytest.raises(SchnRayError, match="has other weights on this machine"):
        embed._load_once(SMALL, expected, "float32")


def test_features_are_matched_with_a_store_by_id_and_content(photos: Path, tmp_path: Path) -> None:
    source = open_source(str(photos), SHARDS)
    prepare_store(source, PrepareConfig(), tmp_path / "store")
    make(photos, tmp_path / "features")
    store, stored = open_store(tmp_path / "store"), StoredFeatures(tmp_path / "features")
    rows = np.arange(len(store))[::-1][:7][::-1]
    of_rows = stored.of_store(store, rows)
    by_id = features(tmp_path / "features")
    for row in (rows[3], rows[0], rows[6]):
        np.testing.assert_array_equal(
            of_rows.vectors(np.array([row]))[0], by_id[str(store.ids[row])]
        )
    (photos / "dog" / "009.png").write_bytes(encode_image(900))
    make(photos, tmp_path / "other")
    with pytest.raises(SchnRayError, match=r"dog/009\.png are those of another image"):
        StoredFeatures(tmp_path / "other").of_store(store, np.arange(len(store)))
    (photos / "dog" / "009.png").unlink()
    make(photos, tmp_path / "fewer")
    with pytest.raises(SchnRayError, match=r"1 of 20 rows .* the first is dog/009\.png"):
        StoredFeatures(tmp_path / "fewer").of_store(store, np.arange(len(store)))


def test_a_damaged_file_of_features_is_not_trained_on(photos: Path, tmp_path: Path) -> None:
    prepare_store(open_source(str(photos), SHARDS), PrepareConfig(), tmp_path / "store")
    make(photos, tmp_path / "features")
    for name in ("rows-00001.arrow", "backbone/weights.safetensors"):
        file = tmp_path / "features" / name
        whole = file.read_bytes()
        file.write_bytes(whole[:-9] + b"\x00" + whole[-8:])
        settings = ("schedule.iterations=1", "backbone.name=small", "backbone.base_channels=4")
        config = train_config(None, None, settings, "csq")
        with pytest.raises(SchnRayError, match=f"{file.name} differs from its manifest"):
            train_locally(
                config, tmp_path / "store", tmp_path / "run", features=str(tmp_path / "features")
            )
        file.write_bytes(whole)
    assert read_manifest(tmp_path / "features", "features").counts["rows"] == 20


def test_shards_of_a_killed_call_are_not_embedded_again(photos: Path, tmp_path: Path) -> None:
    config = EmbedConfig(source=SHARDS, backbone=SMALL)
    done: list[int] = []

    class Killed(BaseException):
        pass

    def dies(function: Any, shards: Any) -> Any:
        for shard in list(shards)[:1]:
            yield function(shard)
        raise Killed

    def counted(function: Any, shards: Any) -> Any:
        shards = list(shards)
        done.extend(shard.number for shard in shards)
        return map_locally(function, shards)

    source = open_source(str(photos), SHARDS)
    with pytest.raises(Killed):
        embed_source(source, tmp_path / "features", config, dies)
    embed_source(source, tmp_path / "features", config, counted)
    assert done == [1, 2]
    make(photos, tmp_path / "undisturbed")
    same, other = features(tmp_path / "features"), features(tmp_path / "undisturbed")
    assert all(np.array_equal(same[id], other[id]) for id in other)


def test_weights_of_a_file_of_settings_are_used(photos: Path, tmp_path: Path) -> None:
    """The pretrained weights are only what nobody said otherwise."""
    file = tmp_path / "embed.yaml"
    file.write_text("backbone: {name: small, base_channels: 4, weights: none}\n")
    schn_ray.embed(photos, tmp_path / "features", config=file)
    with pytest.raises(SchnRayError, match="weights 'DEFAULT'"):
        schn_ray.embed(photos, tmp_path / "pretrained", backbone="small")


def test_a_killed_call_without_any_rows_is_unfinished_and_no_folder(
    photos: Path, tmp_path: Path
) -> None:
    def embedded(root: Path, out: Path) -> None:
        make(photos, out / "features")

    folder = tmp_path / "out"
    folder.mkdir()
    at_first_rows = at_change(0, lambda path: "rows-" in path and os._exit(DIED), later=True)
    killed = ends(embedded, tmp_path, folder, at_first_rows)
    assert killed.code == DIED
    with pytest.raises(SchnRayError, match="features is unfinished: run the command that made it"):
        open_source(str(folder / "features"), SourceConfig())
