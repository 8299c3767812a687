"""The wheel, built of a copy of what the Dockerfile copies: no build leaves files in a checkout."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
_BUILD = (
    "from setuptools.build_meta import build_wheel; import sys; print(build_wheel(sys.argv[1]))"
)


def build_wheel(folder: Path) -> Path:
    """Build the wheel in a folder; return its path."""
    source = folder / "source"
    source.mkdir()
    copied = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if "COPY" in line]
    for name in {word for line in copied for word in line.split()[1:-1]}:
        (source / name).symlink_to(ROOT / name)
    build = subprocess.run(
        [sys.executable, "-c", _BUILD, str(folder)], cwd=source, capture_output=True, text=True
    )
    assert build.returncode == 0, build.stderr
    return folder / build.stdout.split()[-1]
