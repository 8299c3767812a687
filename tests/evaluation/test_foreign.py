"""Codes and embeddings of other programs: in every form, by the same metrics, with clear errors."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import average_precision_score
from support.users import Run

import schn_ray
from schn_ray.core.errors import SchnRayError
from schn_ray.evaluation.plot_data import bit_statistics
from schn_ray.evaluation.results import read_plot_data

Q, G, K, C = 5, 6, 12, 3
GENERATOR = np.random.default_rng(2)
U = GENERATOR.normal(size=(Q + G, K)).astype(np.float32)
B = np.where(GENERATOR.random((Q + G, K)) < 0.15, -1, 1)  # few bits differ: full of ties
Y = GENERATOR.integers(0, C, Q + G)
ONE_HOT = np.eye(C, dtype=np.int64)[Y]
ROLES = ["query"] * Q + ["database"] * G


def brute_force_map() -> float:
    """The mean over all orders of the gallery that the distances allow."""
    values = []
    for b, y in zip(B[:Q], Y[:Q], strict=True):
        distances = (B[Q:] != b).sum(axis=1)
        relevant = Y[Q:] == y
        if not relevant.any():
            continue
        every = []
        for order in itertools.permutations(range(G)):
            ranking = sorted(order, key=lambda row: distances[row])
            hits = np.cumsum(relevant[ranking])
            every.append((hits / np.arange(1, G + 1))[relevant[ranking]].mean())
        values.append(np.mean(every))
    return float(np.mean(values))


def packed(order: Any) -> np.ndarray:
    return np.packbits(B > 0, axis=1, bitorder=order)


FORMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "signs": (B.astype(np.int8), {}),
    "floats": (B.astype(np.float64), {}),
    "bits": ((B > 0).astype(np.uint8), {}),
    "booleans": (B > 0, {}),
    "a tensor": (torch.tensor(B), {}),
    "packed": (packed("little"), {"bits": K}),
    "packed from the highest bit": (packed("big"), {"bits": K}),
}


@pytest.mark.parametrize("form", FORMS)
def test_codes_in_every_form_have_the_same_exact_map(form: str, tmp_path: Path) -> None:
    codes, options = FORMS[form]
    measured = schn_ray.evaluate(
        codes=codes[Q:],
        labels=Y[Q:],
        queries=codes[:Q],
        query_labels=Y[:Q],
        out=tmp_path / "mine",
        **options,
    )
    figures = measured.figures
    assert figures.map == pytest.approx(brute_force_map())
    assert figures.map_worst is not None
    assert figures.map_best is not None
    assert figures.map_worst < figures.map < figures.map_best
    assert (figures.bits, figures.queries, figures.gallery) == (K, Q, G)
    assert measured.to_arrow().num_rows == Q
    assert read_plot_data(measured).bits == bit_statistics(packed("little")[Q:], K)


def save_npy(folder: Path) -> dict[str, Any]:
    np.save(folder / "B.npy", B.astype(np.int8))
    np.save(folder / "L.npy", ONE_HOT)
    (folder / "roles.txt").write_text("\n".join(ROLES) + "\n")
    return {"codes": folder / "B.npy", "labels": folder / "L.npy", "split": folder / "roles.txt"}


def save_npz(folder: Path) -> dict[str, Any]:
    is_query = np.arange(Q + G) < Q
    np.savez(folder / "all.npz", codes=B > 0, labels=Y.astype(np.float32), split=is_query)
    return {"codes": folder / "all.npz"}


def save_parquet(folder: Path) -> dict[str, Any]:
    codes = pa.array([row.tobytes() for row in packed("little")], pa.binary(2))
    names = [[f"class {y}"] for y in Y]
    ids = [f"photo {row}" for row in range(Q + G)]
    table = pa.table({"id": ids, "code": codes, "labels": names, "split": ROLES})
    pq.write_table(table, folder / "all.parquet")
    return {"codes": folder / "all.parquet", "bits": K}


@pytest.mark.parametrize("save", [save_npy, save_npz, save_parquet])
def test_files_of_every_kind(
    save: Callable[[Path], dict[str, Any]], tmp_path: Path, schn_ray: Run
) -> None:
    import schn_ray as face

    files = save(tmp_path)
    measured = face.evaluate(**files, out=tmp_path / "python")
    assert measured.figures.map == pytest.approx(brute_force_map())
    options = [f"--{name}={value}" for name, value in files.items()]
    answer = schn_ray("evaluate", *options, "--out", tmp_path / "command")
    assert answer.code == 0, answer.err
    assert answer.out.splitlines()[1:] == measured.text().splitlines()[1:]
    compared = face.compare([tmp_path / "python", tmp_path / "command"]).comparison
    assert [gap.difference.interval.mean for gap in compared.gaps] == [0]
    if save is save_parquet:
        assert measured.to_arrow()["id"].to_pylist() == [f"photo {row}" for row in range(Q)]


def test_classes_that_one_side_lacks_and_rows_that_are_neither(tmp_path: Path) -> None:
    codes = np.array([[1, 1], [1, 1], [1, -1], [1, 1]])
    split = ["query", "gallery", "gallery", "validation"]
    for name, labels in (("numbers", [7, 3, 7, 7]), ("names", ["b", "a", "b", "b"])):
        measured = schn_ray.evaluate(
            codes=codes, labels=labels, split=split, out=tmp_path / name
        ).figures
        assert (measured.queries, measured.gallery) == (1, 2)
        assert measured.map == pytest.approx(0.5)


def test_embeddings_are_ranked_by_cosine_too_and_their_signs_are_codes(tmp_path: Path) -> None:
    files: dict[str, Any] = {"queries": U[:Q], "labels": Y[Q:], "query_labels": Y[:Q]}
    measured = schn_ray.evaluate(embeddings=U[Q:], **files, out=tmp_path / "floats").figures
    files["queries"] = U[:Q] >= 0
    signs = schn_ray.evaluate(codes=U[Q:] >= 0, **files, out=tmp_path / "signs").figures
    assert (measured.map, measured.ndcg_at) == (signs.map, signs.ndcg_at)
    unit = U / np.linalg.norm(U, axis=1, keepdims=True)
    expected = [
        average_precision_score(Y[Q:] == y, unit[Q:] @ u)
        for u, y in zip(unit[:Q], Y[:Q], strict=True)
        if (Y[Q:] == y).any()
    ]
    assert measured.controls is not None
    assert measured.controls.cosine is not None
    assert measured.controls.cosine.mean == pytest.approx(np.mean(expected))


def test_embeddings_need_no_labels_for_recall(tmp_path: Path) -> None:
    figures = schn_ray.evaluate(embeddings=U[Q:], queries=U[:Q], out=tmp_path / "out").figures
    assert (figures.map, figures.without_labels is None) == (None, False)
    nearest = (U[:Q] / np.linalg.norm(U[:Q], axis=1, keepdims=True)) @ (
        U[Q:] / np.linalg.norm(U[Q:], axis=1, keepdims=True)
    ).T
    distances = ((U[:Q, None] >= 0) != (U[None, Q:] >= 0)).sum(axis=2)
    shares = []
    for scores, row in zip(nearest, distances, strict=True):
        best = row == row.min()
        shares.append(best[scores.argmax()] / best.sum())
    assert figures.controls is not None
    assert figures.controls.recall[0].model.mean == pytest.approx(np.mean(shares))


GOOD: dict[str, Any] = {
    "codes": B[Q:],
    "labels": Y[Q:],
    "queries": B[:Q],
    "query_labels": Y[:Q],
}
NAN = U.copy()
NAN[8, 1] = np.nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": Y[Q:-1]}, "labels has labels of 5 rows, codes has 6 rows: expected as many"),
        ({"queries": B[:Q, :8]}, "have 8 bits, the gallery of codes has 12"),
        ({"query_labels": None}, "no labels: give them with --query-labels FILE"),
        ({"labels": None, "query_labels": None}, "codes alone cannot be measured: give --labels"),
        ({"queries": None}, "which rows are queries"),
        ({"queries": None, "split": ROLES}, "split has 11 rows, and there are 6 codes"),
        ({"queries": None, "split": ["gallery"] * G}, "no query rows"),
        ({"codes": U[Q:]}, "codes are -1 and \\+1, or 0 and 1, or packed .* --embeddings"),
        ({"codes": B[0]}, r"expected codes \[n, bits\], one row an image; got \[12\]"),
        ({"codes": packed("little")[Q:], "bits": 20}, "2 bytes; 20 bits do not fit"),
        ({"codes": packed("little")[Q:] | 255, "bits": K}, "more bits set than the 12 of --bits"),
        ({"labels": np.full(G, np.nan)}, "row 0 has nan; expected a class number"),
        ({"labels": np.full((G, C), 0.5)}, "row 0 has 0.5; rows of 3 values are 0 or 1"),
        ({"labels": np.eye(4)[Y[Q:]], "query_labels": ONE_HOT[:Q]}, "has 3 classes, .* has 4"),
        ({"labels": ["a"] * G, "query_labels": ["b"] * Q}, "no class in common, such as 'b'"),
        ({"codes": None, "embeddings": NAN, "queries": U}, "row 8 has numbers that are NaN"),
        ({"codes": None, "embeddings": [["a"]]}, "expected embeddings, numbers"),
        ({"embeddings": U}, "one of the two"),
        ({"codes": "nowhere.npy"}, "nowhere.npy: no such file of codes"),
        ({"run": "run"}, "without a run: leave RUN"),
        ({"gallery": "both"}, "--gallery learned or both out"),
        ({"gallery": "encoded"}, "--gallery encoded needs --store"),
        ({"codes": None}, "name a RUN and its --store STORE; or --codes FILE"),
        ({"out": None}, "out is missing"),
    ],
)
def test_what_does_not_fit_is_said(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    options = {"out": tmp_path / "out"} | GOOD | changes
    with pytest.raises(SchnRayError, match=message):
        schn_ray.evaluate(**options)
    assert not (tmp_path / "out").exists()


def test_queries_of_the_gallery_are_refused_by_id_unless_it_is_said(tmp_path: Path) -> None:
    for name, rows in (("gallery", slice(Q, None)), ("query", slice(Q - 1, Q + 1))):
        ids = [f"photo {row}" for row in range(Q + G)][rows]
        table = pa.table({"id": ids, "code": (B > 0)[rows].tolist(), "label": Y[rows]})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    files = {"codes": tmp_path / "gallery.parquet", "queries": tmp_path / "query.parquet"}
    with pytest.raises(
        SchnRayError, match="1 queries are in the gallery, by id, such as 'photo 5'"
    ):
        schn_ray.evaluate(**files)
    measured = schn_ray.evaluate(**files, settings={"audit": "report"})
    assert measured == str(tmp_path / "gallery-evaluation")
    assert "audit: 1 queries are in the gallery" in measured.text()


def test_evaluations_without_a_run_are_reported_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[tuple[Any, ...]] = []  # what is drawn; drawing it takes seconds
    monkeypatch.setattr("schn_ray.report.runs.write_reports", lambda *page: pages.append(page))
    first = schn_ray.evaluate(**GOOD, out=tmp_path / "first")
    second = schn_ray.evaluate(**GOOD | {"codes": -B[Q:]}, out=tmp_path / "second")
    schn_ray.write_report(str(first), tmp_path / "one.html")
    title, (report,), opening, _ = pages.pop()
    assert (title, opening) == (f"first: {K}-bit image codes", None)
    assert (report.figures, report.plots) == (first.figures, read_plot_data(first))
    assert report.summary_rows[1][2] == "trained on or not: not known"
    schn_ray.write_report([str(first), str(second)], tmp_path / "two.html")
    _, reports, opening, _ = pages.pop()
    assert [each.figures.map for each in reports] == [first.figures.map, second.figures.map]
    assert opening is not None
    with pytest.raises(SchnRayError, match="measured another model"):
        schn_ray.write_report(str(first), tmp_path / "no.html", evaluation=str(second))


def test_another_file_is_another_evaluation(tmp_path: Path) -> None:
    schn_ray.evaluate(**GOOD, out=tmp_path / "out")
    assert schn_ray.evaluate(**GOOD, out=tmp_path / "out").note
    with pytest.raises(SchnRayError, match="another request"):
        schn_ray.evaluate(**GOOD | {"codes": -B[Q:]}, out=tmp_path / "out")


def test_a_file_of_codes_is_indexed_searched_and_added_to(tmp_path: Path) -> None:
    np.save(tmp_path / "B.npy", B[Q:])
    ids = pa.array([f"new {row}" for row in range(Q)])
    pq.write_table(pa.table({"id": ids, "code": B[:Q].tolist()}), tmp_path / "more.parquet")
    index = schn_ray.build_index(tmp_path / "B.npy", tmp_path / "index")
    schn_ray.change_index(index, add=tmp_path / "more.parquet")
    (result,) = schn_ray.search(index, id="3", k=Q + G)
    rows = [(str(row), int((B[Q + row] != B[Q + 3]).sum())) for row in range(G) if row != 3]
    rows += [(f"new {row}", int((B[row] != B[Q + 3]).sum())) for row in range(Q)]
    expected = sorted(rows, key=lambda row: (row[1], row[0].encode()))
    assert [(hit.id, hit.distance) for hit in result.hits] == expected
    assert schn_ray.build_index(tmp_path / "B.npy", tmp_path / "again").counts["rows"] == G
