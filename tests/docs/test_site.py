"""The documentation site is built without a warning; links and anchors lead somewhere."""

import subprocess
import sys
from pathlib import Path

import pytest

import schn_ray

pytest.importorskip("sphinx")
pytest.importorskip("myst_parser")
pytest.importorskip("furo")

ROOT = Path(__file__).parents[2]


def build(source: Path, out: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "--no-color",
        "-q",
        "-W",
        "--keep-going",
        "-c",
        ROOT / "docs",
    ]
    return subprocess.run([*command, source, out], capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    built = build(ROOT, out)
    assert built.returncode == 0, built.stderr
    return out


@pytest.mark.slow
def test_the_reference_has_every_name_and_its_docstring(site: Path) -> None:
    page = (site / "docs" / "api.html").read_text()
    for name in schn_ray.__all__:
        assert f'id="schn_ray.{name}"' in page or f".{name}" in page, name
    assert "the store with the split" in page  # of evaluate's arguments
    assert 'id="schn_ray.models.hasher.Hasher.encode"' in page


@pytest.mark.slow
def test_the_search_knows_words_of_all_pages(site: Path) -> None:
    index = (site / "searchindex.js").read_text()
    for word in ("pgvector", "sigterm", "quarantin", "schn_ray.duplicates", "oversampl"):
        assert word in index.lower(), word
    assert (site / "index.html").read_text() == (site / "README.html").read_text()
    assert (site / "search.html").is_file()


@pytest.mark.slow
def test_dead_links_are_errors_and_others_are_not(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    dead = ("docs/nothing.md", "docs/other.md#no-heading", "#nowhere", "nowhere/")
    links = ("docs/other.md", "docs/other.md#a-heading", "#page", *dead)
    text = "\n".join(f"- a [link]({link})" for link in links)
    (tmp_path / "README.md").write_text(f"# Page\n\n{text}\n")
    (tmp_path / "docs" / "other.md").write_text("---\norphan: true\n---\n# Other\n\n## A heading\n")
    built = build(tmp_path, tmp_path / "out")
    assert built.returncode == 1
    faults = built.stderr.splitlines()
    assert len(faults) == len(dead), built.stderr
    for fault, link in zip(faults, dead, strict=True):
        assert link.partition("#")[2] in fault
        assert fault.endswith("[myst.xref_missing]")
