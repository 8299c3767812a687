"""The released artifact: backbone and head, and all it takes to run them; nothing is unpickled.

A model directory holds ``weights.safetensors``, ``hasher.yaml``, ``SHA256SUMS`` of these two (as
``sha256sum --check`` reads them) and ``README.md``, the model card.
It loads without Ray, on a CPU or a GPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from schn_ray.core.atomic_files import sha256_file, write_atomically
from schn_ray.core.bits import pack, sign
from schn_ray.core.documents import parse_yaml
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.core.settings import Count, Section, validated
from schn_ray.core.storage.cache import local_copy
from schn_ray.data.images import BadImage, Preprocessing, evaluation_view, normalise
from schn_ray.models.backbones.build import rebuild_backbone
from schn_ray.models.backbones.saved import write_weights
from schn_ray.models.config import HeadSpec, PrecisionName
from schn_ray.models.encoder import Encoder
from schn_ray.models.heads.build import build_head
from schn_ray.models.image_inputs import (
    GivenImage,
    Images,
    are_files,
    image_list,
    image_names,
    vector_array,
)
from schn_ray.models.precision import Precision

WEIGHTS, SPEC, CARD = "weights.safetensors", "hasher.yaml", "README.md"
CHECKSUMS = "SHA256SUMS"
# within a run's directory
MODEL, LEARNED, TRAINED = "model", "learned.parquet", "trained.parquet"


class HasherSpec(Section):
    """What an encoder is built from, and how images are prepared for it.

    Attributes:
        bits: K.
        backbone: see ``build_backbone``.
        base_channels: width of the ``small`` backbone.
        width: d, of the backbone's features.
        architecture: what builds the backbone again, see ``Backbone``.
        backbone_sha256: see ``backbone_fingerprint``; None if the backbone was trained, too.
        preprocessing: from an image to the network's input; None: the model takes vectors.
        head: what the head is built from.
        activation: from the head's output to the relaxed code.
        classes: names of the classes that it was trained on.
    """

    bits: Count
    backbone: str
    base_channels: Count
    width: Count
    architecture: dict[str, Any] | None = None
    backbone_sha256: str | None = None
    preprocessing: Preprocessing | None
    head: HeadSpec
    activation: Literal["tanh", "none"] = "tanh"
    classes: tuple[str, ...] = ()


class Hasher:
    """Images or vectors in, packed binary codes out.

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
        self.fingerprint = ""  # set when loaded from disk

    def __repr__(self) -> str:
        """Return one line: bits, backbone, head, input and device."""
        return (
            f"Hasher({self.bits} bits, backbone {self.spec.backbone}, head {self.spec.head.kind}, "
            f"{self._expected()}, {self.device})"
        )

    @property
    def bits(self) -> int:
        """Bits of a code."""
        return self.spec.bits

    @property
    def input(self) -> Literal["images", "vectors"]:
        """What the model takes."""
        return "vectors" if self.spec.preprocessing is None else "images"

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of a row as the network takes it: (3, S, S), or (d,)."""
        p = self.spec.preprocessing
        return (self.spec.width,) if p is None else (3, p.crop, p.crop)

    def encode(self, rows: Images, batch_size: int = 64) -> NDArray[np.uint8]:
        """Encode images or, where ``input`` is ``vectors``, vectors.

        Args:
            rows: one image or n of them: paths, bytes of image files, Pillow images, or pixels as
                arrays or tensors, see ``image_list``; or vectors [d] or [n, d].
            batch_size: rows that pass the network at once.

        Returns:
            Packed codes [n, ceil(K / 8)]: bit b is bit b % 8 of byte b // 8. Of one image, n is 1.

        Raises:
            SchnRayError: an image is missing or does not decode, a vector is not finite, or the
                model takes something else; the row's number or path is named.

        Example:
            >>> load("run").encode("query.jpg")  # doctest: +SKIP
            array([[ 93, 112,  18, 201]], dtype=uint8)
        """
        return self.encode_views(self._batches(rows, batch_size))

    def relaxed_of(self, rows: Images, batch_size: int = 64) -> NDArray[np.float32]:
        """Return the relaxed codes [n, K] of images or vectors: what ``encode`` takes the sign of.

        Args:
            rows: as for ``encode``.
            batch_size: rows that pass the network at once.

        Raises:
            SchnRayError: as for ``encode``.
        """
        relaxed = [self.relaxed(batch).numpy() for batch in self._batches(rows, batch_size)]
        return np.concatenate([np.zeros((0, self.bits), np.float32), *relaxed])

    def outputs_of(
        self, rows: Images, batch_size: int = 64
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the features [n, d] and the relaxed codes [n, K] of images or vectors.

        Args:
            rows: as for ``encode``.
            batch_size: rows that pass the network at once.

        Raises:
            SchnRayError: as for ``encode``.
        """
        parts = [self.outputs(batch) for batch in self._batches(rows, batch_size)]
        empty = torch.zeros(0, self.spec.width), torch.zeros(0, self.bits)
        F, U = (torch.cat(tensors) for tensors in zip(empty, *parts, strict=True))
        return F.numpy(), U.numpy()

    def encode_views(self, batches: Iterable[NDArray[Any]]) -> NDArray[np.uint8]:
        """Encode batches of evaluation views [b, 3, S, S] or vectors [b, d] -> [n, ceil(K / 8)]."""
        codes = [pack(sign(self.relaxed(batch))) for batch in batches]
        return np.concatenate(codes) if codes else np.zeros((0, -(-self.bits // 8)), np.uint8)

    def relaxed(self, views: NDArray[Any]) -> Tensor:
        """Return the relaxed codes U [b, K] of evaluation views [b, 3, S, S] or vectors [b, d]."""
        _, U = self._forward(views)
        return U.float().cpu()

    def features(self, views: NDArray[Any]) -> Tensor:
        """Return the features F [b, d] of evaluation views [b, 3, S, S] or vectors [b, d]."""
        F, _ = self._forward(views)
        return F.float().cpu()

    def outputs(self, views: NDArray[Any]) -> tuple[Tensor, Tensor]:
        """Return features [b, d] and relaxed codes [b, K] of evaluation views, or of vectors."""
        F, U = self._forward(views)
        return F.float().cpu(), U.float().cpu()

    def of_features(self) -> Hasher:
        """Return the head alone as a hasher of the backbone's features."""
        if self.spec.preprocessing is None:
            return self
        spec = self.spec.model_copy(update={"preprocessing": None})
        network = Encoder(nn.Identity(), self.network.head)
        return Hasher(network, spec, self.device, self.precision.name)

    def of_images(self) -> Preprocessing:
        """Return how images are prepared.

        Raises:
            SchnRayError: the model takes vectors.
        """
        if self.spec.preprocessing is None:
            raise SchnRayError(f"this model takes {self._expected()}, not images")
        return self.spec.preprocessing

    def save(self, path: Path, card: str) -> None:
        """Write the artifact: weights, spec, model card, and SHA-256 of the first two.

        Args:
            path: the model's directory; created where it is missing.
            card: the model card's text, in Markdown.

        Raises:
            CannotWrite: the disk is full, say.
        """
        write_weights(self.network, path / WEIGHTS)
        spec = yaml.safe_dump(self.spec.model_dump(mode="json"), sort_keys=False)
        write_atomically(path / SPEC, spec.encode())
        write_atomically(path / CARD, card.encode())
        lines = [f"{sha256_file(path / name)}  {name}\n" for name in (WEIGHTS, SPEC)]
        write_atomically(path / CHECKSUMS, "".join(lines).encode())

    def _batches(self, rows: Images, batch_size: int) -> Iterator[NDArray[Any]]:
        if self.input == "vectors" and not are_files(rows):
            vectors = vector_array(rows)
            self._require_input(vectors)
            require_finite(vectors)
            for start in range(0, len(vectors), batch_size):
                yield vectors[start : start + batch_size]
            return
        preprocessing, images = self.of_images(), image_list(rows)
        named = zip(image_names(images), images, strict=True)
        views = (_view(name, image, preprocessing) for name, image in named)
        for batch in iter(lambda: list(islice(views, batch_size)), []):
            yield np.stack(batch)

    def _forward(self, views: NDArray[Any]) -> tuple[Tensor, Tensor]:
        self._require_input(views)
        if self.input == "vectors":
            views = views.astype(np.float32)  # a copy: torch warns of memory that it may not write
        batch = torch.from_numpy(views).to(self.device, non_blocking=True)
        with torch.inference_mode(), self.precision.for_networks():
            return features_and_relaxed(self.network, self.spec, batch)

    def _require_input(self, views: NDArray[Any]) -> None:
        if views.shape[1:] != self.input_shape:
            raise SchnRayError(
                f"this model takes {self._expected()}: batches of the shape "
                f"{('n', *self.input_shape)}, not {views.shape}"
            )

    def _expected(self) -> str:
        if self.spec.preprocessing is None:
            return f"vectors of {self.spec.width} numbers"
        side = self.spec.preprocessing.crop
        return f"images of {side} x {side} pixels"


def _view(name: str, image: GivenImage, preprocessing: Preprocessing) -> NDArray[np.uint8]:
    try:
        data = image.read_bytes() if isinstance(image, Path) else image
        return evaluation_view(data, preprocessing)
    except BadImage as error:
        raise SchnRayError(f"{name} is not an image that can be read: {error}") from error
    except OSError as error:
        raise SchnRayError(f"cannot read {name}: {error.strerror}") from error


def features_and_relaxed(network: Encoder, spec: HasherSpec, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return features F [b, d] and relaxed codes U [b, K].

    Args:
        network: backbone and head.
        spec: what they are built from.
        rows: uint8 views [b, 3, S, S], or float32 vectors [b, d].
    """
    p = spec.preprocessing
    F, h = network(rows if p is None else normalise(rows, p))
    return F, torch.tanh(h) if spec.activation == "tanh" else h


def require_finite(vectors: NDArray[Any]) -> None:
    """Check that vectors have neither NaN nor infinity: their codes would mean nothing.

    Args:
        vectors: [n, d].

    Raises:
        SchnRayError: one has; its number is named.
    """
    bad = ~np.isfinite(vectors).all(axis=tuple(range(1, vectors.ndim)))
    if bad.any():
        raise SchnRayError(f"vector {int(bad.argmax())} has numbers that are NaN or infinite")


def best_device() -> torch.device:
    """Return the GPU if torch sees one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def model_directory(path: Path | str) -> Path:
    """Return the local directory of a model, fetched first if it is at a URI.

    Args:
        path: a model directory or a finished run, or its URI.

    Raises:
        SchnRayError: ``path`` is neither of them.
    """
    path = local_copy(path, MODEL)
    if (path / SPEC).is_file():
        return path
    read_manifest(path, "run")
    return path / MODEL


def load(
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
        spec = _read_spec(path / SPEC)
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


def _read_spec(path: Path) -> HasherSpec:
    values = parse_yaml(path.read_bytes(), str(path))
    if isinstance(values, dict) and "head" not in values:
        raise SchnRayError(
            f"{path} has no 'head': the model was trained by an older version. Train again"
        )
    return validated(HasherSpec, values)


def fingerprint(path: Path | str) -> str:
    """Check a model's weights and spec, and return the SHA-256 over both: equal ones, equal codes.

    Args:
        path: a finished run or a model directory, or its URI.

    Returns:
        64 hexadecimal digits.

    Raises:
        SchnRayError: a file differs from its checksum, or there are no checksums.
        OSError: another file is missing.
    """
    path = model_directory(path)
    if not (path / CHECKSUMS).is_file():
        raise SchnRayError(
            f"{path} is not a complete model: it has no {CHECKSUMS}, so nobody can tell whether "
            "its weights are sound. Copy the whole directory again"
        )
    lines = (path / CHECKSUMS).read_text(errors="replace").splitlines()
    expected = {name: sha256 for sha256, _, name in (line.partition("  ") for line in lines)}
    parts = [sha256_file(path / name) for name in (WEIGHTS, SPEC)]
    for name, sha256 in zip((WEIGHTS, SPEC), parts, strict=True):
        if expected.get(name) != sha256:
            raise SchnRayError(
                f"{path / name} differs from {CHECKSUMS} beside it: the model is damaged or was "
                "edited. Copy it again from where it is sound, or train again"
            )
    return hashlib.sha256("".join(parts).encode()).hexdigest()
