"""open_clip's image networks as backbones."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import pytest
import torch

from schn_ray.core.errors import SchnRayError
from schn_ray.models.backbones.build import build_backbone, rebuild_backbone
from schn_ray.models.config import BackboneConfig

NAME, TINY = "ViT-B-32", "ViT-tiny-of-the-tests"
SETTINGS = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "patch_size": 32},
    "text_cfg": {"context_length": 8, "vocab_size": 100, "width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    folder = tmp_path_factory.mktemp("clip")
    (folder / f"{TINY}.json").write_text(json.dumps(SETTINGS))
    open_clip.add_model_config(folder / f"{TINY}.json")
    torch.manual_seed(0)
    model = open_clip.create_model(TINY).eval()
    torch.save(model.state_dict(), folder / "w.pt")
    return model, folder / "w.pt"


def test_a_file_of_the_whole_model_gives_its_image_features(
    whole: tuple[torch.nn.Module, Path],
) -> None:
    model, path = whole
    name = f"open_clip:{TINY}"
    backbone = build_backbone(BackboneConfig(name=name, weights=str(path), image_size=64))
    images = torch.randn(2, 3, 64, 64)
    features = backbone.module.eval()(images)
    torch.testing.assert_close(features, model.encode_image(images))
    assert features.shape == (2, backbone.width) == (2, 24)
    assert backbone.architecture is not None
    again = rebuild_backbone(name, 16, backbone.architecture)
    again.load_state_dict(backbone.module.state_dict())
    assert torch.equal(again.eval()(images), features)


def test_position_embeddings_of_another_size_are_resampled(
    whole: tuple[torch.nn.Module, Path],
) -> None:
    name = f"open_clip:{TINY}"
    backbone = build_backbone(BackboneConfig(name=name, weights=str(whole[1]), image_size=96))
    assert backbone.module.positional_embedding.shape == (10, 64)
    expected = open_clip.create_model(TINY, force_image_size=96).eval()
    open_clip.load_checkpoint(expected, str(whole[1]))
    images = torch.randn(2, 3, 96, 96)
    torch.testing.assert_close(backbone.module.eval()(images), expected.encode_image(images))


def test_a_tag_sets_activation_and_preprocessing() -> None:
    backbone = build_backbone(BackboneConfig(name=f"open_clip:{NAME}/openai"))
    assert backbone.architecture is not None
    assert backbone.architecture["quick_gelu"] is True
    p = backbone.preprocessing
    assert p is not None
    assert (p.resize, p.crop, p.interpolation) == (224, 224, "bicubic")
    assert p.mean == open_clip.OPENAI_DATASET_MEAN
    assert p.std == open_clip.OPENAI_DATASET_STD


def refused(message: str, **settings: object) -> None:
    with pytest.raises(SchnRayError, match=message):
        build_backbone(BackboneConfig.model_validate(settings))


def test_names_sizes_and_weights_that_do_not_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused("did you mean 'open_clip:ViT-B-32'", name="open_clip:ViTB-32")
    refused("TAG, with one of the tags openai", name=f"open_clip:{NAME}/opnai")
    refused("TAG, with one of the tags", name=f"open_clip:{NAME}", weights="DEFAULT")
    refused("32 pixels.* 100 is not", name=f"open_clip:{NAME}", image_size=100)
    refused("not a file", name=f"open_clip:{NAME}/openai", weights="openai", image_size=64)

    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("open_clip.pretrained.download_pretrained", fail)
    refused(
        "no route to host.*--weights FILE",
        name=f"open_clip:{NAME}/openai",
        weights="DEFAULT",
        image_size=64,
    )
