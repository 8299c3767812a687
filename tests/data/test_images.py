from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image
from pydantic import ValidationError
from support.image_files import encode_image

from schn_ray.data.images import (
    BadImage,
    Preprocessing,
    decode,
    evaluation_view,
    normalise,
    training_view,
)

CAP = 1_000_000


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def reason(data: bytes, max_pixels: int = CAP) -> str:
    with pytest.raises(BadImage) as caught:
        decode(data, max_pixels)
    assert str(caught.value) == caught.value.reason
    return caught.value.reason


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises many pixels and holds hardly any."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    ihdr = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", ihdr) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("format", ["PNG", "BMP", "TIFF", "GIF", "WEBP", "AVIF", "JPEG"])
def test_every_format_gives_rgb_of_its_size(format: str) -> None:
    image = decode(encode_image(3, (20, 10), format), CAP)
    assert (image.mode, image.size) == ("RGB", (20, 10))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_every_mode_gives_rgb(mode: str) -> None:
    image = Image.new("RGB", (4, 4), (255, 0, 0)).convert(mode)
    format = {"CMYK": "TIFF", "YCbCr": "JPEG"}.get(mode, "PNG")
    red, green, blue = np.asarray(decode(encoded(image, format), CAP))[2, 2].tolist()
    if mode in ("1", "L", "LA"):
        assert red == green == blue
    else:
        assert red > 245
        assert max(green, blue) < 10


def test_transparency_is_laid_over_white() -> None:
    rgba = Image.new("RGBA", (3, 1))
    for x, alpha in enumerate((0, 128, 255)):
        rgba.putpixel((x, 0), (0, 0, 0, alpha))
    assert np.asarray(decode(encoded(rgba), CAP))[0, :, 0].tolist() == [255, 127, 0]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    data = encoded(palette, transparency=0)
    assert np.asarray(decode(data, CAP))[0].tolist() == [[255, 255, 255], [40, 50, 60]]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bit_gray_keeps_its_upper_byte(format: str) -> None:
    values = np.array([[0, 255, 256, 0x7FFF, 0xFFFF]], np.uint16)
    pixels = np.asarray(decode(encoded(Image.fromarray(values), format), CAP))
    assert pixels[0].tolist() == [[v] * 3 for v in (0, 0, 1, 0x7F, 255)]


def test_32_bit_pixels_are_refused() -> None:
    data = encoded(Image.fromarray(np.zeros((2, 2), np.float32)), "TIFF")
    assert reason(data) == "32-bit pixels (mode F); convert them to 8 or 16 bits"


def test_the_first_frame_of_an_animation_counts() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, CAP).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_applied(orientation: int) -> None:
    upright = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3) * 40)
    undo = [None, None, 0, 3, 1, 5, 2, 6, 4][orientation]  # the transpose that a camera did
    stored = upright if undo is None else upright.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = np.asarray(decode(encoded(stored, exif=exif), CAP))[:, :, 0]
    np.testing.assert_array_equal(shown, np.asarray(upright))


def test_a_damaged_exif_block_does_not_cost_the_image() -> None:
    data = encode_image(1, format="JPEG", exif=b"Exif\0\0this is not TIFF at all")
    assert decode(data, CAP).size == (16, 12)


def test_bad_bytes_have_a_reason() -> None:
    assert reason(b"") == "empty: 0 bytes"
    assert reason(b"<!DOCTYPE html><html>").startswith(
        "not an image: starts with b'<!DOCTYPE html><'; wanted JPEG, PNG"
    )
    assert reason(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n").startswith("not an image")


@pytest.mark.parametrize("format", ["PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "AVIF"])
def test_every_truncation_is_a_bad_image(format: str) -> None:
    data = encode_image(5, (24, 24), format)
    # the last bytes may be an end marker or a directory that no decoder needs
    for length in range(0, len(data) - 64, 7):
        with pytest.raises(BadImage):
            decode(data[:length], CAP)


def test_flipped_bits_decode_or_are_bad_images() -> None:
    rng = np.random.default_rng(0)
    for format in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        data = np.frombuffer(encode_image(6, (24, 24), format), np.uint8)
        for _ in range(100):
            damaged = data.copy()
            damaged[rng.integers(0, len(data), 4)] ^= rng.integers(1, 256, 4, np.uint8)
            with contextlib.suppress(BadImage):
                assert decode(damaged.tobytes(), CAP).mode == "RGB"


def test_a_bomb_is_refused_by_its_header() -> None:
    bomb = png_header(14_000, 14_000)
    tracemalloc.start()
    why = reason(bomb, 100_000_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert why == "14000 x 14000 pixels, more than max_pixels = 100,000,000"
    assert peak < 5_000_000


def test_the_cap_is_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)  # would refuse anything above 20 pixels
    assert decode(encode_image(0, (16, 12)), 16 * 12).size == (16, 12)
    assert "16 x 12 pixels" in reason(encode_image(0, (16, 12)), 16 * 12 - 1)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize("size", [(32, 32), (40, 30), (31, 57), (200, 90), (17, 300), (8, 8)])
@pytest.mark.parametrize(("resize", "crop"), [(32, 32), (37, 32), (64, 33)])
def test_evaluation_view_is_resize_then_centre_crop(
    size: tuple[int, int], resize: int, crop: int
) -> None:
    data = encode_image(7, size)
    whole = tv.resize(decode(data, CAP), [resize], antialias=True)
    expected = np.asarray(tv.center_crop(whole, [crop])).transpose(2, 0, 1)
    view = evaluation_view(data, Preprocessing(resize=resize, crop=crop))
    assert view.dtype == np.uint8
    assert view.flags.c_contiguous
    assert np.abs(view.astype(int) - expected).max() <= 2  # Pillow rounds after each axis


def test_the_filter_that_resizes_is_a_setting() -> None:
    data = encode_image(7, (90, 60))
    plain = Preprocessing(resize=32, crop=32)
    bicubic = Preprocessing(resize=32, crop=32, interpolation="bicubic")
    whole = decode(data, CAP).resize((48, 32), Image.Resampling.BICUBIC)
    expected = np.asarray(tv.center_crop(whole, [32])).transpose(2, 0, 1)
    np.testing.assert_array_equal(evaluation_view(data, bicubic), expected)
    assert (evaluation_view(data, plain) != expected).mean() > 0.1


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (1, 1)])
def test_extreme_shapes_need_little_memory(size: tuple[int, int]) -> None:
    data = encode_image(8, size)
    p = Preprocessing(resize=256, crop=224)
    tracemalloc.start()
    assert evaluation_view(data, p).shape == (3, 224, 224)
    view = training_view(decode(data, CAP), p, 4, True, np.array([0.99, 0.99, 0.9]))
    assert view.shape == (3, 224, 224)
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()


@pytest.mark.parametrize("draws", np.random.default_rng(1).random((20, 3)))
def test_training_view_is_pad_then_crop_then_mirror(draws: np.ndarray) -> None:
    data, pad, crop = encode_image(9, (40, 32)), 4, 32
    padded = np.pad(np.asarray(decode(data, CAP)), ((pad, pad), (pad, pad), (0, 0)))
    top = int(draws[0] * (padded.shape[0] - crop + 1))
    left = int(draws[1] * (padded.shape[1] - crop + 1))
    expected = padded[top : top + crop, left : left + crop]
    if draws[2] < 0.5:
        expected = expected[:, ::-1]
    view = training_view(decode(data, CAP), Preprocessing(resize=32, crop=crop), pad, True, draws)
    np.testing.assert_array_equal(view, expected.transpose(2, 0, 1))


def test_draws_reach_every_place_and_mirror_only_where_asked() -> None:
    data, p = encode_image(10, (32, 32)), Preprocessing(resize=32, crop=32)
    plain = training_view(decode(data, CAP), p, 0, False, np.array([0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(plain, evaluation_view(data, p))
    mirrored = training_view(decode(data, CAP), p, 0, True, np.array([0.0, 0.0, 0.0]))
    np.testing.assert_array_equal(mirrored, plain[:, :, ::-1])
    almost_one = np.nextafter(1.0, 0.0)
    first = training_view(decode(data, CAP), p, 4, False, np.array([0.0, 0.0, 0.9]))
    last = training_view(decode(data, CAP), p, 4, False, np.array([almost_one, almost_one, 0.9]))
    np.testing.assert_array_equal(first[:, 4:, 4:], plain[:, :-4, :-4])
    np.testing.assert_array_equal(last[:, :-4, :-4], plain[:, 4:, 4:])
    assert not first[:, :4].any()
    assert not last[:, -4:].any()


def test_normalise_is_torchvisions() -> None:
    p = Preprocessing(resize=32, crop=32)
    batch = torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    expected = tv.normalize(tv.to_dtype(batch, torch.float32, scale=True), p.mean, p.std)
    result = normalise(batch, p)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected)


def test_preprocessing_refuses_what_cannot_be_cut() -> None:
    with pytest.raises(ValidationError, match="crop 64 does not fit into resize 32"):
        Preprocessing(resize=32, crop=64)
    with pytest.raises(ValidationError, match="greater than 0"):
        Preprocessing(resize=32, crop=32, std=(1, 0, 1))


def test_decoding_needs_no_torch() -> None:
    script = "import sys, schn_ray.data.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_reduced_decoding_reads_large_jpegs_smaller_and_nothing_else() -> None:
    coarse = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    smooth = Image.fromarray(coarse).resize((1600, 1200), Image.Resampling.BICUBIC)
    jpeg, png = (encoded(smooth, kind) for kind in ("JPEG", "PNG"))
    assert decode(jpeg, 10**8, at_least=64).size == (200, 150)
    assert decode(jpeg, 10**8, at_least=512).size == (800, 600)
    assert decode(jpeg, 10**8, at_least=700).size == (1600, 1200)
    assert decode(png, 10**8, at_least=64).size == (1600, 1200)
    whole = Preprocessing(resize=32, crop=32)
    reduced = whole.model_copy(update={"reduced": True})
    views = [evaluation_view(jpeg, p).astype(int) for p in (whole, reduced)]
    assert 0 < np.abs(views[0] - views[1]).max() <= 12
    with pytest.raises(BadImage, match="more than max_pixels"):
        decode(jpeg, 10**6, at_least=64)
