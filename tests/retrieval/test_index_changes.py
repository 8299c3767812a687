"""Adding to an index and removing from it: as if it had been built so."""

import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from support.gallery_codes import Codes, draw_clustered, draw_ids, make_index, write_codes

from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import MANIFEST
from schn_ray.retrieval.index import build as index_build
from schn_ray.retrieval.index import index as index_module
from schn_ray.retrieval.index import version_files
from schn_ray.retrieval.index.build import rewrite_index
from schn_ray.retrieval.index.index import Index, open_index, verify_index


@pytest.fixture
def drawn() -> tuple[list[str], Codes]:
    rng = np.random.default_rng(0)
    return draw_ids(rng, 300), draw_clustered(rng, 300, 20, 4)


def same(index: Index, other: Index, queries: Codes) -> None:
    ours, theirs = index.search(queries, 30), other.search(queries, 30)
    np.testing.assert_array_equal(ours.rows, theirs.rows)
    np.testing.assert_array_equal(ours.distances, theirs.distances)
    np.testing.assert_array_equal(ours.tied, theirs.tied)
    assert [ours.ids(q) for q in range(9)] == [theirs.ids(q) for q in range(9)]
    assert [ours.uris(q) for q in range(9)] == [theirs.uris(q) for q in range(9)]


def files(path: Path) -> list[str]:
    made = json.loads((path / MANIFEST).read_text())
    return sorted(made["files"].values())


def test_added_and_removed_as_if_built_so(tmp_path: Path, drawn: tuple[list[str], Codes]) -> None:
    ids, codes = drawn
    make_index(tmp_path, ids[:200], codes[:200], 20)
    more = write_codes(tmp_path / "more", ids[150:], codes[150:], 20)
    made = rewrite_index(tmp_path / "index", add=more, remove=ids[100:200])
    kept = [*range(100), *range(150, 300)]
    fresh = make_index(tmp_path / "fresh", [ids[i] for i in kept], codes[kept], 20)
    same(open_index(tmp_path / "index"), fresh, codes[:50])
    assert files(tmp_path / "index") == files(tmp_path / "fresh" / "index")
    assert made.counts["rows"] == 250
    assert verify_index(tmp_path / "index") > 0
    assert sorted(p.name for p in (tmp_path / "index").iterdir()) == ["2", MANIFEST]


def test_the_same_change_again_does_nothing(tmp_path: Path, drawn: tuple[list[str], Codes]) -> None:
    ids, codes = drawn
    make_index(tmp_path, ids[:200], codes[:200], 20)
    more = write_codes(tmp_path / "more", ids[200:], codes[200:], 20)
    rewrite_index(tmp_path / "index", add=more)
    with pytest.raises(AlreadyDone):
        rewrite_index(tmp_path / "index", add=more)
    rewrite_index(tmp_path / "index", remove=ids[200:])
    rewrite_index(tmp_path / "index", add=more)  # they had been removed
    assert len(open_index(tmp_path / "index")) == 300


def test_a_reader_keeps_the_version_that_it_opened(
    tmp_path: Path, drawn: tuple[list[str], Codes]
) -> None:
    ids, codes = drawn
    before = make_index(tmp_path, ids, codes, 20)
    expected = make_index(tmp_path / "fresh", ids, codes, 20)
    rewrite_index(tmp_path / "index", remove=ids[:100])
    same(before, expected, codes[:20])
    assert len(open_index(tmp_path / "index")) == 200


@pytest.mark.parametrize(
    ("add", "remove", "complaint"),
    [
        (None, [], "nothing to change"),
        (None, ["none"], "'none' is not an id"),
        (slice(100, 120), [], "20 rows repeat an id"),
    ],
)
def test_what_cannot_be_changed_leaves_the_index_alone(
    tmp_path: Path,
    drawn: tuple[list[str], Codes],
    add: slice | None,
    remove: list[str],
    complaint: str,
) -> None:
    ids, codes = drawn
    make_index(tmp_path, ids[:200], codes[:200], 20)
    before = (tmp_path / "index" / MANIFEST).read_bytes()
    more = add and write_codes(tmp_path / "more", ids[add], codes[add], 20)
    with pytest.raises(SchnRayError, match=complaint):
        rewrite_index(tmp_path / "index", more, remove)
    assert (tmp_path / "index" / MANIFEST).read_bytes() == before
    assert sorted(p.name for p in (tmp_path / "index").iterdir()) == ["1", MANIFEST]


def test_all_rows_cannot_be_removed(tmp_path: Path, drawn: tuple[list[str], Codes]) -> None:
    ids, codes = drawn
    make_index(tmp_path, ids, codes, 20)
    with pytest.raises(SchnRayError, match="holds no codes"):
        rewrite_index(tmp_path / "index", remove=ids)
    assert len(open_index(tmp_path / "index")) == 300


def test_codes_of_another_model_are_not_added(
    tmp_path: Path, drawn: tuple[list[str], Codes]
) -> None:
    ids, codes = drawn
    make_index(tmp_path, ids, codes, 20)
    wide = write_codes(tmp_path / "wide", ["x"], np.zeros((1, 4), np.uint8), 32, parts=1)
    with pytest.raises(SchnRayError, match="encoded by another model"):
        rewrite_index(tmp_path / "index", add=wide)


def test_one_changes_it_at_a_time(
    tmp_path: Path, drawn: tuple[list[str], Codes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, codes = drawn
    make_index(tmp_path, ids, codes, 20)
    begun, may_end, write = threading.Event(), threading.Event(), version_files.write_lists

    def slow(*arguments: object) -> object:
        begun.set()
        may_end.wait(60)
        return write(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(version_files, "write_lists", slow)
    first = threading.Thread(target=rewrite_index, args=(tmp_path / "index", None, ids[:50]))
    first.start()
    begun.wait(60)
    with pytest.raises(SchnRayError, match="another process is writing"):
        rewrite_index(tmp_path / "index", remove=ids[50:60])
    may_end.set()
    first.join()
    assert len(open_index(tmp_path / "index")) == 250


def test_a_change_before_the_lock_is_not_lost(
    tmp_path: Path, drawn: tuple[list[str], Codes], monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, codes = drawn
    make_index(tmp_path, ids[:200], codes[:200], 20)
    more = write_codes(tmp_path / "more", ids[200:], codes[200:], 20)
    new_version = index_build.new_version

    def overtaken(*arguments: object) -> object:
        monkeypatch.undo()
        rewrite_index(tmp_path / "index", remove=ids[:50])
        return new_version(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(index_build, "new_version", overtaken)
    with pytest.raises(SchnRayError, match="changed by another process"):
        rewrite_index(tmp_path / "index", add=more)
    assert len(open_index(tmp_path / "index")) == 150
    rewrite_index(tmp_path / "index", add=more)
    fresh = make_index(tmp_path / "fresh", ids[50:], codes[50:], 20)
    same(open_index(tmp_path / "index"), fresh, codes[:20])


RACING = """
import json, sys, time
from pathlib import Path
from schn_ray.core.errors import SchnRayError
from schn_ray.retrieval.index.build import rewrite_index
folder, me, other = Path(sys.argv[1]), *sys.argv[2:4]
change, delays = map(json.loads, sys.argv[4:])
outcomes = []
for number, delay in enumerate(delays):
    (folder / f"{me}-{number}").touch()
    while not (folder / f"{other}-{number}").exists():
        time.sleep(0.0005)
    time.sleep(delay)
    try:
        rewrite_index(folder / f"index-{number}", **change)
        outcomes.append("changed")
    except SchnRayError as error:
        outcomes.append(str(error))
print(json.dumps(outcomes))
"""


def test_two_processes_change_it_at_once(tmp_path: Path, drawn: tuple[list[str], Codes]) -> None:
    """Each change is in the result or was refused, whichever process is first, by however much."""
    ids, codes = drawn
    make_index(tmp_path, ids[:200], codes[:200], 20)
    more = write_codes(tmp_path / "more", ids[200:], codes[200:], 20)
    offsets = [ms / 1000 for ms in range(-40, 41, 2)]
    for number in range(len(offsets)):
        shutil.copytree(tmp_path / "index", tmp_path / f"index-{number}")
    changes: dict[str, dict[str, object]] = {
        "add": {"add": str(more)},
        "remove": {"remove": ids[:50]},
    }
    delays = {"add": [max(0, s) for s in offsets], "remove": [max(0, -s) for s in offsets]}
    racing = []
    for me, other in (("add", "remove"), ("remove", "add")):
        arguments = [str(tmp_path), me, other, json.dumps(changes[me]), json.dumps(delays[me])]
        command = [sys.executable, "-c", RACING, *arguments]
        racing.append(subprocess.Popen(command, stdout=subprocess.PIPE))
    outcomes = [json.loads(process.communicate(timeout=120)[0]) for process in racing]
    for number, (added, removed) in enumerate(zip(*outcomes, strict=True)):
        index = open_index(tmp_path / f"index-{number}")
        expected = ids[50 * (removed == "changed") : 300 if added == "changed" else 200]
        assert index.ids(np.arange(len(index))) == sorted(expected), (added, removed)
        assert "changed" in (added, removed)
        for outcome in (added, removed):
            assert outcome == "changed" or "another process" in outcome


def test_an_index_is_opened_and_verified_while_it_changes(
    tmp_path: Path, drawn: tuple[list[str], Codes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest is read, then it is changed, and then its files are opened."""
    ids, codes = drawn
    make_index(tmp_path, ids, codes, 20)
    for use, rows in ((open_index, 290), (verify_index, 280)):
        read = index_module.read_manifest

        def overtaken(path: Path, kind: str, read=read) -> object:  # type: ignore[no-untyped-def]
            manifest = read(path, kind)
            monkeypatch.undo()
            first = open_index(path).ids(np.arange(10))
            rewrite_index(path, remove=first)
            return manifest

        monkeypatch.setattr(index_module, "read_manifest", overtaken)
        use(tmp_path / "index")
        assert len(open_index(tmp_path / "index")) == rows


def test_a_killed_change_has_no_part_in_the_fingerprint(
    tmp_path: Path, drawn: tuple[list[str], Codes]
) -> None:
    ids, codes = drawn
    prints = set()
    for name in ("undisturbed", "killed"):
        make_index(tmp_path / name, ids, codes, 20)
        if name == "killed":
            (tmp_path / name / "index" / "2").mkdir()
            (tmp_path / name / "index" / "2" / "half").write_text("")
        prints.add(rewrite_index(tmp_path / name / "index", remove=ids[:9]).fingerprint)
    assert len(prints) == 1
    assert not list(tmp_path.rglob("half"))


def test_an_index_says_what_it_is(tmp_path: Path, drawn: tuple[list[str], Codes]) -> None:
    index = make_index(tmp_path, *drawn, 20)
    text = f"Index('{tmp_path}/index': 300 rows, {index.unique_codes} codes of 20 bits)"
    assert repr(index) == text
