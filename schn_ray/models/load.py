"""Open a model, whatever runs it: a run with torch, its ONNX export without."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.cache import local_copy
from schn_ray.core.storage.files import as_location
from schn_ray.models.base_hasher import BaseHasher
from schn_ray.models.config import PrecisionName
from schn_ray.models.hub import hub_address
from schn_ray.models.model_files import SPEC, HasherSpec, fingerprint, model_directory, read_spec
from schn_ray.models.onnx_hasher import load_onnx, onnx_file, onnx_spec

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Described:
    """What is known of a model before its network is loaded.

    Attributes:
        spec: what the network is built from.
        fingerprint: of the model's files; an export has that of its model.
        onnx: SHA-256 of the ONNX file; None of a run.
    """

    spec: HasherSpec
    fingerprint: str
    onnx: str | None = None

    def recorded(self) -> dict[str, str]:
        """Return what a manifest records of the model: other files, other codes."""
        onnx = {} if self.onnx is None else {"onnx": self.onnx}
        return {"model": self.fingerprint} | onnx


def load(
    path: str | Path, device: torch.device | None = None, precision: PrecisionName = "float32"
) -> BaseHasher:
    """Load a hasher: of a finished run or a model directory, or of an ONNX file without torch.

    Args:
        path: the directory, or its URI; or an ONNX file that ``export`` wrote, or its folder; or
            ``hf://user/name[@revision]``, what ``push`` has uploaded.
        device: where the network runs; by default a GPU if torch has one. ONNX files run on CPUs.
        precision: of the network; ``bf16`` is faster on GPUs, and changes a few bits. ONNX files
            run in float32.

    Raises:
        SchnRayError: no such model, or a damaged one.

    Example::

        load("run").encode(["query.jpg"])
        load("model.onnx").encode(["query.jpg"])
        load("hf://user/name@v1").encode(["query.jpg"])
    """
    if onnx_file(path) is not None:
        if precision not in ("float32", "auto") or device is not None:
            raise SchnRayError(
                f"{path} is an ONNX file, which runs on CPUs in float32: leave out precision and "
                "device, or give the run"
            )
        return load_onnx(path)
    from schn_ray.models.hasher import load_network

    return load_network(path, device, precision)


def describe_model(path: str | Path) -> Described:
    """Read what a model is built from, and compare its files; no network is loaded.

    Args:
        path: as for ``load``.

    Raises:
        SchnRayError: no such model, or a damaged one.
    """
    if (file := onnx_file(path)) is not None:
        return Described(*onnx_spec(file))
    path = model_directory(path)
    try:
        return Described(read_spec(path / SPEC), fingerprint(path))
    except OSError as error:
        raise SchnRayError(f"{path} is not a complete model: {error}") from error


def local_model(path: str | Path) -> Path:
    """Return a model's local directory or ONNX file, fetched first if it is at a URI or on the hub.

    Args:
        path: as for ``load``.

    Raises:
        SchnRayError: no such model, or it cannot be fetched.
    """
    if hub_address(path) is None:
        return local_copy(path)
    file = onnx_file(path)
    return model_directory(path) if file is None else Path(file)


def pinned(path: str | Path) -> str:
    """Return the location of a model; of one on the hub with its commit, so that it cannot change.

    Args:
        path: as for ``load``.

    Raises:
        SchnRayError: no such repository, or the hub cannot be reached.
    """
    if (address := hub_address(path)) is None:
        return as_location(path)
    local = local_model(path)
    commit = local.name if local.is_dir() else local.parent.name
    return str(replace(address, revision=commit))
