"""A released model as a network of torch; ``onnx_hasher`` runs its export without torch.

It loads without Ray, on a CPU or a GPU; nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from schn_ray.core.atomic_files import sha256_file, write_atomically
from schn_ray.core.checksums import CHECKSUMS, checksum_lines
from schn_ray.core.errors import SchnRayError
from schn_ray.data.images import normalise
from schn_ray.models.backbones.build import rebuild_backbone
from schn_ray.models.backbones.saved import write_weights
from schn_ray.models.base_hasher import BaseHasher
from schn_ray.models.config import PrecisionName
from schn_ray.models.encoder import Encoder
from schn_ray.models.heads.build import build_head
from schn_ray.models.model_files import (
    CARD,
    SPEC,
    WEIGHTS,
    HasherSpec,
    fingerprint,
    model_directory,
    read_spec,
)
from schn_ray.models.precision import Precision


class Hasher(BaseHasher):
    """A network of torch: images or vectors in, packed binary codes out.

    Args:
        network: backbone and head.
        spec: what they are built from.
        device: where they run; by default a GPU if torch has one.
        precision: of the network; ``bf16`` is faster on GPUs, and changes a few bits.
    """

    def __init__(
        self,
        network: Encoder,
        spec: HasherSpec,
        device: torch.device | None = None,
        precision: PrecisionName = "float32",
    ) -> None:
        self.device = device or best_device()
        self.precision = Precision(precision, self.device)
        self.network = network.to(self.device).eval()
        self.spec = spec

    def __repr__(self) -> str:
        """Return one line: bits, backbone, head, input and device."""
        return (
            f"Hasher({self.bits} bits, backbone {self.spec.backbone}, head {self.spec.head.kind}, "
            f"{self._expected()}, {self.device})"
        )

    def relaxed(self, views: NDArray[Any]) -> Tensor:
        """Return the relaxed codes U [b, K] of evaluation views [b, 3, S, S] or vectors [b, d]."""
        _, U = self._forward(views)
        return U.float().cpu()

    def relaxed_array(self, views: NDArray[Any]) -> NDArray[np.float32]:
        """Return the relaxed codes [b, K] in numpy's memory."""
        return self.relaxed(views).numpy()

    def features(self, views: NDArray[Any]) -> Tensor:
        """Return the features F [b, d] of evaluation views [b, 3, S, S] or vectors [b, d]."""
        F, _ = self._forward(views)
        return F.float().cpu()

    def output_arrays(self, views: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return features [b, d] and relaxed codes [b, K] of evaluation views, or of vectors."""
        F, U = self._forward(views)
        return F.float().cpu().numpy(), U.float().cpu().numpy()

    def feature_array(self, views: NDArray[Any]) -> NDArray[np.float32]:
        """Return the features [b, d] in numpy's memory."""
        return self.features(views).numpy()

    def of_features(self) -> Hasher:
        """Return the head alone as a hasher of the backbone's features."""
        if self.spec.preprocessing is None:
            return self
        spec = self.spec.model_copy(update={"preprocessing": None})
        network = Encoder(nn.Identity(), self.network.head)
        return Hasher(network, spec, self.device, self.precision.name)

    def save(self, path: Path, card: str) -> None:
        """Write the artifact: weights, spec, model card, and SHA-256 of the first two.

        Args:
            path: the model's directory; created where it is missing.
            card: the model card's text, in Markdown.

        Raises:
            CannotWrite: the disk is full, say.
        """
        write_weights(self.network, path / WEIGHTS)
        spec = yaml.safe_dump(self.spec.recorded(), sort_keys=False)
        write_atomically(path / SPEC, spec.encode())
        write_atomically(path / CARD, card.encode())
        digests = {name: sha256_file(path / name) for name in (WEIGHTS, SPEC)}
        write_atomically(path / CHECKSUMS, checksum_lines(digests).encode())

    def _forward(self, views: NDArray[Any]) -> tuple[Tensor, Tensor]:
        self._require_input(views)
        if self.input == "vectors":
            views = views.astype(np.float32)  # a copy: torch warns of memory that it may not write
        batch = torch.from_numpy(views).to(self.device, non_blocking=True)
        with torch.inference_mode(), self.precision.for_networks():
            return features_and_relaxed(self.network, self.spec, batch)


def features_and_relaxed(network: Encoder, spec: HasherSpec, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return features F [b, d] and relaxed codes U [b, K].

    Args:
        network: backbone and head.
        spec: what they are built from.
        rows: uint8 views [b, 3, S, S], or float32 vectors [b, d].
    """
    p = spec.preprocessing
    F, h = network(rows if p is None else normalise(rows, p))
    if h.shape[1] > spec.bits:  # a shorter length of nested codes
        h = h[:, : spec.bits]
    return F, torch.tanh(h) if spec.activation == "tanh" else h


def best_device() -> torch.device:
    """Return the GPU if torch sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def load_network(
    path: str | Path, device: torch.device | None = None, precision: PrecisionName = "float32"
) -> Hasher:
    """Load a hasher from a finished run or a model directory.

    Args:
        path: the directory, or its URI.
        device: see ``Hasher``.
        precision: see ``Hasher``.

    Raises:
        SchnRayError: no such model, or a damaged one.
    """
    path = model_directory(path)
    try:
        model = fingerprint(path)
        spec = read_spec(path / SPEC)
        state = load_file(path / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise SchnRayError(f"{path} is not a complete model: {error}") from error
    backbone = rebuild_backbone(spec.backbone, spec.base_channels, spec.architecture)
    network = Encoder(backbone, build_head(spec.head, spec.width, spec.bits))
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise SchnRayError(f"{path / WEIGHTS} does not fit {path / SPEC}: {error}") from error
    hasher = Hasher(network, spec, device, precision)
    hasher.fingerprint = model
    return hasher
