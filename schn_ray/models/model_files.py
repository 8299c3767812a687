"""The files of a released model, and what it is built from; nothing here needs torch.

A model directory holds ``weights.safetensors``, ``hasher.yaml``, ``SHA256SUMS`` of these two (as
``sha256sum --check`` reads them) and ``README.md``, the model card.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from schn_ray.core.atomic_files import sha256_file
from schn_ray.core.documents import parse_yaml
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.core.settings import Count, Section, validated
from schn_ray.core.storage.cache import local_copy
from schn_ray.data.images import Preprocessing
from schn_ray.models.config import HeadSpec

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


def read_spec(path: Path) -> HasherSpec:
    """Read what a model is built from.

    Args:
        path: ``hasher.yaml`` of a model directory.

    Raises:
        SchnRayError: not such a file, or one of an older version.
    """
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
