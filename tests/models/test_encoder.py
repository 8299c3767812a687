"""A backbone and a head: features and h, as the network before them computed both."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from schn_ray.models.backbones.build import build_backbone
from schn_ray.models.config import BackboneConfig, HeadConfig
from schn_ray.models.encoder import Encoder
from schn_ray.models.heads.build import build_head


def encoder(name: str, head: HeadConfig | None = None, frozen_norm: bool = False) -> Encoder:
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(name=name, base_channels=5))
    spec = (head or HeadConfig()).spec()
    return Encoder(backbone.module, build_head(spec, backbone.width, 12), frozen_norm)


def test_the_same_seed_draws_the_same_numbers_as_a_plain_layer_would() -> None:
    network = encoder("small")
    torch.manual_seed(0)
    backbone = build_backbone(BackboneConfig(name="small", base_channels=5))
    layer = nn.Linear(backbone.width, 12)
    assert torch.equal(network.head.linear.weight, layer.weight)
    assert torch.equal(network.head.linear.bias, layer.bias)
    assert {name.split(".")[0] for name in network.state_dict()} == {"backbone", "head"}


def test_the_head_reads_the_features() -> None:
    network = encoder("small").eval()
    F, h = network(torch.randn(4, 3, 32, 32))
    torch.testing.assert_close(h, F @ network.head.linear.weight.T + network.head.linear.bias)


def test_a_hidden_layer_of_the_given_width() -> None:
    network = encoder("features:7", HeadConfig(kind="mlp", hidden=9))
    x = torch.randn(4, 7)
    F, h = network(x)
    assert torch.equal(F, x)
    first, second = network.head.hidden, network.head.linear
    assert first.weight.shape == (9, 7)
    hidden = (x @ first.weight.T + first.bias).clamp(min=0)
    torch.testing.assert_close(h, hidden @ second.weight.T + second.bias)


@pytest.mark.parametrize("frozen_norm", [True, False])
def test_frozen_normalisation_keeps_its_statistics(frozen_norm: bool) -> None:
    network = encoder("small", frozen_norm=frozen_norm).train()
    before = network.backbone.stages[1].running_mean.clone()
    network(torch.randn(4, 3, 32, 32))
    assert torch.equal(before, network.backbone.stages[1].running_mean) == frozen_norm
