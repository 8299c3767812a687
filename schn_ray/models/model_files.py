"""The files of a released model, and what it is built from; nothing here needs torch.

A model directory holds ``weights.safetensors``, ``hasher.yaml``, ``SHA256SUMS`` of these two (as
``sha256sum --check`` reads them) and ``README.md``, the model card. A repository of the Hugging
Face hub holds the same.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Literal

from schn_ray.core.artefacts import open_artefact
from schn_ray.core.checksums import CHECKSUMS, compared_files
from schn_ray.core.documents import parse_yaml
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import is_finished, read_manifest
from schn_ray.core.settings import Count, Section, validated
from schn_ray.core.storage.cache import local_copy
from schn_ray.data.images import Preprocessing
from schn_ray.models.config import HeadSpec
from schn_ray.models.hub import download_again, fetched, hub_address

WEIGHTS, SPEC, CARD = "weights.safetensors", "hasher.yaml", "README.md"
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
        lengths: of nested codes, ascending, K last: the first bits of a code are the code of each
            length. (): codes have one length.
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
    lengths: tuple[Count, ...] = ()

    def first(self, bits: int) -> HasherSpec:
        """Return the spec of a model of nested codes for one of its lengths.

        Args:
            bits: of the codes, K or one of ``lengths``.

        Raises:
            SchnRayError: the model was not trained for this length.
        """
        if bits == self.bits:
            return self
        if bits not in self.lengths:
            trained = ", ".join(map(str, self.lengths or (self.bits,)))
            hint = "" if self.lengths else ": --set 'nested=[16, 32, 64]' of train gives several"
            raise SchnRayError(
                f"the model was trained for codes of {trained} bits, not of {bits}{hint}"
            )
        upto = tuple(k for k in self.lengths if k <= bits)
        return self.model_copy(update={"bits": bits, "lengths": upto})

    def recorded(self) -> dict[str, Any]:
        """Return the spec as ``hasher.yaml`` has it."""
        return self.model_dump(mode="json", exclude=set() if self.lengths else {"lengths"})


def model_directory(path: Path | str) -> Path:
    """Return the local directory of a model, fetched first if it is at a URI.

    Args:
        path: a model directory or a finished run, or its URI; or ``hf://user/name[@revision]``.

    Raises:
        SchnRayError: ``path`` is neither of them.
    """
    if (address := hub_address(path)) is not None:
        return fetched(address, WEIGHTS, SPEC, CHECKSUMS, optional=(CARD,))
    path = local_copy(path, MODEL)
    if (path / SPEC).is_file():
        return path
    read_manifest(path, "run")
    return path / MODEL


def read_card(path: Path) -> str:
    """Return a model's card; of a run, after a comparison with its manifest.

    Args:
        path: a local model directory.
    """
    if is_finished(path.parent):
        return open_artefact(path.parent, "run").read(f"{MODEL}/{CARD}").decode(errors="replace")
    return (path / CARD).read_text(errors="replace") if (path / CARD).is_file() else ""


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
    parts = compared_files(path, (WEIGHTS, SPEC), download_again(path))
    return hashlib.sha256("".join(parts).encode()).hexdigest()
