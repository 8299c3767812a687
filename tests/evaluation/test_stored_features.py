"""An evaluation of stored features: the figures of the images, which are not decoded again."""

from pathlib import Path

import numpy as np
import pytest
from support.image_files import write_tree
from support.users import TINY

from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.data import images
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.shards import image_views
from schn_ray.data.shards.map_shards import map_locally
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.evaluation import features
from schn_ray.evaluation.config import ControlsConfig, EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.results import read_figures
from schn_ray.models.config import BackboneConfig
from schn_ray.models.embed import EmbedConfig, embed_source
from schn_ray.models.load import load
from schn_ray.training.config import train_config
from schn_ray.training.rows import settings_of_inputs
from schn_ray.training.run import train_locally

CONFIG = EvaluateConfig(examples=2, controls=ControlsConfig(train_rows=20))
BACKBONE = BackboneConfig(name="small", base_channels=4, image_size=8)


def embed(source: Path, out: Path, backbone: BackboneConfig = BACKBONE) -> None:
    # float32, so that codes of features are those of images to the bit
    config = EmbedConfig(backbone=backbone, dtype="float32")
    embed_source(open_source(str(source), SourceConfig()), out, config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store, features of its photos and of more, and a run whose head was trained on them."""
    folder = tmp_path_factory.mktemp("stored-features")
    write_tree(folder / "all", {"cat": 20, "dog": 20, "ant": 5})
    embed(folder / "all", folder / "features")
    write_tree(folder / "some", {"cat": 20, "dog": 20})
    source = open_source(str(folder / "some"), SourceConfig(shard_rows=9))
    prepare_store(source, PrepareConfig(), folder / "store")
    embed(folder / "store", folder / "of-store")
    one = ("bits=12", "schedule.iterations=1", "schedule.epochs=1", "optimiser.learning_rate=0.01")
    given = settings_of_inputs("", str(folder / "of-store"))
    config = train_config(None, None, one, "csq", given)
    train_locally(config, folder / "store", folder / "run", features=str(folder / "of-store"))
    evaluate_run(folder / "run", folder / "store", folder / "of-images", CONFIG)
    return folder


def refuse(*_: object) -> None:
    raise AssertionError("an image is decoded")


@pytest.mark.parametrize("name", ["of-store", "features"])
def test_figures_are_those_of_the_images(
    folder: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (features, image_views, images):
        monkeypatch.setattr(module, "evaluation_view", refuse)
    arguments = folder / "run", folder / "store", tmp_path / "e", CONFIG, map_locally
    manifest = evaluate_run(*arguments, features=folder / name)
    expected, measured = read_figures(folder / "of-images"), read_figures(tmp_path / "e")
    assert expected.map is not None
    cosine = []
    for each in (expected, measured):
        assert each.controls is not None
        score = each.controls.scores["cosine"]
        assert score is not None
        cosine.append(score.mean)
    assert cosine[1] == pytest.approx(cosine[0], abs=0.02)  # features of images are float16
    none = {"controls": None}
    assert measured.model_copy(update=none) == expected.model_copy(update=none)
    assert manifest.made_from["features"] == read_manifest(folder / name, "features").fingerprint
    with pytest.raises(AlreadyDone):
        evaluate_run(*arguments, features=folder / name)
    with pytest.raises(SchnRayError, match="features"):  # another request
        evaluate_run(*arguments)


def test_rows_get_their_own_features_in_any_order(folder: Path) -> None:
    store = open_store(folder / "store")
    given = features.given_features(folder / "features", store, load(folder / "run").spec)
    rows = np.array([7, 0, 33])
    own = features.features_of(folder / "run", store, rows, map_locally)
    of_features = features.features_of(folder / "run", store, rows, map_locally, given)
    np.testing.assert_allclose(of_features, own, rtol=1e-3, atol=1e-4)  # own ones are float16


def test_features_of_another_backbone_are_refused(folder: Path, tmp_path: Path) -> None:
    other = BACKBONE.model_copy(update={"image_size": 16})  # the same weights, other pixels
    embed(folder / "store", tmp_path / "other", other)
    with pytest.raises(SchnRayError, match="the model's backbone"):
        evaluate_run(
            folder / "run", folder / "store", tmp_path / "e", CONFIG, features=tmp_path / "other"
        )
    assert not (tmp_path / "e").exists()  # so that the next request is not another one


def test_a_model_whose_backbone_was_trained_has_no_features(folder: Path, tmp_path: Path) -> None:
    config = train_config("digits", None, (*TINY, "schedule.iterations=1", "schedule.epochs=1"))
    train_locally(config, folder / "store", tmp_path / "run")
    arguments = tmp_path / "run", folder / "store", tmp_path / "e", CONFIG
    with pytest.raises(SchnRayError, match="the model's backbone"):
        evaluate_run(*arguments, features=folder / "features")


def test_a_store_with_other_rows_is_refused(folder: Path, tmp_path: Path) -> None:
    write_tree(tmp_path / "more", {"cat": 20, "dog": 30})
    source = open_source(str(tmp_path / "more"), SourceConfig())
    prepare_store(source, PrepareConfig(), tmp_path / "store")
    config = CONFIG.model_copy(update={"audit": "report"})  # some were trained on
    arguments = folder / "run", tmp_path / "store", tmp_path / "e", config
    with pytest.raises(SchnRayError, match="have no features"):
        evaluate_run(*arguments, features=folder / "features")
