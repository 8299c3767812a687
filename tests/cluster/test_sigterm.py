"""SIGTERM to every verb that works on Ray, which Kubernetes, Slurm and spot nodes send."""

import socket
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.models import write_model
from support.processes import as_options, free_port, start, terminate, wait_for
from support.trials import takes_minutes
from support.users import TINY

from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.index.build import write_index

SPACE = {
    "preset": "digits",
    "fixed": {key: int(value) for key, value in (line.split("=") for line in TINY)}
    | {"schedule.iterations": 3, "schedule.epochs": 1},
    "parameters": {"optimiser.learning_rate": {"log": [1e-4, 1e-2]}},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sigterm")
    digits, model = open_source("digits", SourceConfig()), write_model(folder / "model")
    config = PrepareConfig(validation_share=0.1)
    prepare_store(digits, config, folder / "store")
    encode_source(digits, model, folder / "codes", EncodeConfig())
    write_index(folder / "codes", folder / "index")
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    return folder


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def verbs(made: Path, out: Path) -> dict[str, tuple[list[object], Callable[[], object]]]:
    """Return each verb's words, and what tells that it is at work."""
    model, store = made / "model", made / "store"
    shards = ("--workers", 1, "--set", "source.shard_rows=100")
    small = ("--backbone", "small", "--weights", "none")
    space = ("--space", made / "space.yaml", "--trials", 9, "--at-once", 1)
    serve = ["serve", made / "index", "--model", model, "--port", port := free_port()]
    return {
        "prepare": (["prepare", "digits", "--out", out, *shards], lambda: [*out.glob("rows-*")]),
        "embed": (
            ["embed", "digits", "--out", out, *small, *shards],
            lambda: [*out.glob("rows-*")],
        ),
        "train": (
            ["train", store, "--out", out, "--preset", "digits", *as_options(TINY)],
            lambda: (out / "metrics.jsonl").is_file(),
        ),
        "evaluate": (
            ["evaluate", model, "--store", store, "--out", out, "--workers", 1],
            lambda: [*out.parent.glob(".out.partial/codes/data/part-*")],
        ),
        "tune": (["tune", store, *space, "--out", out], lambda: [*out.glob("trials/*/model")]),
        "serve": (serve, lambda: answers(port)),
    }


@takes_minutes
@pytest.mark.parametrize("name", ["prepare", "embed", "train", "evaluate", "tune", "serve"])
def test_it_ends_in_time_with_its_code_and_no_process(
    name: str, made: Path, tmp_path: Path
) -> None:
    words, at_work = verbs(made, tmp_path / "out")[name]
    mark = uuid.uuid4().hex
    process = start(*words, mark=mark)
    wait_for(lambda: at_work() or process.poll() is not None)
    assert process.poll() is None, process.communicate()[1]
    assert terminate(process, mark) == 143
