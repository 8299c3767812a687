"""Who only searches needs no torch: the wheel and its requirements alone, and each verb in use."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.environments import empty_environment, install, install_packages
from support.hub import TOKEN, running_hub
from support.image_files import write_tree
from support.models import write_model
from support.processes import free_port, wait_for
from support.users import Answer
from support.wheels import build_wheel

import schn_ray
from schn_ray.models.export import export_onnx
from schn_ray.retrieval.code_files import read_codes

pytestmark = pytest.mark.slow
LIMIT = 600_000_000  # bytes, of all packages
ABSENT = ("torch", "torchvision", "ray", "sklearn", "matplotlib", "onnx", "pandas")


@dataclass(frozen=True)
class Alone:
    """An environment with the wheel and its requirements, and a folder of photos and a model."""

    folder: Path
    size: int

    def run(self, *arguments: object) -> Answer:
        """Run the environment's Python in the folder."""
        done = self.start(*arguments)
        out, err = done.communicate()
        return Answer(done.returncode, out, err)

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        command = [self.folder / "environment/bin/python", *arguments]
        passed = ("PATH", "HOME", *(name for name in os.environ if name.startswith("HF_")))
        environment = {name: os.environ[name] for name in passed if name in os.environ}
        return subprocess.Popen(
            list(map(str, command)),
            cwd=self.folder,
            env=environment | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def verb(self, *arguments: object) -> Answer:
        """Run a verb that must succeed."""
        answer = self.run("-m", "schn_ray", *arguments)
        assert answer.code == 0, answer.err
        return answer


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Alone:
    folder = tmp_path_factory.mktemp("alone")
    photos = write_tree(folder / "photos", {"cat": 30, "dog": 30})
    shutil.copy(photos / "cat/007.png", photos / "dog/twin.png")
    export_onnx(write_model(folder / "model", bits=32), folder / "export/m.onnx", str(photos))
    schn_ray.prepare(photos, folder / "store", settings={"protocol": "random"})
    built = folder / "built"
    built.mkdir()
    size = install(build_wheel(built), empty_environment(folder / "environment"))
    return Alone(folder, size)


def test_the_environment_is_small_and_has_no_torch(alone: Alone) -> None:
    print(f"{alone.size / 1e6:.0f} MB installed")
    assert 100_000_000 < alone.size < LIMIT
    answer = alone.run(
        "-c",
        "import importlib.util as u, sys, schn_ray; print(schn_ray.__file__);"
        f"print([m for m in {ABSENT} if u.find_spec(m)])",
    )
    file, absent = answer.out.splitlines()
    assert Path(file).is_relative_to(alone.folder / "environment")
    assert absent == "[]"


def test_images_are_encoded_and_searched_as_with_torch(alone: Alone) -> None:
    """The oracle is torch's own network, in this process."""
    answer = alone.verb("encode", "photos", "--model", "export/m.onnx", "--out", "codes")
    assert "61" in answer.out
    assert "without Ray" in answer.err
    codes = schn_ray.encode(alone.folder / "photos", alone.folder / "model", alone.folder / "own")
    index = schn_ray.build_index(codes, alone.folder / "own-index")
    alone.verb("index", "codes", "--out", "index")
    again = alone.verb("encode", "photos", "--model", "export", "--out", "codes")
    assert "finished already" in again.err

    photo = alone.folder / "photos/cat/007.png"
    answer = alone.verb("search", "index", photo, "--model", "export", "-k", 9, "--html", "p.html")
    expected = schn_ray.search(index, [photo], model=alone.folder / "model", k=9)
    assert answer.out == expected.text() + "\n"
    assert "<style>" in (alone.folder / "p.html").read_text()
    answer = alone.verb("search", "index", "--id", "cat/007.png", "-k", 9)
    assert answer.out == schn_ray.search(index, id=["cat/007.png"], k=9).text() + "\n"


def test_codes_are_compared_measured_and_converted(alone: Alone) -> None:
    answer = alone.verb("duplicates", "index", "--out", "groups.parquet", "--json")
    own = schn_ray.duplicates(alone.folder / "own-index", alone.folder / "own-groups.parquet")
    assert json.loads(answer.out) == own.to_json() | {"path": "groups.parquet"}
    alone.verb("convert", "codes", "--to", "faiss", "--out", "faiss")
    measured = alone.verb(
        *("evaluate", "export", "--store", "store", "--out", "e", "--json"),
        *("--set", "controls.train_rows=0"),
    )
    assert 0 < json.loads(measured.out)["map"] < 1
    assert "pip install 'schn-ray[report]'" in measured.err  # a map of the codes is missing


def test_it_is_served(alone: Alone) -> None:
    port = free_port()
    serving = alone.start("-m", "schn_ray", "serve", "index", "--model", "export", "--port", port)
    try:
        assert serving.stdout is not None
        assert serving.stdout.readline().endswith(f"http://127.0.0.1:{port}\n")
        photo = (alone.folder / "photos/dog/003.png").read_bytes()
        address = f"http://127.0.0.1:{port}/search?k=3"
        request = urllib.request.Request(address, photo, {"content-type": "image/png"})
        with urllib.request.urlopen(request) as response:
            assert json.load(response)["hits"][0]["id"] == "dog/003.png"
        serving.send_signal(signal.SIGTERM)
        out, err = serving.communicate(timeout=60)
        assert (serving.returncode, out) == (143, "")
        assert "terminated" in err
        assert "Traceback" not in err
    finally:
        serving.kill()
    wait_for(lambda: serving.poll() is not None)


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("train", "store", "--out", "run"), "train"),
        (("encode", "photos", "--model", "model", "--out", "other"), "train"),
        (("tune", "store", "--space", "quick", "--trials", "1", "--out", "t"), "train"),
        (("build", "photos", "--out", "album"), "photos"),
        (("check", "hf://datasets/ann/birds"), "hub"),
        (("doctor",), "ray"),
        (("check", "digits"), "report"),
        (("encode", "photos", "--model", "hf://ann/birds", "--out", "other"), "hub"),
    ],
)
def test_a_verb_names_the_extra_that_is_missing(
    alone: Alone, arguments: tuple[str, ...], extra: str
) -> None:
    answer = alone.run("-m", "schn_ray", *arguments)
    assert answer.code == 2, answer.err
    assert f"pip install 'schn-ray[{extra}]'" in answer.err
    assert "Traceback" not in answer.err


def test_a_model_goes_to_the_hub_and_comes_back(
    alone: Alone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it in processes of the environment, with the hub's own variables."""
    (packages,) = alone.folder.glob("environment/lib/python*/site-packages")
    install_packages(["huggingface_hub"], packages)
    monkeypatch.setenv("HF_HOME", str(alone.folder / "hub"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    encode = ("encode", "photos", "--model", "hf://ann/birds", "--out", "codes-of-hub")
    with running_hub() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        alone.verb("push", "model", "ann/birds", "--onnx", "export/m.onnx")
        alone.verb(*encode)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    again = alone.verb(*encode)  # the hub is gone, and its files are in the cache
    assert "finished already" in again.err
    outs = alone.folder / "codes-of-export", alone.folder / "codes-of-hub"
    schn_ray.encode(alone.folder / "photos", alone.folder / "export", outs[0])
    expected, actual = map(read_codes, outs)
    assert actual[0] == expected[0]
    assert actual[1].tolist() == expected[1].tolist()
