"""Everything that verbs write, in a bucket and not on a disk: the same as in directories."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from support.buckets import served_bucket
from support.image_files import write_tree
from support.users import TINY

from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage import mirror
from schn_ray.core.storage.cache import cache_folder, local_copy
from schn_ray.core.storage.files import files_below, join, names_in, read_file, write_file
from schn_ray.core.storage.mirror import open_shared_output
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate
from schn_ray.evaluation.results import read_figures
from schn_ray.models.hasher import fingerprint
from schn_ray.retrieval.batch_search import search_gallery
from schn_ray.retrieval.code_files import read_codes
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode
from schn_ray.retrieval.index.build import build_index, change_index
from schn_ray.retrieval.index.index import open_index, verify_index
from schn_ray.retrieval.search import SearchLimits, search
from schn_ray.training.config import train_config
from schn_ray.training.recorder import read_metrics
from schn_ray.training.run import train_locally

CONFIG = train_config("digits", None, (*TINY, "schedule.iterations=3", "schedule.epochs=1"))
MEASURED = ("map", "ndcg_at", "controls", "unique_share", "queries_sha256")


class Chain:
    """Where each verb wrote."""

    def __init__(self, root: str) -> None:
        self.root = root
        kinds = ("store", "run", "codes", "index", "matches", "evaluation")
        self.store, self.run, self.codes, self.index, self.matches, self.evaluation = (
            join(root, kind) for kind in kinds
        )


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served_bucket("chain", tmp_path_factory.mktemp("cache")) as uri:
        yield uri


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("chain")
    return str(write_tree(folder / "images", {"cat": 24, "dog": 24, "owl": 24}))


def chain(photos: str, root: str) -> Chain:
    """Do all of it, from images to found images."""
    at = Chain(root)
    small = SourceConfig(shard_rows=20)
    config = PrepareConfig(source=small, validation_share=0.3)
    prepare(open_source(photos, small), config, at.store)
    train_locally(CONFIG, at.store, at.run)
    encode(open_source(photos, small), at.run, at.codes, EncodeConfig(source=small))
    build_index(at.codes, at.index)
    search_gallery([at.index], at.codes, at.matches, SearchLimits(5))
    evaluate(at.run, at.store, at.evaluation, EvaluateConfig())
    return at


@pytest.fixture(scope="module")
def here(photos: str, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chain(photos, str(tmp_path_factory.mktemp("here")))


@pytest.fixture(scope="module")
def there(photos: str, bucket: str) -> Chain:
    return chain(photos, f"{bucket}/chain")


def test_the_same_comes_out_as_in_directories(here: Chain, there: Chain) -> None:
    assert fingerprint(there.run) == fingerprint(here.run)
    table, codes = read_codes(there.codes)
    wanted, wanted_codes = read_codes(here.codes)
    assert table.equals(wanted)
    assert codes.tobytes() == wanted_codes.tobytes()
    measured, wanted_figures = read_figures(there.evaluation), read_figures(here.evaluation)
    assert {k: measured[k] for k in MEASURED} == {k: wanted_figures[k] for k in MEASURED}
    assert measured["run"] == "run"
    for number in range(4):
        name = f"matches-{number:05}.parquet"
        matches = [pq.read_table(local_copy(at.matches) / name) for at in (here, there)]
        assert matches[0].equals(matches[1])
    like = table["id"][7].as_py()
    (result,) = search([there.index], SearchLimits(3), ids=[like])
    (expected,) = search([here.index], SearchLimits(3), ids=[like])
    assert [hit.id for hit in result.hits] == [hit.id for hit in expected.hits]
    assert verify_index(there.index) > 0


def test_who_follows_a_directory_has_its_files_and_sends_only_what_is_new(bucket: str) -> None:
    place = join(bucket, "followed")
    for name in ("checkpoints/1.pt", "checkpoints/2.pt", "metrics.jsonl"):
        write_file(join(place, name), name.encode())
    with open_shared_output(place) as ours:
        assert (ours.here / "checkpoints" / "2.pt").read_bytes() == b"checkpoints/2.pt"
        write_file(join(place, "metrics.jsonl"), b"written by another since")
        (ours.here / "checkpoints" / "1.pt").unlink()
        (ours.here / "checkpoints" / "3.pt").write_bytes(b"new")
        ours.send()
    assert names_in(join(place, "checkpoints")) == {"2.pt", "3.pt"}
    assert read_file(join(place, "metrics.jsonl")) == b"written by another since"
    assert not ours.here.exists()


def test_the_same_files_lie_there_and_nothing_stays_here(here: Chain, there: Chain) -> None:
    for kind in ("run", "codes", "index", "matches", "evaluation"):
        at = join(there.root, kind)
        assert names_in(at) == names_in(join(here.root, kind)), kind
        files = local_copy(at).rglob("*")
        listed = json.loads((local_copy(at) / "manifest.json").read_text())["files"]
        assert {str(f.relative_to(local_copy(at))) for f in files if f.is_file()} == {
            "manifest.json",
            *listed,
        }
    left = [p.name for p in (cache_folder() / "unfinished").rglob("*") if p.is_file()]
    assert set(left) == {"manifest.json"}


def test_done_already_says_so_by_uri(photos: str, there: Chain) -> None:
    with pytest.raises(AlreadyDone, match=f"{there.run} is finished already"):
        train_locally(CONFIG, there.store, there.run)
    with pytest.raises(AlreadyDone, match=there.index):
        build_index(there.codes, there.index)
    other = CONFIG.model_copy(update={"seed": 5})
    with pytest.raises(SchnRayError, match="seed: 0 there, 5 now"):
        train_locally(other, there.store, there.run)


class Killed(BaseException):
    """What nobody catches."""


@pytest.mark.parametrize("upload", [1, 6, 12])
def test_training_killed_at_any_upload_goes_on_to_the_same_end(
    here: Chain, there: Chain, bucket: str, upload: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sent = f"{bucket}/killed-{upload}", [0]
    really = mirror.send_file

    def dies(path: Path, uri: str) -> None:
        sent[0] += 1
        if sent[0] > upload:
            raise Killed
        really(path, uri)

    with monkeypatch.context() as patch:
        patch.setattr(mirror, "send_file", dies)
        with pytest.raises(Killed):
            train_locally(CONFIG, there.store, run)
    assert "manifest.json" not in names_in(run)
    train_locally(CONFIG, there.store, run)
    assert fingerprint(run) == fingerprint(here.run)
    assert [line["loss"] for line in read_metrics(run)] == [
        line["loss"] for line in read_metrics(here.run)
    ]


def test_encoding_killed_goes_on_with_the_rest(
    photos: str, here: Chain, there: Chain, bucket: str
) -> None:
    out, done = f"{bucket}/codes-killed", list[int]()

    def dies(function: Any, shards: Any) -> Iterator[Any]:
        yield function(shards[1])
        raise Killed

    def counts(function: Any, shards: Any) -> Iterator[Any]:
        done.extend(shard.number for shard in shards)
        return map(function, shards)

    small = SourceConfig(shard_rows=20)
    source, config = open_source(photos, small), EncodeConfig(source=small)
    with pytest.raises(Killed):
        encode(source, there.run, out, config, dies)
    encode(source, there.run, out, config, counts)
    assert done == [0, 2, 3]
    assert read_codes(out)[1].tobytes() == read_codes(here.codes)[1].tobytes()


def test_what_a_killed_evaluation_of_another_run_left_does_not_count(
    here: Chain, there: Chain, bucket: str
) -> None:
    other, out = f"{bucket}/other-run", f"{bucket}/evaluation-killed"
    train_locally(CONFIG.model_copy(update={"seed": 5}), there.store, other)

    def dies(function: Any, shards: Any) -> Iterator[Any]:
        yield from map(function, shards)
        raise Killed

    with pytest.raises(Killed):
        evaluate(other, there.store, out, EvaluateConfig(), dies)
    evaluate(there.run, there.store, out, EvaluateConfig())
    measured, wanted = read_figures(out), read_figures(here.evaluation)
    assert {k: measured[k] for k in MEASURED} == {k: wanted[k] for k in MEASURED}


def test_codes_and_index_are_brought_up_to_date_there(
    there: Chain, bucket: str, tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "grows", {"cat": 12})
    small = SourceConfig(shard_rows=5)
    source, config = open_source(str(tree), small), EncodeConfig(source=small)
    codes, index = f"{bucket}/grown-codes", f"{bucket}/grown-index"
    encode(source, there.run, codes, config)
    build_index(codes, index)
    (tree / "cat" / "003.png").unlink()
    counts = encode(open_source(str(tree), small), there.run, codes, config, update=True).counts
    assert (counts["gone"], counts["encoded"]) == (1, 11)
    change_index(index, remove=["cat/003.png"])
    assert len(open_index(index)) == 11
    assert {name.split("/")[0] for name, _, _ in files_below(index)} == {"2", "manifest.json"}
