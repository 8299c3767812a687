"""A small model that nobody trained: what encoding needs, in milliseconds."""

from pathlib import Path

import torch

from schn_ray.data.images import Preprocessing
from schn_ray.models.backbones import build_backbone
from schn_ray.models.encoder import ImageNetwork
from schn_ray.models.hasher import Hasher, HasherSpec


def write_model(path: Path, bits: int = 12, size: int = 8, seed: int = 0) -> Path:
    """Write a model directory; another seed, another model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        backbone, feature_dim = build_backbone("small", None, 4)
        network = ImageNetwork(backbone, feature_dim, bits).eval()
        with torch.no_grad():  # else most images have the same code
            F_v, _ = network(torch.randn(64, 3, size, size))
            network.hash.bias.copy_(-F_v.mean(0) @ network.hash.weight.T)
    spec = HasherSpec(
        bits=bits,
        backbone="small",
        base_channels=4,
        preprocessing=Preprocessing(resize=size, crop=size),
    )
    Hasher(network, spec).save(path, "# A model")
    return path
