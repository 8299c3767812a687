"""Verbs as jobs of a head with token authentication, as a user on another machine sends them.

SCHN_RAY_TRIALS=1 also sends every file of jobs/, which takes minutes.
"""

import functools
import os
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import heads
from support.heads import Head, submit, submitted
from support.image_files import write_tree
from support.processes import as_options, free_port, wait_for
from support.trials import takes_minutes
from support.users import TINY, Answer, Run

from schn_ray.core.manifest import read_manifest
from schn_ray.models.model_files import fingerprint
from schn_ray.retrieval.index.build import write_index

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    with heads.head(cpus=2) as started_head:
        yield started_head


def test_an_output_that_nobody_would_find_is_refused(schn_ray: Run) -> None:
    answer = schn_ray("submit", "prepare", "digits", "--out=store")
    assert (answer.code, "--out store is relative" in answer.err) == (2, True), answer.err
    answer = schn_ray("submit", "demo")
    assert (answer.code, "--dir demo is relative" in answer.err) == (2, True), answer.err


def test_a_mistake_is_answered_here(schn_ray: Run) -> None:
    answer = schn_ray("submit", "trian", "digits")
    assert (answer.code, "expected one of build, check, prepare, train" in answer.err) == (2, True)
    answer = schn_ray("submit", "train", "/store", "--ot", "/run")
    assert (answer.code, "No such option: --ot" in answer.err) == (2, True)


@pytest.mark.parametrize("options", [(), ("--directory", "/mnt")])
def test_a_cluster_that_is_not_there(
    schn_ray: Run, options: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1:9")  # Ray would go there
    address = f"http://127.0.0.1:{free_port()}"
    out = "store" if options else "s3://bucket/store"
    command = ("prepare", "digits", "--out", out)
    answer = schn_ray("submit", "--address", address, *options, *command)
    assert (answer.code, f"no cluster answers at {address}" in answer.err) == (2, True), answer.err


@pytest.mark.slow  # starts a cluster of its own
def test_without_the_token_nobody_submits(head: Head) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{head.address}/api/jobs/", timeout=5)
    command = submitted(head, "check", "digits")
    wrong = heads.run(head.user("0" * 64), *command)
    assert (wrong.code, "does not take this token" in wrong.err) == (2, True), wrong.err
    none = heads.run(head.user() | {"RAY_AUTH_MODE": "disabled"}, *command)
    assert (none.code, "wants a token" in none.err) == (2, True), none.err
    assert "RAY_AUTH_TOKEN_PATH" in none.err


@pytest.mark.slow
def test_output_is_followed_and_the_exit_code_is_the_job_s(head: Head, tmp_path: Path) -> None:
    tree = write_tree(tmp_path / "photos", {"cat": 3, "dog": 2})
    answer = submit(head, "--directory", tree.parent, "check", "photos")
    assert answer.code == 0, answer.err
    assert "cat" in answer.out

    answer = submit(head, "check", tmp_path / "nothing")
    assert answer.code == 2, answer.err
    assert f"{tmp_path}/nothing" in answer.out
    assert "failed: Job entrypoint command failed with exit code 2" in answer.err


@takes_minutes
def test_a_running_job_is_left_alone_picked_up_and_stopped(head: Head, tmp_path: Path) -> None:
    waits = tmp_path / "ids"  # a pipe that nobody writes to: reading it waits
    os.mkfifo(waits)
    command = ("index", tmp_path / "index", "--remove", waits)
    assert submit(head, "--no-wait", *command).code == 0
    log = tmp_path / "followed"
    with (
        log.open("w") as file,
        subprocess.Popen(
            submitted(head, *command),
            env=head.user(),
            stdout=file,
            stderr=subprocess.PIPE,
            text=True,
            # where the tests run in the background, Ctrl-C is ignored, which children inherit
            preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
        ) as following,
    ):
        try:
            wait_for(lambda: "Running entrypoint" in log.read_text())
            following.send_signal(signal.SIGINT)
            said = following.communicate(timeout=60)[1]
        finally:
            following.kill()
    assert following.returncode == 130, said
    assert "runs already" in said
    assert "the same command follows it again, with --stop it ends it" in said
    assert "Traceback" not in said
    stopped = submit(head, "--stop", *command)
    assert (stopped.code, "is stopped" in stopped.err) == (0, True), stopped.err
    again = submit(head, "--stop", *command)
    assert (again.code, "does not run" in again.err) == (2, True), again.err


SETTINGS = as_options((*TINY, "schedule.iterations=1", "schedule.samples=64"))
SPACE: dict[str, Any] = {
    "preset": "digits",
    "fixed": {key: int(value) for key, value in (setting.split("=") for setting in TINY)}
    | {"schedule.iterations": 1, "schedule.samples": 64},
    "parameters": {"optimiser.learning_rate": {"log": [1e-4, 1e-2]}},
}


VERB_OF = {"nightly": "build"}  # where a file of jobs/ has another name
SAID = {"evaluate": "mAP", "nightly": "schn-ray serve", "tune": "2 complete"}


def verbs(folder: Path) -> Iterator[list[object]]:
    """Yield every verb of jobs/ with its arguments, when what it needs is there."""
    yield ["prepare", "digits", "--out", "store", "--set", "validation_share=0.1"]
    yield ["train", "store", "--out", "run", "--preset", "digits", "--workers", 2, *SETTINGS]
    yield ["encode", "digits", "--model", "run", "--out", "codes"]
    yield ["evaluate", "run", "--store", "store"]
    write_index(folder / "codes", folder / "index")
    yield ["search", "index", "--queries", "codes", "--out", "found", "-k", 3]
    (folder / "space.yaml").write_text(yaml.safe_dump(SPACE))
    yield ["nightly", "digits", "--out", "album", "--backbone", "small", "--weights", "none"]
    yield ["tune", "store", "--space", "space.yaml", "--trials", 2, "--out", "search"]


def absolute(folder: Path, words: list[object]) -> list[object]:
    """Put the folder before what lies in it."""
    names = ("store", "run", "codes", "index", "found", "space.yaml", "search", "album")
    verb, *others = words
    return [verb, *(folder / word if word in names else word for word in others)]


def by_ray(head: Head, folder: Path, words: list[object]) -> Answer:
    verb, *arguments = absolute(folder, words)
    command = [heads.SCRIPTS / "ray", "job", "submit", "--address", head.address]
    job = ["--working-dir", ROOT, "--", "python", f"jobs/{verb}.py", *arguments]
    return heads.run(head.user(), *command, *job)


def by_us(head: Head, folder: Path, words: list[object]) -> Answer:
    verb, *arguments = words
    return submit(head, "--directory", folder, VERB_OF.get(str(verb), verb), *arguments)


@takes_minutes
def test_every_job_either_way(head: Head, tmp_path: Path) -> None:
    made = {"store": "store", "run": "run", "codes": "codes", "run-evaluation": "evaluation"}
    made |= {"found": "matches", "search": "search"}
    for way in (by_ray, by_us):
        folder = tmp_path / way.__name__
        folder.mkdir()
        for words in verbs(folder):
            answer = way(head, folder, words)
            print(f"{way.__name__} {words[0]}: {answer.code}\n{answer.out}\n{answer.err}")
            assert answer.code == 0, answer.out + answer.err
            assert SAID.get(str(words[0]), ", finished") in answer.out, answer.out
    for name, kind in made.items():
        ours, rays = (read_manifest(tmp_path / way / name, kind) for way in ("by_us", "by_ray"))
        # other directories hold seconds and names of folders, too
        assert kind != "store" or ours.fingerprint == rays.fingerprint
    assert fingerprint(tmp_path / "by_us" / "run") == fingerprint(tmp_path / "by_ray" / "run")
    folder = tmp_path / "by_us"
    again = submit(head, "--directory", folder, *next(verbs(folder)))
    assert (again.code, "is finished already" in again.out) == (0, True), again.out
    failing = by_ray(head, folder, ["train", "nothing", "--out", "run2"])
    assert (failing.code, "nothing" in failing.out + failing.err) == (1, True), failing.out
