"""A source that is listed while it is read: lazily, in order, in pieces that a kill leaves."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.image_files import encode_image, write_tree

from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import Manifest, read_manifest
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.shards import repeated_ids as ids_module
from schn_ray.data.shards import rows, streamed_listing
from schn_ray.data.shards.listing_pieces import PieceFiles
from schn_ray.data.shards.map_shards import map_locally
from schn_ray.data.shards.repeated_ids import repeated_ids
from schn_ray.data.shards.rows import Shard, listing_sha256, shards_after
from schn_ray.data.shards.streamed_listing import StreamedListing
from schn_ray.data.sources import folder, parquet
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store

CONFIG = PrepareConfig(source=SourceConfig(shard_rows=3))


# --- lazily


@pytest.mark.parametrize("root", ["{}", "file_of_fsspec"])
def test_a_folder_is_listed_in_the_order_of_whole_paths(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # characters before and after the slash, a folder that begins as a file does, empty folders
    names = ["a/1.png", "a/b/2.png", "a-b/3.png", "a.png", "a0/4.png", "b/c/d/5.png", "B.png"]
    for name in [*names, "a/x.txt", "a/.h.png", ".h/6.png", "é/7.png", "a b/8.png"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "empty" / "too").mkdir(parents=True)
    location = str(tmp_path)
    if root != "{}":  # as at a URI
        from pyarrow import fs

        monkeypatch.setattr(folder, "is_uri", lambda location: True)
        monkeypatch.setattr(folder, "join", os.path.join)
        monkeypatch.setattr(folder, "filesystem_of", lambda uri: (fs.LocalFileSystem(), uri))
    for shard_rows in (1, 2):
        source = folder.FolderSource(location, shard_rows)
        shards = list(source.shards())
        assert [name for shard in shards for name in shard.files] == sorted(
            [*names, "é/7.png", "a b/8.png"]
        )
        for number, last in enumerate(shards):
            assert list(source.shards_after(last)) == shards[number + 1 :]


def sources(root: Path) -> dict[str, Path]:
    """Write seven rows in each layout that is listed step by step."""
    photos = write_tree(root / "photos", {"cat": 4, "dog": 3})
    names = sorted(str(p.relative_to(photos)) for p in photos.rglob("*.png"))
    (root / "list.txt").write_text("\n".join(f"photos/{name} 1" for name in names))
    (root / "list.csv").write_text("path\n" + "\n".join(f"photos/{name}" for name in names))
    (root / "tables").mkdir()
    (root / "tars").mkdir()
    (root / "npy").mkdir()
    for file, some in enumerate((names[:5], names[5:])):
        images = [(photos / name).read_bytes() for name in some]
        pq.write_table(pa.table({"image": images}), root / "tables" / f"{file}.parquet")
        np.save(root / "npy" / f"{file}.npy", np.ones((len(some), 2), np.float32))
        with tarfile.open(root / "tars" / f"{file}.tar", "w") as tar:
            for number, name in enumerate(some):
                tar.add(photos / name, f"{number}.png")
    kinds = ("photos", "list.txt", "list.csv", "tables", "tars", "npy")
    return {name: root / name for name in kinds}


def test_few_rows_are_shared_and_many_are_not_cut_small() -> None:
    assert len(rows.cut(2000, 2048)) == 8
    assert len(rows.cut(1_000_000, 2048)) < 1_000_000 / 2048 + 20


@pytest.mark.parametrize("growing", [False, True])
def test_listings_go_on_after_any_shard(
    growing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if growing:  # the first three shards have one row, and the next ones two
        monkeypatch.setattr(rows, "_FEW_ROWS", 1)
        monkeypatch.setattr(rows, "_OF_A_SIZE", 3)
    names = tmp_path / "names"
    names.write_text("none\none\n")
    cases = [(path, None) for path in sources(tmp_path).values()]
    for path, class_names in [*cases, (tmp_path / "list.txt", str(names))]:
        source = open_source(str(path), SourceConfig(shard_rows=2, class_names=class_names))
        shards = list(source.shards())
        assert len(shards) > 1
        assert growing == (shards[0].rows == 1) or path.name == "npy"  # vectors: 16 times as many
        assert [shard.number for shard in shards] == list(range(len(shards)))
        for number, last in enumerate(shards):
            assert list(shards_after(source, last)) == shards[number + 1 :], path


def test_what_comes_later_is_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, looked_at = sources(tmp_path), list[str]()

    def noting(function: Callable[..., Any]) -> Callable[..., Any]:
        def noted(path: Any, *arguments: Any, **options: Any) -> Any:
            looked_at.append(str(path))
            return function(path, *arguments, **options)

        return noted

    config = SourceConfig(shard_rows=2)
    opened = [open_source(str(paths[kind]), config) for kind in ("photos", "tables")]
    calls = [[(os, "scandir"), (os, "stat")], [(parquet.pq, "ParquetFile")]]
    for source, functions in zip(opened, calls, strict=True):
        with monkeypatch.context() as patch:
            for module, name in functions:
                patch.setattr(module, name, noting(getattr(module, name)))
            next(iter(source.shards()))
    assert "0.parquet" in looked_at[-1]
    later = ("dog", "dog/", "002.png", "1.parquet")
    assert not [path for path in looked_at if path.endswith(later)], looked_at


def test_a_list_is_read_line_by_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa.png\n" + b"b\xff.png\r\n" * 200_000)
    shards = iter(open_source(str(path), SourceConfig(shard_rows=2)).shards())
    assert next(shards).files == ("a.png", "b\udcff.png")
    path.write_bytes(b"")  # most of it was not read yet
    assert sum(shard.rows for shard in shards) < 100_000


# --- in pieces


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streamed_listing, "PIECE_UNITS", 4)  # two shards of three


def made_up(count: int) -> list[Shard]:
    names = [tuple(f"{s}/{i}.png" for i in range(3)) for s in range(count)]
    return [Shard(s, 3, 0, names[s], 30, ("1-1", "2-2", f"3-{s}")) for s in range(count)]


class MadeUp:
    """Lists shards, and notes which."""

    def __init__(self, shards: list[Shard]) -> None:
        self.shards, self.listed = shards, list[int]()

    def after(self, last: Shard | None) -> Iterator[Shard]:
        for shard in self.shards[0 if last is None else last.number + 1 :]:
            self.listed.append(shard.number)
            yield shard


def listed(source: MadeUp, folder: Path, read: int | None = None, parts: int = 0) -> list[Shard]:
    """Read shards of a listing, all or some of them, with the pieces in a folder."""
    with StreamedListing(source.after, PieceFiles(str(folder)), parts) as listing:
        listing.is_quick()
        listing.write_pieces()
        shards = []
        for shard in listing:
            shards.append(shard)
            if len(shards) == read:
                return shards
        assert listing.sha256 == listing_sha256(source.shards)
        assert listing.rows == 3 * len(source.shards)
        assert list(listing) == shards  # once more
    return shards


@pytest.mark.usefixtures("small_pieces")
def test_a_second_run_lists_only_what_is_in_no_piece(tmp_path: Path) -> None:
    source = MadeUp(made_up(9))
    assert listed(source, tmp_path) == source.shards
    assert source.listed == [*range(9)]
    again = MadeUp(source.shards)
    assert listed(again, tmp_path) == source.shards
    assert again.listed == [8]
    assert len(list((tmp_path / "listing").iterdir())) == 4


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "gone", "another's"])
def test_a_damaged_piece_alone_is_listed_again(damage: str, tmp_path: Path) -> None:
    source = MadeUp(made_up(9))
    listed(source, tmp_path)
    pieces = sorted((tmp_path / "listing").iterdir())
    before = [path.read_bytes() for path in pieces]
    data = {
        "flipped": before[1][:90] + bytes([before[1][90] ^ 1]) + before[1][91:],
        "cut": before[1][:90],
        "emptied": b"",
        "another's": before[2],
    }
    if damage == "gone":
        pieces[1].unlink()
    else:
        pieces[1].write_bytes(data[damage])
    again = MadeUp(source.shards)
    assert listed(again, tmp_path) == source.shards
    assert again.listed == [2, 3, 8]
    assert [path.read_bytes() for path in pieces] == before


@pytest.mark.usefixtures("small_pieces")
def test_a_source_that_changed_in_a_damaged_piece_is_listed_from_there(tmp_path: Path) -> None:
    listed(MadeUp(made_up(9)), tmp_path)
    (tmp_path / "listing" / "000001.piece").write_bytes(b"")
    shards = made_up(9)
    shards[3] = Shard(3, 3, 0, ("3/0.png", "3/1.png", "new.png"), 31, ("1-1", "2-2", "3-3"))
    again = MadeUp(shards)
    assert listed(again, tmp_path) == shards
    assert again.listed == [*range(2, 9)]


@pytest.mark.usefixtures("small_pieces")
def test_no_receipt_is_read_for_a_piece_that_is_older_than_its_parts(tmp_path: Path) -> None:
    source = MadeUp(made_up(9))
    listed(source, tmp_path, parts=3)  # those of the first two pieces may be of another listing
    with StreamedListing(source.after, PieceFiles(str(tmp_path)), 9) as listing:
        listing.is_quick()
        listing.write_pieces()
        known = [listing.has_units_of_part(shard) for shard in listing]
    assert known == [False] * 4 + [True] * 4 + [False]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 40), max_size=60), st.integers(1, 7))
def test_repeated_ids_are_those_of_a_dictionary(numbers: list[int], size: int) -> None:
    pieces = [numbers[start : start + size] for start in range(0, len(numbers), size)]

    def column(piece: list[int], name: str) -> list[str]:
        return [f"{number}" if name == "id" else f"uri-{number}" for number in piece]

    seen, expected = set[int](), list[list[int]]()
    for piece in pieces:
        rows = [row for row, number in enumerate(piece) if number in seen or number in piece[:row]]
        expected += [rows] * bool(rows)
        seen |= {*piece}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ids_module, "_BUCKETS", 5)
        for at_once in (8, 1 << 20):  # with files, and without
            patch.setattr(ids_module, "_AT_ONCE", at_once)
            assert [sorted(rows) for _, rows in repeated_ids(pieces, column)] == expected


# --- in a job


class Killed(BaseException):
    """What SIGKILL is to a process, for one that has to go on testing."""


class Slow:
    """A folder that takes longer to list than the job waits; ``waits_for`` is given by shard."""

    def __init__(self, location: Path, waits_for: Callable[[Shard], object]) -> None:
        self._folder = folder.FolderSource(str(location), 3)
        self.kind, self.location = self._folder.kind, self._folder.location
        self._waits_for = waits_for
        self.read = self._folder.read

    def shards(self) -> Iterator[Shard]:
        return self._noted(self._folder.shards())

    def shards_after(self, last: Shard) -> Iterator[Shard]:
        return self._noted(self._folder.shards_after(last))

    def _noted(self, shards: Iterable[Shard]) -> Iterator[Shard]:
        for shard in shards:
            self._waits_for(shard)
            yield shard


def prepared(source: Any, out: Path, map_shards: Any = map_locally, **modes: Any) -> Manifest:
    return prepare_store(source, CONFIG, out, map_shards, **modes)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(streamed_listing, "_QUICK_S", 0.0)
    return write_tree(tmp_path / "photos", {"cat": 14, "dog": 14})


def test_the_first_part_is_written_before_the_listing_ends(photos: Path, tmp_path: Path) -> None:
    out, written = tmp_path / "store", threading.Event()

    def waits_for_the_first_part(shard: Shard) -> None:
        assert shard.number < 3 or written.wait(60)

    def mapped(function: Callable[[Shard], int], shards: Iterable[Shard]) -> Iterator[int]:
        for shard in shards:
            yield function(shard)
            if (out / "receipts" / "rows-00000.receipt").exists():
                written.set()

    prepared(Slow(photos, waits_for_the_first_part), out, mapped)
    plain = prepared(folder.FolderSource(str(photos), 3), tmp_path / "plain")
    assert read_manifest(out, "store").files == plain.files
    assert read_manifest(out, "store").made_from == plain.made_from


def killed_after(parts: int) -> Any:
    def mapped(function: Callable[[Shard], int], shards: Iterable[Shard]) -> Iterator[int]:
        for number, shard in enumerate(shards):
            if number == parts:
                raise Killed
            yield function(shard)
        raise Killed

    return mapped


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("parts", [0, 1, 4, 9, 10])
def test_a_killed_job_goes_on_with_its_listing(parts: int, photos: Path, tmp_path: Path) -> None:
    out, begun, again = tmp_path / "store", list[int](), list[int]()
    everything = threading.Event()

    def waits(function: Any, shards: Any) -> Any:
        assert everything.wait(60)
        return killed_after(parts)(function, shards)

    def notes(shard: Shard) -> None:
        begun.append(shard.number)
        if shard.number == 9:
            everything.set()

    with pytest.raises(Killed):
        prepared(Slow(photos, notes), out, waits)
    assert begun == [*range(10)]
    (out / "listing" / "000001.piece").write_bytes(b"damaged")
    manifest = prepared(Slow(photos, lambda shard: again.append(shard.number)), out)
    assert again[:2] == [2, 3]
    assert again[2:] in ([8, 9], [])  # the last piece may have been full
    plain = prepared(folder.FolderSource(str(photos), 3), tmp_path / "plain")
    assert (manifest.files, manifest.counts) == (plain.files, plain.counts)
    assert manifest.fingerprint == plain.fingerprint
    assert not (out / "listing").exists()


@pytest.mark.usefixtures("small_pieces")
def test_what_changed_after_a_kill_is_refused_or_left_to_an_update(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "store"
    with pytest.raises(Killed):
        prepared(folder.FolderSource(str(photos), 3), out, killed_after(10))
    (photos / "zebra.png").write_bytes(encode_image(99))  # in no piece
    with pytest.raises(SchnRayError, match=r"held other files: .* with --update"):
        prepared(folder.FolderSource(str(photos), 3), out)
    counts = prepared(folder.FolderSource(str(photos), 3), out, update=True).counts
    assert (counts["rows"], counts["new"]) == (29, 1)
    assert not (out / "listing").exists()


def test_a_file_that_changes_in_a_killed_job_is_read_again(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "store"
    with pytest.raises(Killed):
        prepared(folder.FolderSource(str(photos), 3), out, killed_after(9))
    file = photos / "cat" / "001.png"
    file.write_bytes(
        encode_image(1, (9, 9)).ljust(file.stat().st_size, b"\0")[: file.stat().st_size]
    )
    os.utime(file, ns=(1, 1))
    prepared(folder.FolderSource(str(photos), 3), out)
    store = open_store(out)
    row = store.ids.to_pylist().index("cat/001.png")
    assert store.image(row) != (photos / "cat" / "000.png").read_bytes()


def test_an_error_of_the_listing_ends_the_job_and_the_same_call_goes_on(
    photos: Path, tmp_path: Path
) -> None:
    def fails(shard: Shard) -> None:
        if shard.number == 5:
            raise SchnRayError("the disk of the photos is gone")

    out = tmp_path / "store"
    with pytest.raises(SchnRayError, match="disk of the photos is gone"):
        prepared(Slow(photos, fails), out)
    assert prepared(Slow(photos, lambda shard: None), out).counts["rows"] == 28


# --- what a killed update counts; what is said where nothing is good


@pytest.mark.parametrize("killed", [0, 1, 2])
@pytest.mark.parametrize("update", [True, False])
def test_a_killed_update_counts_all_that_it_changed(
    killed: int, update: bool, photos: Path, tmp_path: Path
) -> None:
    out, source = tmp_path / "store", folder.FolderSource(str(photos), 3)
    prepared(source, out)
    (photos / "cat" / "new.png").write_bytes(encode_image(99))
    (photos / "dog" / "003.png").write_bytes(encode_image(101, (20, 20)))
    (photos / "dog" / "009.png").unlink()
    with pytest.raises(Killed):
        prepared(source, out, killed_after(killed), update=True)
    counts = prepared(source, out, update=update).counts
    assert (counts["new"], counts["changed"], counts["gone"]) == (1, 1, 1)


def test_a_killed_update_of_a_source_that_changed_again_counts_both(
    photos: Path, tmp_path: Path
) -> None:
    out, source = tmp_path / "store", folder.FolderSource(str(photos), 3)
    prepared(source, out)
    (photos / "cat" / "new.png").write_bytes(encode_image(99))
    with pytest.raises(Killed):
        prepared(source, out, killed_after(2), update=True)  # all is written
    (photos / "dog" / "new.png").write_bytes(encode_image(98))
    with pytest.raises(SchnRayError, match="held other files"):
        prepared(source, out)
    assert prepared(source, out, update=True).counts["new"] == 2


def test_where_every_row_is_bad_the_quarantine_is_named(tmp_path: Path) -> None:
    for name in ("cat/1.png", "dog/2.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True)
        (tmp_path / "photos" / name).write_bytes(b"no image")
    config = PrepareConfig(source=SourceConfig(max_bad_share=1.0))
    with pytest.raises(SchnRayError, match=r"none of the 2 rows .*quarantine\.parquet") as caught:
        prepare_store(open_source(str(tmp_path / "photos"), config.source), config, tmp_path / "s")
    assert "cat/1.png" in str(caught.value)
    assert "classes" not in str(caught.value)
