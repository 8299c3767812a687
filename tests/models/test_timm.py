"""timm's models as backbones: without a classifier, from files, and built again without a hub."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from schn_ray.core.errors import SchnRayError
from schn_ray.models.backbones.build import build_backbone, rebuild_backbone
from schn_ray.models.config import BackboneConfig

TINY = "timm:vit_tiny_patch16_224"


def images(size: int) -> torch.Tensor:
    return torch.randn(2, 3, size, size)


def test_a_file_of_the_whole_classifier_gives_its_features(tmp_path: Path) -> None:
    whole = timm.create_model("mobilenetv3_small_050").eval()
    save_file(whole.state_dict(), tmp_path / "w.safetensors")
    config = BackboneConfig(
        name="timm:mobilenetv3_small_050", weights=str(tmp_path / "w.safetensors"), image_size=64
    )
    backbone = build_backbone(config)
    views = images(64)
    features = backbone.module.eval()(views)
    assert features.shape == (2, backbone.width) == (2, 1024)
    torch.testing.assert_close(whole.get_classifier()(features), whole(views))


def test_position_embeddings_of_another_size_are_resampled(tmp_path: Path) -> None:
    whole = timm.create_model("vit_tiny_patch16_224").eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    config = BackboneConfig(name=TINY, weights=str(tmp_path / "w.pth"), image_size=64)
    backbone = build_backbone(config)
    assert backbone.module.pos_embed.shape == (1, 17, 192)
    expected = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=0).eval()
    timm.models.load_checkpoint(
        expected,
        str(tmp_path / "w.pth"),
        strict=False,
        filter_fn=timm.models.vision_transformer.checkpoint_filter_fn,
    )
    views = images(64)
    torch.testing.assert_close(backbone.module.eval()(views), expected(views))


@pytest.mark.parametrize("name", ["timm:mobilenetv3_small_050", "timm:resnet18", TINY])
def test_a_saved_network_is_built_again(name: str) -> None:
    backbone = build_backbone(BackboneConfig(name=name, image_size=64))
    again = rebuild_backbone(name, 16, backbone.architecture)
    again.load_state_dict(backbone.module.state_dict())
    views = images(64)
    assert torch.equal(again.eval()(views), backbone.module.eval()(views))


def test_normalisation_is_torchs_own_and_can_be_shared() -> None:
    """Else two workers would normalise by their own rows, and a GPU's would lose activations."""
    module = build_backbone(BackboneConfig(name="timm:mobilenetv3_small_050")).module
    norms = {type(m) for m in module.modules() if isinstance(m, torch.nn.BatchNorm2d)}
    assert norms == {torch.nn.BatchNorm2d}
    plain = timm.create_model("mobilenetv3_small_050", num_classes=0)
    for ours, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        ours.data.copy_(theirs)
    views = images(64)
    torch.testing.assert_close(module.train()(views), plain.train()(views))
    torch.testing.assert_close(module.eval()(views), plain.eval()(views))


def test_preprocessing_is_timms() -> None:
    p = build_backbone(BackboneConfig(name="timm:tf_efficientnet_lite0")).preprocessing
    assert p is not None
    assert (p.resize, p.crop, p.mean, p.interpolation) == (256, 224, (0.5, 0.5, 0.5), "bicubic")
    p = build_backbone(BackboneConfig(name="timm:resnet18.tv_in1k", image_size=112)).preprocessing
    assert p is not None
    assert (p.resize, p.crop, p.interpolation) == (128, 112, "bilinear")


def refused(message: str, **settings: object) -> None:
    with pytest.raises(SchnRayError, match=message):
        build_backbone(BackboneConfig.model_validate(settings))


def test_names_sizes_and_weights_that_do_not_exist(tmp_path: Path) -> None:
    refused("did you mean 'timm:resnet18'", name="timm:resent18")
    refused("no such tag. Tags: .*resnet18.a1_in1k", name="timm:resnet18.nonsense")
    refused("patches of 16 pixels.* 220 is not .* 208 and 224 are", name=TINY, image_size=220)
    refused("not a file.*--weights DEFAULT", name="timm:resnet18", weights="IMAGENET1K_V1")
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "w.safetensors")
    refused(
        "weights of (another model|other shapes)",
        name="timm:resnet18",
        weights=str(tmp_path / "w.safetensors"),
    )


def test_without_a_network_the_way_out_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("timm.models._builder.load_pretrained", fail)
    refused(
        "backbone timm:resnet18: no route to host.*--weights FILE",
        name="timm:resnet18",
        weights="DEFAULT",
    )


@pytest.mark.parametrize(
    ("name", "module", "message"),
    [
        ("timm:resnet18", "timm", r"timm:resnet18: needs timm: pip install 'schn-ray\[timm\]'"),
        ("hf:a/b", "transformers", r"needs transformers: pip install 'schn-ray\[hf\]'"),
        ("open_clip:RN50", "open_clip", r"needs open_clip: pip install 'schn-ray\[open-clip\]'"),
    ],
)
def test_a_missing_library_is_named(
    name: str, module: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    refused(message, name=name)
