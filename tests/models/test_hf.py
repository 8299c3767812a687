"""transformers' vision models as backbones: small ones, saved as the hub has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from schn_ray.core.errors import SchnRayError
from schn_ray.models.backbones.backbone import Backbone
from schn_ray.models.backbones.build import build_backbone, rebuild_backbone
from schn_ray.models.config import BackboneConfig

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
VISION = SIZES | {"image_size": 32, "patch_size": 8}
CONFIGS: dict[str, Any] = {
    "dinov2": transformers.Dinov2Config(**VISION),
    "clip": transformers.CLIPConfig(vision_config=VISION, text_config=SIZES),
    "siglip": transformers.SiglipConfig(vision_config=VISION, text_config=SIZES),
    "vit": transformers.ViTConfig(**VISION),
    "resnet": transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1]),
}


def write_hub_directory(path: Path, kind: str) -> Any:
    """Write what the hub has of a model; return the model."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(CONFIGS[kind]).eval()
    model.save_pretrained(path)
    transformers.CLIPImageProcessor(
        size={"shortest_edge": 40},
        crop_size={"height": 32, "width": 32},
        image_mean=[0.1, 0.2, 0.3],
        image_std=[0.4, 0.5, 0.6],
    ).save_pretrained(path)
    return model


def build(path: Path, size: int | None = None) -> Backbone:
    weights = str(path / "model.safetensors")
    return build_backbone(BackboneConfig(name="hf:owner/name", weights=weights, image_size=size))


@pytest.mark.parametrize("kind", CONFIGS)
def test_features_are_the_models_own_and_come_back_without_a_hub(kind: str, tmp_path: Path) -> None:
    whole = write_hub_directory(tmp_path, kind)
    backbone = build(tmp_path)
    vision = getattr(whole, "vision_model", whole)
    images = torch.randn(2, 3, 32, 32)
    expected = vision(pixel_values=images).pooler_output.flatten(1)
    features = backbone.module.eval()(images)
    torch.testing.assert_close(features, expected)
    assert features.shape == (2, backbone.width)
    assert backbone.architecture is not None
    again = rebuild_backbone("hf:owner/name", 16, backbone.architecture)
    again.load_state_dict(backbone.module.state_dict())
    assert torch.equal(again.eval()(images), features)
    assert str(tmp_path) not in str(backbone.architecture)


def test_preprocessing_is_the_models(tmp_path: Path) -> None:
    write_hub_directory(tmp_path, "dinov2")
    p = build(tmp_path).preprocessing
    assert p is not None
    assert (p.resize, p.crop, p.interpolation) == (40, 32, "bicubic")
    assert (p.mean, p.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


@pytest.mark.parametrize(
    ("processor", "sizes", "mean"),
    [
        (transformers.ConvNextImageProcessor(size={"shortest_edge": 224}), (256, 224), 0.5),
        (transformers.ConvNextImageProcessor(size={"shortest_edge": 384}), (384, 384), 0.5),
        (transformers.ViTImageProcessor(size={"height": 64, "width": 64}), (64, 64), 0.5),
        (transformers.ViTImageProcessor(do_normalize=False), (224, 224), 0.0),
    ],
)
def test_preprocessing_of_other_processors(
    processor: Any, sizes: tuple[int, int], mean: float, tmp_path: Path
) -> None:
    write_hub_directory(tmp_path, "resnet")
    processor.save_pretrained(tmp_path)
    p = build(tmp_path).preprocessing
    assert p is not None
    assert ((p.resize, p.crop), p.mean[0]) == (sizes, mean)
    assert p.interpolation == ("bicubic" if sizes[0] in (256, 384) else "bilinear")


@pytest.mark.parametrize("kind", CONFIGS)
def test_images_of_another_size(kind: str, tmp_path: Path) -> None:
    write_hub_directory(tmp_path, kind)
    backbone = build(tmp_path, size=64)
    assert backbone.preprocessing is not None
    assert (backbone.preprocessing.resize, backbone.preprocessing.crop) == (80, 64)
    assert backbone.module(torch.randn(2, 3, 64, 64)).shape == (2, backbone.width)


def test_a_pooler_that_nobody_trained_is_left_out(tmp_path: Path) -> None:
    whole = write_hub_directory(tmp_path, "vit")
    state = load_file(tmp_path / "model.safetensors")
    kept = {key: value for key, value in state.items() if "pooler" not in key}
    assert len(kept) < len(state)
    save_file(kept, tmp_path / "model.safetensors")
    backbone = build(tmp_path)
    images = torch.randn(2, 3, 32, 32)
    class_token = whole(pixel_values=images).last_hidden_state[:, 0]
    torch.testing.assert_close(backbone.module.eval()(images), class_token)
    again = rebuild_backbone("hf:owner/name", 16, backbone.architecture)
    again.load_state_dict(backbone.module.state_dict())


def test_files_that_are_missing_or_do_not_fit(tmp_path: Path) -> None:
    write_hub_directory(tmp_path, "dinov2")
    with pytest.raises(SchnRayError, match="not a multiple"):
        build(tmp_path, size=36)
    state = load_file(tmp_path / "model.safetensors")
    save_file(dict(list(state.items())[5:]), tmp_path / "model.safetensors")
    with pytest.raises(SchnRayError, match="weights of another model: missing"):
        build(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(SchnRayError, match=r"has no preprocessor_config.json: backbone hf:owner"):
        build(tmp_path)


def test_without_a_network_the_way_out_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host.")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", fail)
    with pytest.raises(SchnRayError, match=r"no route to host\. Without.*config.json and prepro"):
        build_backbone(BackboneConfig(name="hf:owner/name", weights="DEFAULT"))
    with pytest.raises(SchnRayError, match="not a file"):
        build(tmp_path)
