"""A released model as ``export`` writes it, run by onnxruntime: neither torch nor Ray is needed.

FILE.onnx is the network, and FILE.json beside it says what surrounds it and has its SHA-256. Images
are read, resized and cut by ``data/images.py``, as for the network of torch, so the pixels are the
same bytes. Codes are the network's, but for values so near zero that rounding decides their sign.
"""

from __future__ import annotations

import hashlib
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from schn_ray.core.documents import parse_json
from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import validated
from schn_ray.core.storage.files import as_location, read_file
from schn_ray.models.base_hasher import BaseHasher
from schn_ray.models.hub import fetched_onnx, hub_address
from schn_ray.models.model_files import SPEC, WEIGHTS, HasherSpec

ONNX, DESCRIBED = ".onnx", ".json"
OUTPUT = "relaxed"
SHA256 = "sha256"  # of the ONNX file, in FILE.json
_EXPORT_AGAIN = "export the run again, or copy both files"


class OnnxHasher(BaseHasher):
    """An exported network: images or vectors in, packed binary codes out.

    It runs on CPUs, in float32, with as many threads as ``OMP_NUM_THREADS`` says; by default one
    for each core.

    Args:
        network: the ONNX file's bytes.
        spec: what the network was built from.
        fingerprint: of the model that was exported, so that its codes can be searched.

    Attributes:
        sha256: of the ONNX file.
    """

    def __init__(self, network: bytes, spec: HasherSpec, fingerprint: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(
            network, options, providers=["CPUExecutionProvider"]
        )
        self.spec, self.fingerprint = spec, fingerprint
        self.sha256 = hashlib.sha256(network).hexdigest()

    def __repr__(self) -> str:
        """Return one line: bits, backbone, head and input."""
        return (
            f"OnnxHasher({self.bits} bits, backbone {self.spec.backbone}, "
            f"head {self.spec.head.kind}, {self._expected()})"
        )

    def relaxed_array(self, views: NDArray[Any]) -> NDArray[np.float32]:
        """Return relaxed codes [b, K] of evaluation views [b, 3, S, S] or vectors [b, d]."""
        self._require_input(views)
        rows = views.astype(np.uint8 if self.input == "images" else np.float32, copy=False)
        relaxed: NDArray[np.float32] = self._session.run([OUTPUT], {self.input: rows})[0]
        return relaxed[:, : self.bits]

    def feature_array(self, views: NDArray[Any]) -> NDArray[np.float32]:
        """Refuse: an ONNX file gives codes and no features.

        Raises:
            SchnRayError: always.
        """
        raise SchnRayError(
            "an ONNX file gives codes and no features: give the run, or do without them (encode: "
            "without --set features=true; evaluate: --set controls.train_rows=0)"
        )

    def output_arrays(self, views: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return features and relaxed codes; the features of vectors are these, of images none."""
        relaxed = self.relaxed_array(views)
        if self.input == "vectors":
            return views.astype(np.float32, copy=False), relaxed
        return np.zeros((len(views), 0), np.float32), relaxed

    def of_features(self) -> OnnxHasher:
        """Return itself, if the model takes vectors.

        Raises:
            SchnRayError: it takes images: an ONNX file is run as a whole.
        """
        if self.spec.preprocessing is not None:
            raise SchnRayError(
                "an ONNX file runs from the image to the code: give it the images, or give the "
                "run, whose head takes features"
            )
        return self


def onnx_file(path: Path | str) -> str | None:
    """Return where the ONNX file of an export is; None if the path is that of a run or a model.

    Args:
        path: the ONNX file or its URI, or a local directory that holds one and no model;
            or an address of the hub, see ``hub.fetched_onnx``.

    Raises:
        SchnRayError: a directory holds more than one.
    """
    if (address := hub_address(path)) is not None:
        file = fetched_onnx(address)
        return None if file is None else str(file)
    location = as_location(path)
    if location.endswith(ONNX):
        return location
    is_model = Path(location, SPEC).is_file() and Path(location, WEIGHTS).is_file()
    if is_model and find_spec("torch") is not None:
        return None  # a repository's clone has both
    files = sorted(map(str, Path(location).glob(f"*{ONNX}")))
    if len(files) > 1:
        raise SchnRayError(f"{location} holds {len(files)} ONNX files: name one, {files[0]} say")
    return files[0] if files else None


def onnx_spec(file: str) -> tuple[HasherSpec, str, str]:
    """Read what surrounds an exported network.

    Args:
        file: the ONNX file or its URI.

    Returns:
        The spec, the fingerprint of the model, and the SHA-256 that the ONNX file must have.

    Raises:
        SchnRayError: the JSON file beside it is missing, damaged or of an older version.
    """
    path = file.removesuffix(ONNX) + DESCRIBED
    values = parse_json(_read(path, file), path)
    try:
        return validated(HasherSpec, values["spec"]), str(values["model"]), str(values[SHA256])
    except (KeyError, TypeError) as error:
        raise SchnRayError(
            f"{path} does not say how to encode: it is not what 'schn-ray export' writes beside an "
            "ONNX file, or is of an older version. Export the run again"
        ) from error


def load_onnx(path: Path | str) -> OnnxHasher:
    """Load an exported model.

    Args:
        path: see ``onnx_file``.

    Raises:
        SchnRayError: a file is missing, or differs from what was exported.

    Example::

        load_onnx("model.onnx").encode(["query.jpg"])
    """
    file = onnx_file(path)
    if file is None:
        raise SchnRayError(f"{path} holds no ONNX file")
    spec, fingerprint, sha256 = onnx_spec(file)
    network = _read(file, file)
    if hashlib.sha256(network).hexdigest() != sha256:
        raise SchnRayError(
            f"{file} differs from the {DESCRIBED} file beside it: it is damaged, or the two are of "
            f"different exports; {_EXPORT_AGAIN}"
        )
    return OnnxHasher(network, spec, fingerprint)


def _read(path: str, file: str) -> bytes:
    try:
        return read_file(path)
    except OSError as error:
        raise SchnRayError(
            f"cannot read {path}: {error.strerror or error}. An exported model is {file} and the "
            f"{DESCRIBED} file beside it; {_EXPORT_AGAIN}"
        ) from error
