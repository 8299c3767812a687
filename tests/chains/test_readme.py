"""The README's snippet, run as it stands after a small run in place of the demo's."""

import re
from pathlib import Path

import pytest
from support.users import TINY

from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.fetch import fetch
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.index.build import write_index
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally

README = Path(__file__).parents[2] / "README.md"
QUICK = (*TINY, "bits=32", "schedule.iterations=1", "schedule.samples=64")


def test_the_snippet_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(snippet.strip().splitlines()) < 10
    demo = tmp_path / "demo"
    digits = open_source("digits", SourceConfig())
    prepare_store(digits, PrepareConfig(), demo / "store")
    train_locally(train_config("digits", None, QUICK), demo / "store", demo / "run")
    encode_source(digits, demo / "run", demo / "codes", EncodeConfig())
    write_index(demo / "codes", demo / "index")
    (demo / "query.png").write_bytes(fetch("digits#7"))
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, str(README), "exec"), {})
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5
    assert all(re.fullmatch(r"digit-\d{4} \d+", line) for line in lines)
    assert lines[0].endswith(" 0")
