"""CIFAR-10 and CIFAR-100 as published: Python pickles, read by an unpickler that runs no code."""

from __future__ import annotations

import functools
import io
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage.files import stamp_of
from schn_ray.data.shards.rows import BadRow, Row, Shard, Unit, cut, units_of

FOLDER = "cifar-10-batches-py"


@dataclass(frozen=True)
class Layout:
    """The files of CIFAR-10 or of CIFAR-100.

    Attributes:
        folder: the usual name of their folder.
        meta: the file with the class names.
        names: the key of the class names in it.
        labels: the key of the labels in a batch.
        batches: the files of training rows, and last the file of test rows.
        batch_rows: the most rows that a file of training rows has.
    """

    folder: str
    meta: str
    names: str
    labels: str
    batches: tuple[str, ...]
    batch_rows: int


CIFAR10 = Layout(
    FOLDER,
    "batches.meta",
    "label_names",
    "labels",
    (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"),
    10_000,
)
CIFAR100 = Layout(
    "cifar-100-python", "meta", "fine_label_names", "fine_labels", ("train", "test"), 50_000
)
COARSE = replace(CIFAR100, names="coarse_label_names", labels="coarse_labels")
BATCHES = (*CIFAR10.batches, *CIFAR100.batches)

_NUMPY = {
    (package + module, name)
    for package in ("numpy.core.", "numpy._core.")
    for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype")}


def download(location: Path, kind: str = "cifar10") -> None:
    """Let torchvision download CIFAR-10 or CIFAR-100 and check its MD5.

    Nothing is downloaded where the files exist already.

    Args:
        location: the data set's folder, or the folder to put it in.
        kind: ``cifar10`` or ``cifar100``; ignored if the folder has CIFAR-100's usual name.

    Raises:
        SchnRayError: no network, or a file that differs from the published one.
    """
    from torchvision import datasets

    hundred = kind == "cifar100" or location.name == CIFAR100.folder
    name, folder = ("CIFAR100", CIFAR100.folder) if hundred else ("CIFAR10", FOLDER)
    root = location.parent if location.name == folder else location
    try:
        getattr(datasets, name)(str(root), download=True)
    except (OSError, HTTPException, RuntimeError) as error:
        raise SchnRayError(
            f"{name} was not downloaded ({error}): check the network, or put its folder {folder} "
            f"into {root} yourself"
        ) from error


@dataclass(frozen=True)
class CifarSource:
    """All rows of CIFAR; ids number them as published: ``train-00000`` ... ``test-09999``."""

    location: str
    shard_rows: int
    layout: Layout = CIFAR10
    kind: str = "cifar10"

    def shards(self) -> list[Shard]:
        """List all rows, training batches first.

        Raises:
            SchnRayError: a batch is missing, damaged, or too large.
        """
        shards: list[Shard] = []
        for name in self.layout.batches:
            path = Path(self.location, name)
            pixels = _load_batch(path)["data"]
            _labels_of(path, self.layout)
            if len(pixels) > self.layout.batch_rows:
                raise SchnRayError(
                    f"{path}: {len(pixels):,} rows; expected at most {self.layout.batch_rows:,}"
                )
            size, stamps = path.stat().st_size, (stamp_of(path),)
            for start, count in cut(len(pixels), self.shard_rows, number=len(shards)):
                shards.append(Shard(len(shards), count, start, (name,), size, stamps))
        return shards

    def read(self, shard: Shard) -> Iterator[Row | BadRow]:
        """Yield the shard's rows, encoded as PNG."""
        for unit in units_of(shard):
            yield from self._read(unit)

    def _read(self, unit: Unit) -> Iterator[Row | BadRow]:
        path, classes, layout = Path(self.location, unit.file), self._classes(), self.layout
        labels = _labels_of(path, layout)
        split = "test" if path.name == layout.batches[-1] else "train"
        index = layout.batches.index(path.name)
        first = 0 if split == "test" else index * layout.batch_rows
        for i in range(unit.start, unit.start + unit.rows):
            row_id, uri = f"{split}-{first + i:05}", f"{path}#{i}"
            if 0 <= labels[i] < len(classes):
                yield Row(row_id, cifar_image(path, i), (classes[labels[i]],), uri, split)
            else:
                reason = f"label {labels[i]} is not in {layout.meta}"
                yield BadRow(row_id, uri, "read", reason)

    def _classes(self) -> tuple[str, ...]:
        path, key = Path(self.location, self.layout.meta), self.layout.names
        names = _unpickle(path).get(key)
        if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
            raise SchnRayError(f"{path}: expected '{key}', a list of text; download it again")
        return tuple(names)


def find_batches(folder: Path, layout: Layout = CIFAR10) -> Path | None:
    """Return the folder with the batches: this one or the usual one below it; None without them.

    Args:
        folder: where to look.
        layout: which of the two data sets.
    """
    for candidate in (folder, folder / layout.folder):
        names = (layout.meta, layout.batches[0])
        if (candidate / layout.meta).is_file() and (
            layout is CIFAR10 or all((candidate / name).is_file() for name in names)
        ):
            return candidate
    return None


def cifar_image(batch: Path, row: int) -> bytes:
    """Return one image of a batch as PNG.

    Args:
        batch: the file.
        row: its number in the file, from 0.

    Raises:
        IndexError: the batch has no such row.
        SchnRayError: the file is missing or damaged.
    """
    pixels = _load_batch(batch)["data"]
    data = io.BytesIO()
    Image.fromarray(pixels[row].reshape(3, 32, 32).transpose(1, 2, 0)).save(data, "PNG")
    return data.getvalue()


class _OnlyNumpy(pickle.Unpickler):
    """An unpickler that refuses every function but those that build numpy's arrays.

    A pickle may name any function of Python to be called.
    """

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _NUMPY:
            raise SchnRayError(f"wants to run {module}.{name}")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _load_batch(path: Path) -> dict[str, Any]:
    return _read_batch(path, stamp_of(path) if path.is_file() else "")


@functools.lru_cache(maxsize=2)
def _read_batch(path: Path, stamp: str) -> dict[str, Any]:
    values = _unpickle(path)
    pixels = values.get("data")
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise SchnRayError(f"{path}: expected 'data', an array of uint8; download it again")
    if pixels.ndim != 2 or pixels.shape[1] != 3072:
        raise SchnRayError(f"{path}: 'data' has shape {pixels.shape}; expected rows of 3072")
    return values


def _labels_of(path: Path, layout: Layout) -> list[int]:
    values, key = _load_batch(path), layout.labels
    labels, rows = values.get(key), len(values["data"])
    if not isinstance(labels, list) or len(labels) != rows:
        raise SchnRayError(f"{path}: expected '{key}', a list of {rows:,} numbers")
    if not all(isinstance(label, int) for label in labels):
        raise SchnRayError(f"{path}: '{key}' holds a value that is not a whole number")
    return labels


def _unpickle(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            # the files were written by Python 2, whose text numpy reads as latin1
            values = _OnlyNumpy(file, encoding="latin1").load()
    except FileNotFoundError as error:
        raise SchnRayError(f"{path} is missing; download it again") from error
    except SchnRayError as error:
        raise SchnRayError(f"{path}: refused, because this pickle {error}") from error
    except Exception as error:  # damaged pickles raise almost anything
        raise SchnRayError(f"{path} is not a batch of CIFAR: {error}; download it again") from error
    if not isinstance(values, dict):
        raise SchnRayError(f"{path} holds a {type(values).__name__}; expected a dictionary")
    return values
