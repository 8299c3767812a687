"""Any list or CSV: no crash, and every value that is read is in the file."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schn_ray.core.errors import SchnRayError
from schn_ray.data.config import SourceConfig
from schn_ray.data.sources.listing import Item
from schn_ray.data.sources.lists import csv_items, paired_items, split_list_items, text_items

often = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# a path as people have them: spaces inside, digits, brackets, other scripts; no line break
paths = st.from_regex(r"[a-zA-Zé猫(][a-zA-Z0-9_é猫 ./()-]{0,20}\.jpg", fullmatch=True)
endings = st.sampled_from(["\n", "\r\n", " \n", "\t\n"])


def listed(text: str | bytes, folder: Path, name: str = "list.txt") -> list[Item]:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    read = csv_items if name.endswith(".csv") else text_items
    return list(read(str(file), SourceConfig()))


@often
@given(rows=st.lists(st.tuples(paths, st.integers(0, 10**30)), min_size=1), end=endings)
def test_paths_with_a_class(rows: list[tuple[str, int]], end: str, tmp_path: Path) -> None:
    text = end.join(f"{path} {label}" for path, label in rows)
    items = listed(text, tmp_path)
    assert [(item.path, item.entry.labels) for item in items] == [
        (path, (str(label),)) for path, label in rows
    ]
    assert [item.entry.line for item in items] == list(range(1, len(rows) + 1))
    assert not any(item.entry.problem for item in items)


@often
@given(data=st.data(), classes=st.integers(2, 40), end=endings)
def test_paths_with_ones(data: st.DataObject, classes: int, end: str, tmp_path: Path) -> None:
    bits = st.lists(st.booleans(), min_size=classes, max_size=classes)
    rows = data.draw(st.lists(st.tuples(paths, bits), min_size=1, max_size=8))
    lines = [" ".join([path, *("01"[bit] for bit in row)]) for path, row in rows]
    cut = data.draw(st.integers(0, len(rows)))  # one of them may lack its last field
    lines = [line[:-2] if at == cut and at else line for at, line in enumerate(lines)]
    items = listed(end.join(lines), tmp_path)
    assert [item.path for item in items] == [path for path, _ in rows]
    for at, (item, (_, row)) in enumerate(zip(items, rows, strict=True)):
        if at == cut and at:
            assert item.entry.problem == f"{classes} fields, where the first line has {classes + 1}"
            assert item.entry.labels == ()
        else:
            assert item.entry.labels == tuple(str(c) for c, bit in enumerate(row) if bit)


@often
@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_list_or_an_error(content: bytes, tmp_path: Path) -> None:
    items = listed(content, tmp_path)
    lines = content.decode("utf-8-sig", "surrogateescape").split("\n")
    assert len(items) == sum(bool(line.strip()) for line in lines)
    for path, entry in items:
        assert lines[entry.line - 1].startswith(path)
        rest = lines[entry.line - 1][len(path) :].split()
        assert all(word.isascii() and word.isdigit() for word in rest)


@often
@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_csv_or_an_error(content: bytes, tmp_path: Path) -> None:
    try:
        items = listed(b"path,label,id\n" + content, tmp_path, "x.csv")
    except SchnRayError:
        return
    text = io.StringIO("path,label,id\n" + content.decode("utf-8", "surrogateescape"), newline="")
    rows = [row for row in csv.reader(text) if row][1:]
    assert len(items) == len(rows)
    for (path, entry), row in zip(items, rows, strict=True):
        if len(row) != 3 or not row[0]:
            assert entry.problem
        else:
            assert (path, entry.problem, entry.id) == (row[0], "", row[2] or row[0])
            assert set(entry.labels) == {word.strip() for word in row[1].split(";")} - {""}


names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)


@often
@given(
    rows=st.lists(
        st.tuples(names, st.lists(names.filter(lambda name: ";" not in name)), names), max_size=6
    )
)
def test_a_csv_of_any_text_comes_back(
    rows: list[tuple[str, list[str], str]], tmp_path: Path
) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["path", "labels", "id"])
    writer.writerows([path, ";".join(labels), row_id] for path, labels, row_id in rows)
    items = listed(text.getvalue(), tmp_path, "x.csv")
    assert [item.path for item in items] == [path for path, *_ in rows]
    assert [item.entry.id for item in items] == [row_id for *_, row_id in rows]
    for item, (_, labels, _) in zip(items, rows, strict=True):
        stripped = [label.strip() for label in labels]
        assert item.entry.labels == tuple(dict.fromkeys(filter(None, stripped)))


@often
@given(images=st.binary(max_size=80), labels=st.binary(max_size=80))
def test_any_two_files_are_a_pair_or_an_error(images: bytes, labels: bytes, tmp_path: Path) -> None:
    (tmp_path / "x_img.txt").write_bytes(images)
    (tmp_path / "x_label.txt").write_bytes(labels)
    try:
        items = list(paired_items(str(tmp_path), SourceConfig()))
    except SchnRayError:
        return
    assert all(item.entry.problem or item.entry.line for item in items)


@often
@given(parts=st.tuples(*[st.binary(max_size=80)] * 3))
def test_any_three_files_are_lists_or_an_error(parts: tuple[bytes, ...], tmp_path: Path) -> None:
    for name, content in zip(("train", "test", "database"), parts, strict=True):
        (tmp_path / f"{name}.txt").write_bytes(content)
    items = list(split_list_items(str(tmp_path), SourceConfig()))
    assert all(
        set((item.entry.split or "").split()) <= {"train", "test", "database"} for item in items
    )


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SchnRayError, match=r"x\.csv:1: the header has 'label' twice"):
        listed("path,label,label\na,b,c\n", tmp_path, "x.csv")
