"""Photos as phones make them: HEIC with an extra, which is named where it is missing, and AVIF."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.image_files import encode_image, write_tree

import schn_ray
from schn_ray.core.errors import TooManyBadRows
from schn_ray.data import images
from schn_ray.data.images import BadImage, decode
from schn_ray.data.shards import pending

heif: Any = pytest.importorskip("pillow_heif")


def photo() -> Image.Image:
    """A picture with a bright corner, so that it is seen which way it was turned."""
    pixels = np.zeros((24, 48, 3), np.uint8)
    pixels[:12, :24] = (250, 200, 40)
    return Image.fromarray(pixels)


def as_heic(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    heif.from_pillow(image).save(file, quality=95, **options)
    return file.getvalue()


def as_avif(image: Image.Image, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "AVIF", quality=95, **options)
    return file.getvalue()


@pytest.fixture
def no_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "can_read_heic", lambda: False)


@pytest.mark.parametrize("encode", [as_heic, as_avif])
def test_heic_and_avif_are_decoded_upright(encode: Any) -> None:
    difference = np.abs(np.asarray(decode(encode(photo()), 10_000), int) - np.asarray(photo()))
    assert difference.mean() < 5
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    turned = decode(encode(photo(), exif=exif.tobytes()), 10_000)
    expected = np.asarray(photo().transpose(Image.Transpose.ROTATE_270))
    assert turned.size == (24, 48)
    assert np.abs(np.asarray(turned, int) - expected).mean() < 5


def test_a_large_or_damaged_heic_is_a_bad_image() -> None:
    data = as_heic(photo())
    with pytest.raises(BadImage, match="48 x 24 pixels, more than max_pixels"):
        decode(data, 100)
    for damaged in (data[: len(data) // 2], data[:40], data[:12]):
        with pytest.raises(BadImage):
            decode(damaged, 10_000)


@pytest.mark.usefixtures("no_decoder")
def test_without_the_extra_the_image_names_it() -> None:
    with pytest.raises(BadImage, match=r"pip install 'schn-ray\[heic\]'"):
        decode(as_heic(photo()), 10_000)
    assert decode(as_avif(photo()), 10_000).size == (48, 24)


def write_photos(root: Path) -> Path:
    write_tree(root, {"cat": 8, "dog": 8})
    for number in range(2):
        image = Image.open(io.BytesIO(encode_image(90 + number)))
        (root / "dog" / f"IMG_{number}.HEIC").write_bytes(as_heic(image))
    return root


SKIPPED = "2 .heic files skipped: pip install 'schn-ray[heic]'"


def test_no_image_is_ignored_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, store = write_photos(tmp_path / "photos"), tmp_path / "store"
    with monkeypatch.context() as missing:
        for module in (images, pending):
            missing.setattr(module, "can_read_heic", lambda: False)
        assert f"  {SKIPPED}\n" in schn_ray.check(photos).text()
        with pytest.raises(
            TooManyBadRows, match=r"(?s)2 of 18 rows.*\n2 \.heic files skipped: pip"
        ):
            schn_ray.prepare(photos, store)
        settings = {"source.max_bad_share": 0.5}
        prepared = schn_ray.prepare(photos, store, settings=settings)
        assert schn_ray.prepare(photos, store, settings=settings, update=True).note
        assert prepared.text().endswith(f"\n  {SKIPPED}, then the same command with --update")
    again = schn_ray.prepare(photos, store, settings=settings, update=True)
    assert (again.counts["rows"], again.counts["quarantined"]) == (18, 0)
    assert "skipped" not in again.text()
    assert "skipped" not in schn_ray.check(photos).text()
