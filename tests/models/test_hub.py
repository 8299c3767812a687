"""Models on the Hugging Face hub, against a stand-in: both directions, and what goes wrong."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.hub import TOKEN, Hub, running_hub
from support.image_files import write_tree
from support.models import write_model
from support.users import Run

import schn_ray
from schn_ray import encode
from schn_ray.core.errors import SchnRayError
from schn_ray.models import push as push_module
from schn_ray.models.hub import HubAddress, hub_address
from schn_ray.models.load import load, pinned
from schn_ray.models.model_files import SPEC, fingerprint, read_spec
from schn_ray.models.onnx_hasher import OnnxHasher

NAME = "ann/birds"
ADDRESS = f"hf://{NAME}"
VIEWS = np.random.default_rng(0).integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def served() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(served: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """An empty hub, with the owner's token and an empty cache."""
    for values in (served.repositories, served.objects, served.requests):
        values.clear()
    served.accepted, served.before = None, lambda: None
    constants = huggingface_hub.constants
    template = f"{served.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    return served


@pytest.fixture
def offline_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Return what switches HF_HUB_OFFLINE."""

    def switch(on: bool) -> None:
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", on)
        monkeypatch.setattr(huggingface_hub.constants, "is_offline_mode", lambda: on)

    return switch


@pytest.fixture
def offline(offline_at: Callable[[bool], None]) -> None:
    offline_at(True)


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def spec(name: str) -> object:
        return None if name == "torch" else find_spec(name)

    for module in ("hub", "onnx_hasher"):
        monkeypatch.setattr(f"schn_ray.models.{module}.find_spec", spec)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("made") / "model")


def write_export(file: Path, model: Path) -> Path:
    """Write what ``export`` writes, of a network that is one sum: no exporter is needed."""
    spec = read_spec(model / SPEC)
    rows = helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 3, 8, 8])
    relaxed = helper.make_tensor_value_info("relaxed", TensorProto.FLOAT, ["n", spec.bits])
    weights = np.random.default_rng(1).standard_normal((192, spec.bits)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["images"], ["numbers"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["numbers"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["relaxed"]),
    ]
    tensors = [onnx.numpy_helper.from_array(weights, "weights")]
    graph = helper.make_graph(nodes, "sum", [rows], [relaxed], tensors)
    opset = [helper.make_opsetid("", 18)]
    data = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    described = {"model": fingerprint(model), "spec": spec.model_dump(mode="json")}
    digest = {"sha256": hashlib.sha256(data).hexdigest()}
    file.with_suffix(".json").write_text(json.dumps(described | digest))
    file.with_suffix(".md").write_text(f"# A model\n\n## ONNX\n\n`{file.name}`: as it was.\n")
    return file


def test_what_is_pushed_is_loaded_with_the_same_codes(hub: Hub, model: Path) -> None:
    pushed = schn_ray.push(model, NAME)
    assert hub.repositories[NAME].private
    assert pushed.path == ADDRESS
    assert (
        load(ADDRESS).encode_views([VIEWS]).tolist() == load(model).encode_views([VIEWS]).tolist()
    )
    assert load(ADDRESS).fingerprint == fingerprint(model)
    files = hub.files(NAME)
    assert files["SHA256SUMS"] == (model / "SHA256SUMS").read_bytes()
    assert files["README.md"].startswith(b"---\nlibrary_name: schn-ray\n")
    assert f'schn_ray.load("{ADDRESS}")'.encode() in files["README.md"]


def test_pushing_again_changes_nothing(hub: Hub, model: Path) -> None:
    assert not schn_ray.push(model, NAME).pushed.unchanged
    again = schn_ray.push(ADDRESS, ADDRESS)  # of what was downloaded
    assert again.pushed.unchanged
    assert "had these files already" in again.text()
    assert len(hub.repositories[NAME].commits) == 2  # the first is the empty repository


def test_revisions_are_kept_apart(hub: Hub, model: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "other", seed=1)
    schn_ray.push(model, NAME, public=True)
    schn_ray.push(other, NAME, revision="v/2")
    assert not hub.repositories[NAME].private
    assert load(ADDRESS).fingerprint == fingerprint(model)
    assert load(f"{ADDRESS}@v%2F2").fingerprint == fingerprint(other)
    commit = hub.repositories[NAME].branches["main"]
    assert pinned(ADDRESS) == f"{ADDRESS}@{commit}"
    schn_ray.push(other, NAME)
    assert load(f"{ADDRESS}@{commit}").fingerprint == fingerprint(model)


def test_an_upload_that_breaks_off_leaves_the_repository_as_it_was(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    export = write_export(tmp_path / "m.onnx", model)
    hub.accepted = {hashlib.sha256(export.read_bytes()).hexdigest()}
    with pytest.raises(SchnRayError, match=r"broke off .* run the same command"):
        schn_ray.push(model, NAME, onnx=export)
    assert list(hub.files(NAME)) == [".gitattributes"]
    assert hub.objects.keys() == hub.accepted
    with pytest.raises(SchnRayError, match=r"no weights\.safetensors"):
        load(ADDRESS)
    hub.accepted = None
    hub.requests.clear()
    schn_ray.push(model, NAME, onnx=export)
    assert sum(request.startswith("PUT") for request in hub.requests) == 1  # the other one
    assert load(ADDRESS).fingerprint == fingerprint(model)


def killed_at_request(hub: Hub, number: int, work: Callable[..., object], *args: object) -> bool:
    """Run work in a process that dies at one of its requests; return whether it came to that."""
    process = multiprocessing.get_context("fork").Process(target=work, args=args)
    requests = itertools.count()

    def kill() -> None:
        if next(requests) == number:
            process.kill()

    hub.before = kill
    process.start()
    process.join(60)
    hub.before = lambda: None
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_a_push_killed_at_any_request_leaves_one_whole_model(
    hub: Hub, model: Path, tmp_path: Path
) -> None:
    older = write_model(tmp_path / "older", seed=1)
    schn_ray.push(older, NAME, onnx=write_export(tmp_path / "older.onnx", older))
    export = write_export(tmp_path / "m.onnx", model)
    for number in itertools.count():
        finished = not killed_at_request(hub, number, _push, model, export)
        of_onnx = load(f"{ADDRESS}/model.onnx").fingerprint
        assert load(ADDRESS).fingerprint == of_onnx
        if finished:
            break
        assert of_onnx in (fingerprint(older), fingerprint(model))
    assert number > 5
    assert of_onnx == fingerprint(model)


def _push(model: Path, export: Path) -> None:
    schn_ray.push(model, NAME, onnx=export)


@pytest.mark.slow
def test_a_download_killed_at_any_request_is_no_model_until_it_is_whole(
    hub: Hub, model: Path, offline_at: Callable[[bool], None]
) -> None:
    schn_ray.push(model, NAME)
    for number in itertools.count():
        if not killed_at_request(hub, number, load, ADDRESS):
            break
        offline_at(True)
        with pytest.raises(SchnRayError, match=r"not in the cache|has no "):
            load(ADDRESS)
        offline_at(False)
    assert number > 3
    assert load(ADDRESS).fingerprint == fingerprint(model)


def test_of_two_pushes_at_once_the_second_says_so(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schn_ray.push(model, NAME)
    other = write_model(tmp_path / "other", seed=1)
    push = push_module._require_own

    def meanwhile(*args: Any) -> None:
        monkeypatch.setattr(push_module, "_require_own", push)
        schn_ray.push(model, NAME, onnx=write_export(tmp_path / "m.onnx", model))

    monkeypatch.setattr(push_module, "_require_own", meanwhile)
    with pytest.raises(SchnRayError, match="somebody else pushed there at the same time; run the"):
        schn_ray.push(other, NAME)
    assert load(f"{ADDRESS}/model.onnx").fingerprint == fingerprint(model)


@pytest.mark.parametrize("file", ["weights.safetensors", "hasher.yaml"])
def test_damaged_files_are_refused(hub: Hub, model: Path, file: str) -> None:
    schn_ray.push(model, NAME)
    content = hub.files(NAME)[file]
    hub.files(NAME)[file] = content[:-1] + bytes([content[-1] ^ 1])
    with pytest.raises(SchnRayError, match=rf"{file} differs from SHA256SUMS.*Remove .*ann--birds"):
        load(ADDRESS)


def test_a_damaged_model_is_not_pushed(hub: Hub, model: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(model, tmp_path / "copy")
    (copy / "hasher.yaml").write_text((copy / "hasher.yaml").read_text() + "# edited\n")
    with pytest.raises(SchnRayError, match="damaged or was edited"):
        schn_ray.push(copy, NAME)
    assert not hub.repositories


@pytest.mark.usefixtures("offline")
def test_offline_without_a_copy_is_said(hub: Hub) -> None:
    with pytest.raises(SchnRayError, match=r"not in the cache .* HF_HUB_OFFLINE is set"):
        load(ADDRESS)
    assert not hub.requests


def test_offline_the_cache_is_used(hub: Hub, model: Path, request: pytest.FixtureRequest) -> None:
    schn_ray.push(model, NAME)
    assert load(ADDRESS).fingerprint == fingerprint(model)
    request.getfixturevalue("offline")
    hub.requests.clear()
    assert load(ADDRESS).fingerprint == fingerprint(model)
    with pytest.raises(SchnRayError, match="HF_HUB_OFFLINE is set"):
        schn_ray.push(model, NAME)
    assert not hub.requests


def test_messages_say_what_to_do(
    hub: Hub, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SchnRayError, match=r"shows no such model to you.*HF_TOKEN"):
        load("hf://ann/nothing")
    schn_ray.push(model, NAME)
    with pytest.raises(SchnRayError, match="no such revision"):
        load(f"{ADDRESS}@v9")
    with pytest.raises(SchnRayError, match="hf://user/name"):
        load("hf://birds")
    with pytest.raises(SchnRayError, match="not the name of a repository"):
        schn_ray.push(model, f"{NAME}@main")
    with pytest.raises(SchnRayError, match="not a name of the hub"):
        schn_ray.push(model, "ann/bi--rds")
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(SchnRayError, match="does not know you: log in"):
        schn_ray.push(model, NAME)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    with pytest.raises(SchnRayError, match=r"shows no such model to you.*HF_TOKEN"):
        load(ADDRESS)


def test_who_lacks_the_library_is_told_the_extra(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for attempt in (lambda: schn_ray.load(ADDRESS), lambda: schn_ray.push(model, NAME)):
        with pytest.raises(SchnRayError, match=r"pip install 'schn-ray\[hub\]'"):
            attempt()


def test_an_unfinished_run_is_refused(hub: Hub, tmp_path: Path, schn_ray: Run) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "request.json").write_text("{}")
    answer = schn_ray("push", run, NAME)
    assert answer.code == 2
    assert "unfinished" in answer.err
    assert not hub.repositories


def test_a_repository_of_something_else_is_not_written_over(hub: Hub, model: Path) -> None:
    schn_ray.push(model, NAME)
    repo = hub.repositories[NAME]
    repo.commit("main", {"README.md": b"ours", "pytorch_model.bin": b"1"})
    with pytest.raises(SchnRayError, match=r"something else \(pytorch_model.bin"):
        schn_ray.push(model, NAME)
    assert hub.files(NAME)["README.md"] == b"ours"


@pytest.mark.usefixtures("without_torch")
def test_without_torch_the_export_is_run(hub: Hub, model: Path, tmp_path: Path) -> None:
    export = write_export(tmp_path / "export/m.onnx", model)
    schn_ray.push(model, NAME)
    with pytest.raises(SchnRayError, match=r"no model.onnx.*--onnx FILE"):
        load(ADDRESS)
    schn_ray.push(model, NAME, onnx=export)
    assert b"`model.onnx`: as it was" in hub.files(NAME)["README.md"]
    local = load(export)
    for address in (ADDRESS, f"{ADDRESS}/model.onnx", pinned(ADDRESS)):
        loaded = load(address)
        assert isinstance(loaded, OnnxHasher)
        assert loaded.encode_views([VIEWS]).tolist() == local.encode_views([VIEWS]).tolist()
    assert not any("safetensors" in request for request in hub.requests if "resolve" in request)
    description = hub.files(NAME)["model.json"]
    hub.repositories[NAME].commit("main", hub.files(NAME) | {"model.json": description + b" "})
    with pytest.raises(SchnRayError, match=r"model.json differs from SHA256SUMS"):
        load(ADDRESS)


def test_with_torch_the_network_is_run_and_the_export_by_its_name(
    hub: Hub, model: Path, tmp_path: Path
) -> None:
    export = write_export(tmp_path / "export/m.onnx", model)
    schn_ray.push(model, NAME, onnx=export)
    assert isinstance(load(f"{ADDRESS}/model.onnx"), OnnxHasher)
    assert not isinstance(load(ADDRESS), OnnxHasher)
    assert pinned(f"{ADDRESS}/model.onnx").endswith("/model.onnx")


def test_an_export_of_another_model_does_not_stay(hub: Hub, model: Path, tmp_path: Path) -> None:
    export = write_export(tmp_path / "export/m.onnx", model)
    schn_ray.push(model, NAME, onnx=export)
    other = write_model(tmp_path / "other", seed=1)
    with pytest.raises(SchnRayError, match="another model than the one to push"):
        schn_ray.push(other, NAME, onnx=export)
    assert schn_ray.push(other, NAME).pushed.removed == ("model.json", "model.onnx")
    assert "model.onnx" not in hub.files(NAME)


def test_verbs_take_the_address(hub: Hub, model: Path, tmp_path: Path, schn_ray: Run) -> None:
    photos = write_tree(tmp_path / "photos", {"cat": 3})
    assert schn_ray("push", model, NAME).code == 0
    codes = encode(photos, ADDRESS, tmp_path / "codes")
    assert encode(photos, model, tmp_path / "codes").note  # finished: it is the same model
    assert schn_ray("index", codes, "--out", tmp_path / "index").code == 0
    query = photos / "cat/001.png"
    searched = schn_ray("search", tmp_path / "index", query, "--model", ADDRESS, "-k", 1)
    assert "cat/001.png" in searched.out


def test_addresses() -> None:
    assert hub_address("hf://a/b@v%2F2/m.onnx") == HubAddress("a/b", "v/2", "m.onnx")
    assert str(HubAddress("a/b", "v/2", "m.onnx")) == "hf://a/b@v%2F2/m.onnx"
    assert hub_address(Path("hf://a/b")) == HubAddress("a/b")
    assert hub_address("hf://datasets/a/b") is None
    assert hub_address("hf://a/b/folder/run") is None
    assert hub_address("a/b") is None
