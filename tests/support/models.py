"""A small model that nobody trained: what encoding needs, in milliseconds."""

from pathlib import Path

import torch

from schn_ray.data.images import Preprocessing
from schn_ray.models.backbones.build import build_backbone
from schn_ray.models.config import BackboneConfig, HeadSpec
from schn_ray.models.encoder import Encoder
from schn_ray.models.hasher import Hasher
from schn_ray.models.heads.linear import LinearHead
from schn_ray.models.model_files import HasherSpec


def write_model(path: Path, bits: int = 12, size: int = 8, seed: int = 0) -> Path:
    """Write a model directory; another seed, another model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone = build_backbone(BackboneConfig(name="small", base_channels=4))
        head = LinearHead(backbone.width, bits)
        encoder = Encoder(backbone.module, head).eval()
        with torch.no_grad():  # else most images have the same code
            F, _ = encoder(torch.randn(64, 3, size, size))
            head.linear.bias.copy_(-F.mean(0) @ head.linear.weight.T)
    spec = HasherSpec(
        bits=bits,
        backbone="small",
        base_channels=4,
        width=backbone.width,
        preprocessing=Preprocessing(resize=size, crop=size),
        head=HeadSpec(),
    )
    Hasher(encoder, spec).save(path, "# A model")
    return path
