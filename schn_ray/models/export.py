"""The network as ONNX, for programs without torch; checked bit by bit against the original.

FILE.onnx   uint8 images (scaling and normalisation are included) or float32 vectors in, relaxed
            codes out
FILE.json   the steps outside the network: from an image to its input, from its output to a code;
            and the SHA-256 of FILE.onnx
FILE.md     the model card, with the figures of an evaluation if one is given

The JSON, but for the SHA-256, is also the value of ``schn-ray`` in the metadata of the ONNX file.
``onnx_hasher`` encodes with the first two.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from schn_ray.core.atomic_files import write_atomically, write_json
from schn_ray.core.directories import locked_file
from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import SourceConfig
from schn_ray.data.images import BadImage, Preprocessing, evaluation_view
from schn_ray.data.shards.rows import Row, Source
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.reader import open_store
from schn_ray.models.hasher import Hasher, features_and_relaxed, load_network
from schn_ray.models.model_files import model_directory, read_card
from schn_ray.models.onnx_hasher import DESCRIBED, OUTPUT, SHA256

METADATA = "schn-ray"
_LIBRARIES = ("onnx", "onnxruntime", "onnxscript")
_BATCH = 64
_RANDOM_ROWS = 1024


@dataclass(frozen=True)
class ExportCheck:
    """How the exported network differs from the original on some images or vectors.

    Attributes:
        images: number of images or vectors compared.
        source: where they come from.
        bits: number of bits compared.
        bits_that_differ: number of these that differ.
        largest_difference: between two relaxed codes, in one value.
    """

    images: int
    source: str
    bits: int
    bits_that_differ: int
    largest_difference: float


class _FromInput(nn.Module):
    """The whole hasher as a module, with normalisation and activation."""

    def __init__(self, hasher: Hasher) -> None:
        super().__init__()
        self.network, self.spec = hasher.network, hasher.spec

    def forward(self, rows: Tensor) -> Tensor:
        """Return the relaxed codes [n, K] of uint8 images [n, 3, S, S] or vectors [n, d]."""
        _, U = features_and_relaxed(self.network, self.spec, rows)
        return U


def export_onnx(
    model: Path | str,
    out: Path,
    images: str = "digits",
    figures: str | None = None,
    bits: int | None = None,
) -> ExportCheck:
    """Write FILE.onnx, FILE.json and FILE.md, and compare the export with the network.

    Args:
        model: a finished run or a model directory.
        out: the ONNX file.
        images: a source to compare on; a store gives its split's queries. For a model that takes
            vectors, a source without any is replaced by random vectors.
        figures: an evaluation's figures as text, for the model card.
        bits: of the exported codes, one of the lengths of nested codes; None: all.

    Returns:
        How the export compares.

    Raises:
        SchnRayError: a library is missing, no image can be read, or vectors have another width.
    """
    _require_libraries()
    hasher = load_network(model, torch.device("cpu"))
    hasher = hasher if bits is None else hasher.first(bits)
    data = _onnx(hasher)
    checked = check_export(hasher, data, images)
    described = describe(hasher) | {"checked": asdict(checked)}
    card = _card(read_card(model_directory(model)), out.name, checked, figures)
    written = _with_metadata(data, described)
    sha256 = {SHA256: hashlib.sha256(written).hexdigest()}
    with locked_file(out):
        write_atomically(out, written)
        write_json(out.with_suffix(DESCRIBED), described | sha256)
        write_atomically(out.with_suffix(".md"), card.encode())
    return checked


def describe(hasher: Hasher) -> dict[str, Any]:
    """Describe what an application does before and after the exported network.

    Args:
        hasher: the exported model.

    Returns:
        The content of FILE.json, without the result of the comparison.
    """
    p = hasher.spec.preprocessing
    return {
        "model": hasher.fingerprint,
        "bits": hasher.bits,
        "classes": list(hasher.spec.classes),
        "input": _described_input(hasher),
        "output": {"name": OUTPUT, "type": "float32", "shape": ["n", hasher.bits]},
        **({} if p is None else _described_images(p)),
        "spec": hasher.spec.recorded(),
        "after": "bit b of the code is 1 where relaxed[b] >= 0; it is bit b % 8 of byte b // 8",
    }


def _described_input(hasher: Hasher) -> dict[str, Any]:
    kind = "uint8" if hasher.input == "images" else "float32"
    return {"name": hasher.input, "type": kind, "shape": ["n", *hasher.input_shape]}


def _described_images(p: Preprocessing) -> dict[str, Any]:
    return {
        "before": [
            "decode to RGB; apply EXIF rotation; lay transparency over white",
            f"resize the shorter side to {p.resize} pixels, {p.interpolation} and antialiased, as "
            "Pillow's",
            f"cut out the {p.crop} x {p.crop} pixels in the centre; channels first, 0 to 255",
        ],
        "inside": {"divide_by": 255, "subtract": list(p.mean), "then_divide_by": list(p.std)},
        "preprocessing": p.model_dump(mode="json"),
    }


def check_export(hasher: Hasher, data: bytes, images: str) -> ExportCheck:
    """Compare an exported network with the original on a source's images or vectors.

    Args:
        hasher: the original.
        data: bytes of the ONNX file.
        images: a source, as for ``export_onnx``.

    Raises:
        SchnRayError: none of the images can be read, or vectors have another width.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    count, differ, largest = 0, 0, 0.0
    rows, source = _rows(hasher, images)
    for views in iter(lambda: list(islice(rows, _BATCH)), []):
        batch = np.stack(views)
        ours = hasher.relaxed(batch).numpy()
        theirs = session.run([OUTPUT], {hasher.input: batch})[0]
        count += len(batch)
        differ += int(((ours >= 0) != (theirs >= 0)).sum())
        largest = max(largest, float(np.abs(ours - theirs).max()))
    if not count:
        raise SchnRayError(f"{images}: no {hasher.input} to compare the exported network on")
    return ExportCheck(count, source, count * hasher.bits, differ, largest)


def export_text(out: Path, checked: ExportCheck) -> str:
    """Return the command's output: the files written, and how the export compares.

    Args:
        out: the ONNX file.
        checked: result of ``export_onnx``.
    """
    return (
        f"{out}: written, with {out.with_suffix('.json').name} and {out.with_suffix('.md').name}\n"
        f"  {_agreement(checked)}"
    )


def _agreement(checked: ExportCheck) -> str:
    return (
        f"{checked.bits_that_differ:,} of {checked.bits:,} bits differ from the network's, on "
        f"{checked.images:,} rows of {checked.source} (largest difference before the sign: "
        f"{checked.largest_difference:.1e})"
    )


def _require_libraries() -> None:
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise SchnRayError(
            f"export needs {', '.join(missing)}: pip install 'schn-ray[onnx]', or pip install "
            f"{' '.join(missing)}"
        )


def _onnx(hasher: Hasher) -> bytes:
    kind = torch.uint8 if hasher.input == "images" else torch.float32
    example = torch.zeros((2, *hasher.input_shape), dtype=kind)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # the exporter warns about its own code
        program = torch.onnx.export(
            _FromInput(hasher).eval(),
            (example,),
            input_names=[hasher.input],
            output_names=[OUTPUT],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
            dynamo=True,
            verbose=False,
        )
    assert program is not None
    return bytes(program.model_proto.SerializeToString())


def _with_metadata(data: bytes, described: dict[str, Any]) -> bytes:
    import onnx

    proto = onnx.load_model_from_string(data)
    onnx.helper.set_model_props(proto, {METADATA: json.dumps(described)})
    onnx.checker.check_model(proto)
    return bytes(proto.SerializeToString())


def _rows(hasher: Hasher, images: str) -> tuple[Iterator[NDArray[Any]], str]:
    """Return views or vectors, one a row, and where they come from."""
    source = open_source(images, SourceConfig())
    if hasher.input == "images":
        return _views(source, hasher.of_images()), images
    if source.kind == "store":
        store = open_store(source.location)
        if store.vector_width is not None:
            return iter(store.vectors(store.rows("query"))), images
    elif getattr(source, "vectors", None) is not None:
        return _vectors(source), images
    drawn = np.random.default_rng(0).standard_normal((_RANDOM_ROWS, hasher.spec.width))
    return iter(drawn.astype(np.float32)), "random vectors"


def _views(source: Source, p: Preprocessing) -> Iterator[NDArray[np.uint8]]:
    for data in _images(source):
        with contextlib.suppress(BadImage):  # encode quarantines these
            yield evaluation_view(data, p)


def _images(source: Source) -> Iterator[bytes]:
    if source.kind == "store":
        store = open_store(source.location)
        yield from (store.image(int(row)) for row in store.rows("query"))
    else:
        for row in _good_rows(source):
            if row.image is not None:
                yield row.image


def _vectors(source: Source) -> Iterator[NDArray[np.float32]]:
    for row in _good_rows(source):
        if row.vector is not None:
            yield np.asarray(row.vector, np.float32)


def _good_rows(source: Source) -> Iterator[Row]:
    for shard in source.shards():
        yield from (row for row in source.read(shard) if isinstance(row, Row))


def _card(card: str, name: str, checked: ExportCheck, figures: str | None) -> str:
    sections = [card.rstrip(), f"## ONNX\n\n`{name}`: {_agreement(checked)}."]
    if figures is not None:
        sections.append(f"## Measured\n\n```\n{figures}\n```")
    return "\n\n".join(sections) + "\n"
