"""The doctor, and the files that describe clusters."""

import copy
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from support.users import Run

from schn_ray.cluster.doctor import _strangers_answer

ROOT = Path(__file__).parents[2]


@pytest.mark.usefixtures("cluster")
def test_the_doctor_finds_what_a_node_cannot_write(schn_ray: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    answer = schn_ray("doctor", tmp_path, tmp_path / "file" / "below", "--json")
    checks = {f["what"]: f for f in json.loads(answer.out) if f["node"] != "cluster"}
    assert answer.code == 1
    assert checks[str(tmp_path)]["level"] == "ok"
    assert not list(tmp_path.glob("doctor*"))
    assert checks[str(tmp_path / "file" / "below")]["level"] == "error"
    assert "NotADirectory" in checks[str(tmp_path / "file" / "below")]["said"]
    (tmp_path / ".groups.parquet.partial").mkdir()
    answer = schn_ray("doctor", tmp_path)
    assert answer.code == 0, answer.out
    assert f"run them again, or remove {tmp_path}/.groups.parquet.partial" in answer.out
    assert re.search(r"^ok +cluster +torch", answer.out, re.MULTILINE)


class Dashboard(BaseHTTPRequestHandler):
    """Answers every question with a status."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "level", "message"),
    [
        (
            200,
            "error",
            "answers without a token: everyone who reaches it can run code",
        ),
        (401, "ok", "asks for a token"),
        (None, "ok", "not reachable from outside"),
    ],
)
def test_a_dashboard_that_answers_strangers_is_an_error(
    status: int | None, level: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Dashboard, "status", status)
    with HTTPServer(("127.0.0.1", 0), Dashboard) as server:
        port = server.server_address[1]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        if status is None:
            server.shutdown()
            server.server_close()
        answer = _strangers_answer("127.0.0.1", port)
        server.shutdown()
    assert (answer[0], message in answer[1]) == (level, True), answer


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/machines.yaml"])
def test_a_launcher_s_file_passes_ray_s_schema(name: str) -> None:
    config = yaml.safe_load((ROOT / name).read_text())
    validate_config(prepare_config(copy.deepcopy(config)))
    config["surprise"] = 1
    with pytest.raises(Exception, match="surprise"):
        validate_config(prepare_config(config))


@pytest.mark.parametrize("path", sorted((ROOT / "jobs").glob("*.py")), ids=lambda p: p.stem)
def test_a_job_is_its_verb(path: Path, schn_ray: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr("schn_ray.cli.main", lambda *verb: asked.extend(verb))
    exec(compile(path.read_text(), str(path), "exec"), {})
    assert asked == [{"nightly": "build"}.get(path.stem, path.stem)]
    assert f"python jobs/{path.name}" in path.read_text()
