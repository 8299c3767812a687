"""Encoding where things go wrong: hostile images, full and read-only disks, a second writer."""

from __future__ import annotations

import io
import multiprocessing
import os
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from support.image_files import encode_image, write_tree
from support.models import write_model

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import SourceConfig
from schn_ray.data.shards.map_shards import map_locally
from schn_ray.data.sources.kinds import open_source
from schn_ray.models.hasher import load
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source

SETTINGS = EncodeConfig(source=SourceConfig(shard_rows=8, max_bad_share=0.9), relaxed=True)


def code(photos: Path, model: Path, out: Path, map_shards: Any = map_locally) -> dict[str, Any]:
    source = open_source(str(photos), SETTINGS.source)
    return encode_source(source, model, out, SETTINGS, map_shards).counts


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "model", size=16)


# --- what users have


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    data = io.BytesIO()
    image.save(data, format, **options)
    return data.getvalue()


def png_of(width: int, height: int) -> bytes:
    """A PNG that promises many pixels and holds hardly any."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + crc

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def photo() -> Image.Image:
    return Image.open(io.BytesIO(encode_image(3, (40, 24)))).convert("RGB")


def read_rightly() -> dict[str, tuple[bytes, Image.Image]]:
    """Name -> what lies on disk, and the plain image that a person sees in it."""
    rgb, red = photo(), Image.new("RGB", (40, 24), "red")
    pixel, thin = Image.new("RGB", (1, 1), "blue"), Image.new("RGB", (1, 20_000), "red")
    half = Image.new("L", rgb.size, 128)
    veiled = rgb.copy()
    veiled.putalpha(half)
    gray = np.arange(24 * 40, dtype=np.uint16).reshape(24, 40) * 68
    seen = Image.fromarray((gray >> 8).astype(np.uint8)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6
    palette, cmyk = rgb.quantize(16), rgb.convert("CMYK")
    la = Image.merge("LA", (rgb.convert("L"), Image.new("L", rgb.size, 255)))
    turned = rgb.transpose(Image.Transpose.ROTATE_90)
    over_white = Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), veiled).convert("RGB")
    return {
        "one pixel.png": (saved(pixel), pixel),
        "thin.png": (saved(thin), thin),
        "cmyk.tiff": (saved(cmyk, "TIFF"), cmyk.convert("RGB")),
        "la.png": (saved(la), rgb.convert("L").convert("RGB")),
        "palette.png": (saved(palette), palette.convert("RGB")),
        "alpha.png": (saved(veiled), over_white),
        "sixteen.png": (saved(Image.fromarray(gray)), seen),
        "animated.gif": (
            saved(rgb.quantize(256), "GIF", save_all=True, append_images=[red.quantize()]),
            rgb.quantize(256).convert("RGB"),
        ),
        "plain.bmp": (saved(rgb, "BMP"), rgb),
        "plain.tif": (saved(rgb, "TIFF"), rgb),
        "turned.png": (saved(turned, exif=exif), rgb),
        "a name with spaces.png": (saved(rgb), rgb),
        "line\nbreak.png": (saved(rgb), rgb),
        "zürich 猫.png": (saved(rgb), rgb),
        "really a png.jpg": (saved(rgb), rgb),
    }


def quarantine_rows() -> dict[str, tuple[bytes, str]]:
    """Name -> what lies on disk, and how the reason begins."""
    whole = encode_image(4, (40, 24))
    return {
        "empty.jpg": (b"", "empty: 0 bytes"),
        "html.jpg": (b"<!DOCTYPE html><html></html>", "not an image: starts with b'<!DOCTYPE html"),
        "half.png": (whole[: len(whole) // 2], "damaged: "),
        "half.jpg": (encode_image(4, (40, 24), "JPEG")[:400], "damaged: "),
        "bomb.png": (png_of(14_000, 14_001), "14000 x 14001 pixels, more than max_pixels"),
        "float.tiff": (
            saved(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"),
            "32-bit pixels (mode F)",
        ),
        "program.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image: "),
    }


def test_every_image_is_read_rightly_or_put_aside_with_its_reason(
    model: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    (photos / "loop").mkdir(parents=True)
    (photos / "loop" / "up").symlink_to(photos)
    (photos / "self.png").symlink_to(photos / "self.png")
    (photos / "gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(photos / "pipe.png")
    Path(os.fsdecode(os.fsencode(photos) + b"/\xff.png")).write_bytes(encode_image(1))
    right, wrong = read_rightly(), quarantine_rows()
    for name, (data, _) in (right | wrong).items():
        (photos / name).write_bytes(data)
    counts = code(photos, model, tmp_path / "codes")
    assert counts == {"rows": 26, "encoded": len(right), "quarantined": 11}
    tables = [pq.read_table(part) for part in sorted((tmp_path / "codes").glob("data/part-*"))]
    coded = {row["id"]: row for table in tables for row in table.to_pylist()}
    assert coded.keys() == right.keys()
    hasher = load(model)
    for name, (_, seen) in right.items():
        assert coded[name]["code"] == hasher.encode([saved(seen)])[0].tobytes(), name
        relaxed = hasher.relaxed(next(views(hasher, saved(seen))))[0].numpy().astype(np.float16)
        np.testing.assert_array_equal(np.array(coded[name]["relaxed"], np.float16), relaxed)
    bad = {
        row["id"]: row
        for row in pq.read_table(tmp_path / "codes" / "quarantine.parquet").to_pylist()
    }
    for name, (_, reason) in wrong.items():
        assert (bad[name]["stage"], bad[name]["reason"][: len(reason)]) == ("decode", reason)
    assert {
        name: (bad[name]["stage"], bad[name]["reason"]) for name in bad.keys() - wrong.keys()
    } == {
        "self.png": ("read", "Too many levels of symbolic links"),
        "gone.png": ("read", "No such file or directory"),
        "pipe.png": ("read", "not a regular file"),
        "\\xff.png": ("read", "its name is not UTF-8; rename the file"),
    }


def views(hasher: Any, data: bytes) -> Iterator[Any]:
    from schn_ray.data.images import evaluation_view

    yield evaluation_view(data, hasher.spec.preprocessing)[None]


# --- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 KB, where this user may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a disk is not allowed here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_said_and_after_making_room_the_same_command_finishes(
    model: Path, tmp_path: Path, small_disk: Path
) -> None:
    photos = write_tree(tmp_path / "photos", {"cat": 60})
    ballast, out = small_disk / "ballast", small_disk / "codes"
    ballast.write_bytes(bytes(384_000))
    with pytest.raises(SchnRayError, match=r"cannot write .*codes.*No space left.*same command"):
        code(photos, model, out)
    done = {path.name: path.stat().st_ino for path in out.glob("data/part-*.parquet")}
    assert 0 < len(done) < 8
    assert not list(out.rglob("*.partial"))
    ballast.unlink()
    assert code(photos, model, out)["encoded"] == 60
    parts = {path.name: path.stat().st_ino for path in (out / "data").iterdir()}
    assert done.items() <= parts.items()
    code(photos, model, tmp_path / "whole")
    for part in (tmp_path / "whole").glob("data/part-*"):
        assert part.read_bytes() == (out / "data" / part.name).read_bytes()


def test_a_disk_that_is_full_from_the_start_leaves_nothing(
    model: Path, image_tree: Path, small_disk: Path
) -> None:
    with (small_disk / "ballast").open("wb") as file, pytest.raises(OSError, match="No space"):
        file.write(bytes(500_000))
    with pytest.raises(SchnRayError, match=r"cannot write .*No space left"):
        code(image_tree, model, small_disk / "codes")
    assert [path.name for path in small_disk.iterdir()] in (["ballast"], ["ballast", "codes"])
    (small_disk / "ballast").unlink()
    assert code(image_tree, model, small_disk / "codes")["encoded"] == 30


def test_a_read_only_disk_is_said(model: Path, image_tree: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(SchnRayError, match=r"cannot write .*codes: Read-only file system"):
        code(image_tree, model, small_disk / "codes")


LIMITED = """
import pathlib, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.path[:0] = [sys.argv[2], str(pathlib.Path(sys.argv[2]).parent)]
from pathlib import Path
from test_encode_failures import code
code(*map(Path, sys.argv[3:]))
"""


def test_a_file_that_may_not_grow_is_said_too(
    model: Path, image_tree: Path, tmp_path: Path
) -> None:
    out = tmp_path / "codes"
    arguments = ["1500", str(Path(__file__).parent), str(image_tree), str(model), str(out)]
    command = [sys.executable, "-c", LIMITED, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "CannotWrite: cannot write" in ended.stderr, ended.stderr
    assert "File too large" in ended.stderr
    assert not list(out.rglob("*.partial"))
    assert code(image_tree, model, out)["encoded"] == 30


# --- a second writer


def waits(entered: Any, leave: Any) -> Callable[..., Iterable[Any]]:
    def map_shards(function: Callable[[Any], Any], shards: Iterable[Any]) -> Iterable[Any]:
        entered.set()
        leave.wait(60)
        return map(function, shards)

    return map_shards


def write_slowly(photos: Path, model: Path, out: Path, entered: Any, leave: Any) -> None:
    code(photos, model, out, waits(entered, leave))


def test_a_second_writer_stops_and_the_first_one_finishes(
    model: Path, image_tree: Path, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("spawn")
    entered, leave = context.Event(), context.Event()
    arguments = (image_tree, model, tmp_path / "codes", entered, leave)
    first = context.Process(target=write_slowly, args=arguments)
    first.start()
    try:
        assert entered.wait(60)
        with pytest.raises(SchnRayError, match=r"another process is writing .*codes; wait for it"):
            code(image_tree, model, tmp_path / "codes")
    finally:
        leave.set()
        first.join()
    assert first.exitcode == 0
    assert len(pq.read_table(tmp_path / "codes" / "data" / "part-00000.parquet")) == 8
