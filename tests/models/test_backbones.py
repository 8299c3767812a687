from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
from safetensors.torch import save_file
from support.trained import photo_store
from torch import nn
from torchvision import models

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.models.backbones.backbone import Backbone
from schn_ray.models.backbones.build import build_backbone as build
from schn_ray.models.backbones.build import require_backbone
from schn_ray.models.config import BackboneConfig

# the smallest of each family; RegNet's builder reads values, which meta tensors have not
FAMILIES = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "resnet18",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "swin_t",
    "swin_v2_t",
    "vgg11_bn",
    "vit_b_32",
]


def build_backbone(name: str, weights: str | None = None, base_channels: int = 16) -> Backbone:
    return build(BackboneConfig(name=name, weights=weights, base_channels=base_channels))


def view_sizes(name: str) -> tuple[int, int]:
    preprocessing = build_backbone(name).preprocessing
    assert preprocessing is not None
    return preprocessing.resize, preprocessing.crop


def features_fit(name: str, device: str) -> None:
    with torch.device(device):
        backbone = build_backbone(name)
        size = backbone.preprocessing.crop if backbone.preprocessing else 0
        features = backbone.module.train()(torch.zeros(2, 3, size, size))
    assert features.shape == (2, backbone.width)


@pytest.mark.parametrize("name", ["small", *FAMILIES])
def test_every_classifier_gives_plain_features_in_train_mode(name: str) -> None:
    features_fit(name, "meta")


def test_regnet_gives_plain_features() -> None:
    features_fit("regnet_x_400mf", "cpu")


def test_alexnet_ends_after_its_last_relu() -> None:
    backbone = build_backbone("torchvision:alexnet")
    features = backbone.module.eval()(torch.randn(2, 3, 224, 224))
    assert backbone.width == 4096
    assert features.min() == 0 < features.max()


def test_a_state_dict_of_the_whole_classifier_gives_its_features(tmp_path: Path) -> None:
    whole = models.resnet18().eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    backbone = build_backbone("resnet18", str(tmp_path / "w.pth")).module
    images = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(whole.fc(backbone.eval()(images)), whole(images))


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_in_a_file_are_left_out(name: str, tmp_path: Path) -> None:
    # as torchvision's own pretrained model: it turns ImageNet's normalisation into its own
    whole = models.get_model(name, init_weights=False, transform_input=True).eval()
    torch.save(whole.state_dict(), tmp_path / "w.pth")
    backbone = build_backbone(name, str(tmp_path / "w.pth")).module
    images = torch.randn(1, 3, 299, 299)
    torch.testing.assert_close(whole.fc(backbone.eval()(images)), whole(images))


def test_densenets_old_names_and_mnasnet_without_a_version(tmp_path: Path) -> None:
    whole = models.densenet121().eval()
    old = {
        k.replace("norm1", "norm.1")
        .replace("norm2", "norm.2")
        .replace("conv1", "conv.1")
        .replace("conv2", "conv.2"): v
        for k, v in whole.state_dict().items()
        if "num_batches_tracked" not in k
    }
    torch.save(old, tmp_path / "dense.pth")
    backbone = build_backbone("densenet121", str(tmp_path / "dense.pth")).module
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(whole.classifier(backbone.eval()(images)), whole(images))
    save_file(models.mnasnet0_5().state_dict(), tmp_path / "mnasnet.safetensors")
    build_backbone("mnasnet0_5", str(tmp_path / "mnasnet.safetensors"))


def test_weights_of_a_small_network_come_back(tmp_path: Path) -> None:
    saved = build_backbone("small", None, base_channels=3).module
    save_file(saved.state_dict(), tmp_path / "w.safetensors")
    backbone = build_backbone("small", str(tmp_path / "w.safetensors"), base_channels=3).module
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(saved(images), backbone(images))


def garbage(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


def cut_short(path: Path) -> None:
    torch.save(build_backbone("small", None, 2).module.state_dict(), path)
    path.write_bytes(path.read_bytes()[:1000])


def a_whole_module(path: Path) -> None:
    torch.save(nn.Linear(2, 2), path)


def a_checkpoint(path: Path) -> None:
    torch.save({"epoch": 3, "model": {}}, path)


def another_model(path: Path) -> None:
    torch.save(models.squeezenet1_1().state_dict(), path)


def another_width(path: Path) -> None:
    torch.save(build_backbone("small", None, 8).module.state_dict(), path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize(
    ("write", "message"),
    [
        (garbage, "holds no weights"),
        (cut_short, "holds no weights"),
        (a_whole_module, "holds no weights"),
        (a_checkpoint, "expected a state dict|holds no weights"),
        (another_model, "another model|holds no weights"),
        (another_width, "other shapes|holds no weights"),
    ],
)
def test_a_file_that_does_not_fit_is_an_error(
    write: Callable[[Path], None], message: str, suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"w{suffix}"
    write(path)
    with pytest.raises(SchnRayError, match=message) as caught:
        build_backbone("small", str(path))
    assert str(path) in str(caught.value)


def test_unknown_names_say_which_are_known() -> None:
    with pytest.raises(SchnRayError, match="did you mean 'resnet50'"):
        build_backbone("resent50", None)
    with pytest.raises(SchnRayError, match="IMAGENET1K_V2"):
        build_backbone("resnet50", "IMAGENET_V2")
    with pytest.raises(SchnRayError, match="--weights none"):
        build_backbone("small", "DEFAULT")
    with pytest.raises(SchnRayError, match=r"no backbone 'smal'.*'small'"):
        build_backbone("smal")


@pytest.mark.parametrize("error", [URLError("no route to host"), TimeoutError("slow")])
def test_without_a_network_both_ways_out_are_named(
    error: OSError, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", fail)
    with pytest.raises(SchnRayError, match=r"--weights FILE.*--weights none"):
        build_backbone("resnet18", "DEFAULT")


def test_weights_by_name_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = models.resnet18()
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: whole.state_dict()
    )
    backbone = build_backbone("resnet18", "IMAGENET1K_V1").module
    assert torch.equal(backbone.state_dict()["conv1.weight"], whole.conv1.weight)
    scratch = build_backbone("resnet18", "none").module
    assert not torch.equal(scratch.state_dict()["conv1.weight"], whole.conv1.weight)


@pytest.mark.parametrize("size", [8, 32, 45])
def test_small_takes_any_size_and_reads_each_image_alone(size: int) -> None:
    torch.manual_seed(0)
    module = build_backbone("small", base_channels=5).module.eval()
    images = torch.randn(4, 3, size, size)
    features = module(images)
    assert features.shape == (4, 80)
    torch.testing.assert_close(module(images[2:3]), features[2:3])


def test_preprocessing_by_backbone() -> None:
    assert view_sizes("small") == (32, 32)
    assert view_sizes("alexnet") == view_sizes("resnet18") == (256, 224)
    assert view_sizes("inception_v3") == (342, 299)
    small, alexnet = (build_backbone(n).preprocessing for n in ("small", "alexnet"))
    assert small is not None
    assert small.mean == (0.5, 0.5, 0.5)
    assert alexnet is not None
    assert alexnet.mean == (0.485, 0.456, 0.406)


def test_one_network_has_one_name() -> None:
    assert BackboneConfig(name="torchvision:resnet18").name == "resnet18"


def test_vectors_need_no_network() -> None:
    backbone = build_backbone("features:7")
    vectors = torch.randn(3, 7)
    assert torch.equal(backbone.module(vectors), vectors)
    assert (backbone.width, backbone.preprocessing) == (7, None)
    with pytest.raises(SchnRayError, match="features:512"):
        build_backbone("features:many")
    with pytest.raises(SchnRayError, match="has no weights"):
        build_backbone("features:7", "DEFAULT")
    with pytest.raises(SchnRayError, match="one of the prefixes torchvision:, timm:, hf:"):
        build_backbone("keras:resnet50")


@pytest.mark.parametrize("name", ["vit_b_16", "maxvit_t"])
def test_a_network_of_one_size_says_so(name: str) -> None:
    config = BackboneConfig(name=name, image_size=16)
    message = f"{name} takes images of 224 pixels.*is 16.*--set backbone.image_size=224"
    with pytest.raises(SchnRayError, match=message):
        require_backbone(config)
    require_backbone(BackboneConfig(name=name, image_size=224))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "resnt50"}, "did you mean 'resnet50'"),
        ({"name": "timm:resnt50"}, "did you mean 'timm:resnet50'"),
        ({"name": "tim:resnet50"}, "expected one of the prefixes"),
        ({"name": "resnet50", "weights": "IMAGENET1K_V9"}, "nor the name of pretrained weights"),
    ],
)
def test_names_are_looked_at_before_any_work(
    settings: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SchnRayError, match=message):
        require_backbone(BackboneConfig.model_validate(settings))
    store = photo_store(tmp_path, {"cat": 6, "dog": 6})
    monkeypatch.setattr("schn_ray.cluster.session.ray_session", None)  # Ray is not started
    options = {"backbone": settings["name"], "weights": settings.get("weights")}
    with pytest.raises(SchnRayError, match=message):
        schn_ray.train(store, tmp_path / "run", workers=2, **options)
    assert not (tmp_path / "run").exists()
