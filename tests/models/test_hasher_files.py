"""A model on disk: no changed byte of it is used."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from support.models import write_model

from schn_ray.core.atomic_files import sha256_file
from schn_ray.core.errors import SchnRayError
from schn_ray.models.load import load
from schn_ray.models.model_files import CHECKSUMS, SPEC, WEIGHTS, fingerprint


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "model")


def flip(file: Path, bit: int) -> None:
    """Flip one bit and keep the time of change."""
    data, status = bytearray(file.read_bytes()), file.stat()
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize("name", [WEIGHTS, SPEC])
@pytest.mark.parametrize("seed", range(20))
def test_a_flipped_bit_is_refused(model: Path, name: str, seed: int) -> None:
    file = model / name
    flip(file, int(np.random.default_rng(seed).integers(8 * file.stat().st_size)))
    for read in (load, fingerprint):
        with pytest.raises(SchnRayError, match=f"{name} differs from {CHECKSUMS}"):
            read(model)


def test_an_edited_spec_is_refused(model: Path) -> None:
    text = (model / SPEC).read_text()
    (model / SPEC).write_text(text.replace("resize:", "resize: 1 #"))
    with pytest.raises(SchnRayError, match="damaged or was edited"):
        load(model)


def test_checksums_that_are_missing_or_damaged_are_refused(model: Path) -> None:
    (model / CHECKSUMS).write_bytes(b"\xff nonsense")
    with pytest.raises(SchnRayError, match=CHECKSUMS):
        load(model)
    (model / CHECKSUMS).unlink()
    for read in (load, fingerprint):
        with pytest.raises(SchnRayError, match=f"not a complete model: it has no {CHECKSUMS}"):
            read(model)


def test_a_model_of_an_older_version_says_so(model: Path) -> None:
    text = (model / SPEC).read_text()
    old = "".join(line for line in text.splitlines(keepends=True) if line[0] != " ")
    assert "head:" in old
    (model / SPEC).write_text(old.replace("head:\n", ""))
    lines = [f"{sha256_file(model / name)}  {name}\n" for name in (WEIGHTS, SPEC)]
    (model / CHECKSUMS).write_text("".join(lines))
    with pytest.raises(SchnRayError, match=r"trained by an older version\. Train again"):
        load(model)


def test_the_usual_tool_reads_the_checksums(model: Path) -> None:
    command = ["sha256sum", "--check", "--strict", CHECKSUMS]
    assert subprocess.run(command, cwd=model, capture_output=True, check=False).returncode == 0
