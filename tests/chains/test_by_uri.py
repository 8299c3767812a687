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

from schn_ray import convert
from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.storage import mirror
from schn_ray.core.storage.cache import cache_folder, local_copy
from schn_ray.core.storage.files import files_below, join, names_in, read_file, write_file
from schn_ray.core.storage.mirror import open_shared_output
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.evaluation.config import EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.figures import Figures
from schn_ray.evaluation.results import read_figures
from schn_ray.models.model_files import fingerprint
from schn_ray.retrieval.batch_search import search_gallery
from schn_ray.retrieval.code_files import read_codes
from schn_ray.retrieval.config import EncodeConfig
from schn_ray.retrieval.encode import encode_source
from schn_ray.retrieval.engines.convert import convert_codes
from schn_ray.retrieval.index.build import rewrite_index, write_index
from schn_ray.retrieval.index.index import open_index, verify_index
from schn_ray.retrieval.search import SearchLimits, search_indexes
from schn_ray.training.config import train_config
from schn_ray.training.metrics_file import read_metrics
from schn_ray.training.run import train_locally

CONFIG = train_config("digits", None, (*TINY, "schedule.iterations=3", "schedule.epochs=1"))
MEASURED = {"map", "ndcg_at", "controls", "unique_share", "queries_sha256"}


def compared(figures: Figures) -> dict[str, Any]:
    """Return what has to be equal wherever the evaluation lies."""
    return {name: value for name, value in figures.to_json().items() if name in MEASURED}


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
    prepare_store(open_source(photos, small), config, at.store)
    train_locally(CONFIG, at.store, at.run)
    encode_source(open_source(photos, small), at.run, at.codes, EncodeConfig(source=small))
    write_index(at.codes, at.index)
    search_gallery([at.index], at.codes, at.matches, SearchLimits(5))
    evaluate_run(at.run, at.store, at.evaluation, EvaluateConfig())
    return at


@pytest.fixture(scope="module")
def local(photos: str, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return chain(photos, str(tmp_path_factory.mktemp("local")))


@pytest.fixture(scope="module")
def remote(photos: str, bucket: str) -> Chain:
    return chain(photos, f"{bucket}/chain")


def test_the_same_comes_out_as_in_directories(local: Chain, remote: Chain) -> None:
    assert fingerprint(remote.run) == fingerprint(local.run)
    table, codes = read_codes(remote.codes)
    expected, expected_codes = read_codes(local.codes)
    assert table.equals(expected)
    assert codes.tobytes() == expected_codes.tobytes()
    measured, expected_figures = read_figures(remote.evaluation), read_figures(local.evaluation)
    assert compared(measured) == compared(expected_figures)
    assert measured.run == "run"
    for number in range(4):
        name = f"matches-{number:05}.parquet"
        matches = [pq.read_table(local_copy(at.matches) / name) for at in (local, remote)]
        assert matches[0].equals(matches[1])
    like = table["id"][7].as_py()
    (result,) = search_indexes([remote.index], SearchLimits(3), ids=[like])
    (expected,) = search_indexes([local.index], SearchLimits(3), ids=[like])
    assert [hit.id for hit in result.hits] == [hit.id for hit in expected.hits]
    assert verify_index(remote.index) > 0


def test_who_follows_a_directory_has_its_files_and_sends_only_what_is_new(bucket: str) -> None:
    uri = join(bucket, "followed")
    for name in ("checkpoints/1.pt", "checkpoints/2.pt", "metrics.jsonl"):
        write_file(join(uri, name), name.encode())
    with open_shared_output(uri) as ours:
        assert (ours.local / "checkpoints" / "2.pt").read_bytes() == b"checkpoints/2.pt"
        write_file(join(uri, "metrics.jsonl"), b"written by another since")
        (ours.local / "checkpoints" / "1.pt").unlink()
        (ours.local / "checkpoints" / "3.pt").write_bytes(b"new")
        ours.send()
    assert names_in(join(uri, "checkpoints")) == {"2.pt", "3.pt"}
    assert read_file(join(uri, "metrics.jsonl")) == b"written by another since"
    assert not ours.local.exists()


def test_the_same_files_lie_there_and_nothing_stays_here(local: Chain, remote: Chain) -> None:
    for kind in ("run", "codes", "index", "matches", "evaluation"):
        at = join(remote.root, kind)
        assert names_in(at) == names_in(join(local.root, kind)), kind
        files = local_copy(at).rglob("*")
        listed = json.loads((local_copy(at) / "manifest.json").read_text())["files"]
        assert {str(f.relative_to(local_copy(at))) for f in files if f.is_file()} == {
            "manifest.json",
            *listed,
        }
    left = [p.name for p in (cache_folder() / "unfinished").rglob("*") if p.is_file()]
    assert set(left) == {"manifest.json"}


def test_codes_of_a_bucket_are_converted_into_it(local: Chain, remote: Chain) -> None:
    tables = []
    for chain, kind in ((local, "codes"), (remote, "codes"), (remote, "index")):
        out = join(chain.root, f"parquet-of-{kind}")
        convert_codes(join(chain.root, kind), "parquet", out, chain.store)
        tables.append(pq.read_table(local_copy(out) / "codes.parquet").sort_by("id"))
    assert tables[0].equals(tables[1])
    assert tables[0].equals(tables[2])
    assert len(set(map(str, tables[0]["labels"].to_pylist()))) == 3


def test_done_already_says_so_by_uri(photos: str, remote: Chain) -> None:
    with pytest.raises(AlreadyDone, match=f"{remote.run} is finished already"):
        train_locally(CONFIG, remote.store, remote.run)
    with pytest.raises(AlreadyDone, match=remote.index):
        write_index(remote.codes, remote.index)
    other = CONFIG.model_copy(update={"seed": 5})
    with pytest.raises(SchnRayError, match="seed: 0 there, 5 now"):
        train_locally(other, remote.store, remote.run)


class Killed(BaseException):
    """What nobody catches."""


@pytest.mark.slow
@pytest.mark.parametrize("upload", [1, 6, 12])
def test_training_killed_at_any_upload_goes_on_to_the_same_end(
    local: Chain, remote: Chain, bucket: str, upload: int, monkeypatch: pytest.MonkeyPatch
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
            train_locally(CONFIG, remote.store, run)
    assert "manifest.json" not in names_in(run)
    train_locally(CONFIG, remote.store, run)
    assert fingerprint(run) == fingerprint(local.run)
    assert [line["loss"] for line in read_metrics(run)] == [
        line["loss"] for line in read_metrics(local.run)
    ]


def test_an_album_at_a_uri_converts_with_its_labels(remote: Chain, tmp_path: Path) -> None:
    write_file(join(remote.root, "album.json"), b"{}")
    done = convert(remote.root, to="parquet", out=tmp_path / "out")
    rows = pq.read_table(Path(str(done)) / "codes.parquet").to_pylist()
    assert rows
    assert all(row["labels"] == [row["id"].split("/")[0]] for row in rows)


def test_encoding_killed_goes_on_with_the_rest(
    photos: str, local: Chain, remote: Chain, bucket: str
) -> None:
    out, done = f"{bucket}/codes-killed", list[int]()

    def dies(function: Any, shards: Any) -> Iterator[Any]:
        yield function(list(shards)[1])
        raise Killed

    def counts(function: Any, shards: Any) -> Iterator[Any]:
        remaining = list(shards)
        done.extend(shard.number for shard in remaining)
        return map(function, remaining)

    small = SourceConfig(shard_rows=20)
    source, config = open_source(photos, small), EncodeConfig(source=small)
    with pytest.raises(Killed):
        encode_source(source, remote.run, out, config, dies)
    encode_source(source, remote.run, out, config, counts)
    assert done == [0, 2, 3]
    assert read_codes(out)[1].tobytes() == read_codes(local.codes)[1].tobytes()


@pytest.mark.slow
def test_what_a_killed_evaluation_of_another_run_left_does_not_count(
    local: Chain, remote: Chain, bucket: str
) -> None:
    other, out = f"{bucket}/other-run", f"{bucket}/evaluation-killed"
    train_locally(CONFIG.model_copy(update={"seed": 5}), remote.store, other)

    def dies(function: Any, shards: Any) -> Iterator[Any]:
        yield from map(function, shards)
        raise Killed

    with pytest.raises(Killed):
        evaluate_run(other, remote.store, out, EvaluateConfig(), dies)
    evaluate_run(remote.run, remote.store, out, EvaluateConfig())
    measured, expected = read_figures(out), read_figures(local.evaluation)
    assert compared(measured) == compared(expected)


def test_codes_and_index_are_brought_up_to_date_there(
    remote: Chain, bucket: str, tmp_path: Path
) -> None:
    tree = write_tree(tmp_path / "grows", {"cat": 12})
    small = SourceConfig(shard_rows=5)
    source, config = open_source(str(tree), small), EncodeConfig(source=small)
    codes, index = f"{bucket}/grown-codes", f"{bucket}/grown-index"
    encode_source(source, remote.run, codes, config)
    write_index(codes, index)
    (tree / "cat" / "003.png").unlink()
    counts = encode_source(
        open_source(str(tree), small), remote.run, codes, config, update=True
    ).counts
    assert (counts["gone"], counts["encoded"]) == (1, 11)
    rewrite_index(index, remove=["cat/003.png"])
    assert len(open_index(index)) == 11
    assert {name.split("/")[0] for name, _, _ in files_below(index)} == {"2", "manifest.json"}
