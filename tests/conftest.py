"""Fixtures that several test modules share."""

from pathlib import Path

import pytest
from image_files import write_tree


@pytest.fixture
def image_tree(tmp_path: Path) -> Path:
    """Three classes of ten small PNGs: ``cat``, ``dog``, ``owl``."""
    return write_tree(tmp_path / "images", {"cat": 10, "dog": 10, "owl": 10})
