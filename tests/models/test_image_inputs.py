"""What a model is given in Python: one image or many, as files, bytes, Pillow images or pixels."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.image_files import encode_image, write_tree
from support.models import write_model

from schn_ray.core.errors import SchnRayError
from schn_ray.models.hasher import Hasher, load
from schn_ray.models.image_inputs import image_list


@pytest.fixture(scope="module")
def hasher(tmp_path_factory: pytest.TempPathFactory) -> Hasher:
    return load(write_model(tmp_path_factory.mktemp("model") / "model"), torch.device("cpu"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = write_tree(tmp_path_factory.mktemp("photos"), {"cat": 3})
    return sorted(root.rglob("*.png"))


def pixels(file: Path) -> Any:
    return np.asarray(Image.open(file).convert("RGB"))


def tensor(file: Path) -> torch.Tensor:
    return torch.from_numpy(pixels(file).copy()).permute(2, 0, 1)


FORMS: dict[str, Callable[[Path], Any]] = {
    "path": lambda file: file,
    "string": str,
    "bytes": lambda file: file.read_bytes(),
    "Pillow": Image.open,
    "array": pixels,
    "channels first": lambda file: tensor(file).numpy(),
    "floats": lambda file: pixels(file).astype(np.float32) / 255,
    "tensor": tensor,
    "tensor of floats": lambda file: tensor(file).float() / 255,
    "RGBA": lambda file: np.asarray(Image.open(file).convert("RGBA")),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_image_or_more_in_every_form_has_the_codes_of_its_file(
    form: str, hasher: Hasher, files: list[Path]
) -> None:
    expected = hasher.encode(files)
    assert len(np.unique(expected, axis=0)) > 1
    given = [FORMS[form](file) for file in files]
    np.testing.assert_array_equal(hasher.encode(given), expected)
    np.testing.assert_array_equal(hasher.encode(given[0]), expected[:1])


def test_images_of_one_size_are_one_array(hasher: Hasher, files: list[Path]) -> None:
    expected = hasher.encode(files)
    last = np.stack([pixels(file) for file in files])
    np.testing.assert_array_equal(hasher.encode(last), expected)
    first = torch.stack([tensor(file) for file in files])
    np.testing.assert_array_equal(hasher.encode(first), expected)
    assert hasher.encode(last[:0]).shape == (0, 2)


def test_a_pillow_image_is_turned_upright_and_left_as_it_is(hasher: Hasher) -> None:
    lying = encode_image(3, (20, 12))
    image = Image.open(io.BytesIO(lying))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated
    file = io.BytesIO()
    image.save(file, "PNG", exif=exif)
    opened = Image.open(io.BytesIO(file.getvalue()))
    codes = hasher.relaxed_of(opened)
    np.testing.assert_array_equal(codes, hasher.relaxed_of(file.getvalue()))
    assert not np.array_equal(codes, hasher.relaxed_of(lying))
    assert (opened.size, opened.getexif()[0x0112]) == (image.size, 6)


def test_gray_pixels_are_an_image(hasher: Hasher, files: list[Path]) -> None:
    gray = Image.open(files[0]).convert("L")
    expected = hasher.encode(gray)
    np.testing.assert_array_equal(hasher.encode(np.asarray(gray)), expected)
    np.testing.assert_array_equal(hasher.encode(torch.from_numpy(np.array(gray))[None]), expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((9, 9, 5), np.uint8), r"image 0 has pixels of the shape \(9, 9, 5\); expected"),
        (np.zeros((0, 9, 3), np.uint8), r"shape \(0, 9, 3\)"),
        (np.zeros((100, 7), np.float32), r"shape \(100, 7\)"),
        ([np.zeros((9, 9, 3), np.int64)], "image 0 has pixels of type int64; expected uint8"),
        ([b"", np.full((9, 9, 3), 255.0)], "image 1 has floats from 255 to 255; expected 0 to 1"),
        (torch.full((3, 9, 9), torch.nan), "floats from nan to nan"),
        ([7], "image 0 is a int; expected a path"),
        (7, "image 0 is a int"),
        ([None], "image 0 is a NoneType"),
    ],
)
def test_what_is_no_image_is_named(images: Any, message: str) -> None:
    with pytest.raises(SchnRayError, match=message):
        image_list(images)


def test_a_damaged_image_is_named_by_its_number(hasher: Hasher, files: list[Path]) -> None:
    half = Image.open(io.BytesIO(files[0].read_bytes()[:-60]))
    with pytest.raises(SchnRayError, match=r"image 1 is not an image that can be read: damaged"):
        hasher.encode([files[0].read_bytes(), half])
