"""What documents say of the code: the README's snippet runs, what they name exists."""

import re
from pathlib import Path

import pytest
from support.users import TINY

import schn_ray
from schn_ray.data.sources.fetch import fetch

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
QUICK = (*TINY, "bits=32", "schedule.iterations=1", "schedule.samples=64")


def test_the_snippet_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(snippet.strip().splitlines()) < 10
    demo = tmp_path / "demo"
    store = schn_ray.prepare("digits", demo / "store")
    run = schn_ray.train(store, demo / "run", preset="digits", settings=QUICK)
    codes = schn_ray.encode("digits", run, demo / "codes")
    schn_ray.build_index(codes, demo / "index")
    (demo / "query.png").write_bytes(fetch("digits#7"))
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, str(README), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(re.fullmatch(r"digit-\d{4} \d+", line) for line in lines)
    assert lines[0].endswith(" 0")


def documents() -> list[Path]:
    return [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]


def test_files_that_the_architecture_names_exist() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rooms = "|".join(path.name for path in (ROOT / "schn_ray").iterdir() if path.is_dir())
    named = set(re.findall(rf"`((?:{rooms})/[\w/]*(?:\.py)?)`", text))
    assert len(named) > 60
    assert not [name for name in named if not (ROOT / "schn_ray" / name).exists()]
    others = set(re.findall(r"`((?:tests|docs|schn_ray)/[\w/.]+)`", text))
    assert not [name for name in others if not (ROOT / name).exists()]


def test_names_of_the_package_in_documents_exist() -> None:
    texts = [path.read_text() for path in documents()]
    named = {name for text in texts for name in re.findall(r"\bschn_ray((?:\.\w+)+)", text)}
    assert {".load", ".open_index", ".prepare", ".write_report"} <= named
    for name in named:
        first, *_ = parts = name.lstrip(".").split(".")
        file = ROOT.joinpath("schn_ray", *parts)
        assert first in schn_ray.__all__ or file.is_dir() or file.with_suffix(".py").is_file(), name


def test_tests_that_documents_name_exist() -> None:
    for path in documents():
        for file, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", path.read_text()):
            assert f"\ndef {name}(" in (ROOT / file).read_text(), f"{path.name}: {file}::{name}"


def test_every_answer_to_ray_s_users_names_a_test() -> None:
    _, *sections = (ROOT / "docs" / "ray_users.md").read_text().split("\n## ")
    assert len(sections) == 10
    answered = ("::test_", "**Not done here.**")
    assert not [text.splitlines()[0] for text in sections if not any(a in text for a in answered)]


def test_links_between_documents_lead_somewhere() -> None:
    for path in documents():
        for link in re.findall(r"\]\(([\w./-]+)\)", path.read_text()):
            assert (path.parent / link).exists(), f"{path.name}: {link}"
