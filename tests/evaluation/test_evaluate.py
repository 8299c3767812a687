"""An evaluation from end to end on a tiny run, and each of its parts against something simpler."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import average_precision_score
from support.evaluations import evaluated_codes
from support.image_files import write_tree
from support.manifests import edit_manifest
from support.users import TINY

from schn_ray.core.atomic_files import sha256_file
from schn_ray.core.bits import unpack
from schn_ray.core.directories import AlreadyDone
from schn_ray.core.errors import SchnRayError
from schn_ray.core.manifest import read_manifest
from schn_ray.data.config import PrepareConfig, SourceConfig
from schn_ray.data.labels import label_matrix
from schn_ray.data.sources.kinds import open_source
from schn_ray.data.splits import protocols
from schn_ray.data.splits.protocols import Protocol
from schn_ray.data.store.describe import SPLIT
from schn_ray.data.store.prepare import prepare_store
from schn_ray.data.store.reader import open_store
from schn_ray.evaluation import controls, examples, features, rescored
from schn_ray.evaluation import plot_data as diagrams
from schn_ray.evaluation.config import ControlsConfig, EvaluateConfig
from schn_ray.evaluation.evaluate import evaluate_run
from schn_ray.evaluation.metrics.average_precision import average_precision, mean
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes, count_relevant
from schn_ray.evaluation.metrics.histograms import distance_histograms, graded_histograms
from schn_ray.evaluation.metrics.tie_rules import legacy_average_precision
from schn_ray.evaluation.results import (
    find_evaluation,
    read_examples,
    read_figures,
    read_plot_data,
    read_queries,
)
from schn_ray.evaluation.text import figures_text
from schn_ray.models.model_files import LEARNED
from schn_ray.retrieval.index.vectors import as_int8
from schn_ray.training.config import train_config
from schn_ray.training.run import train_locally


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose gallery includes the training rows, a run, and its evaluation of both kinds."""
    folder = tmp_path_factory.mktemp("evaluation")
    photos = write_tree(folder / "photos", {"cat": 20, "dog": 20, "owl": 20})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(protocols.PROTOCOLS, "random", Protocol("shares", "not-query"))
        prepare_store(open_source(str(photos), SourceConfig()), PrepareConfig(), folder / "store")
    one = (*TINY, "schedule.iterations=1", "schedule.epochs=1")
    train_locally(train_config("digits", None, one), folder / "store", folder / "run")
    config = EvaluateConfig(gallery="both", ks=(5, 20), legacy=("stable",), examples=6)
    evaluate_run(folder / "run", folder / "store", folder / "run-evaluation", config)
    return folder


def sides(folder: Path) -> tuple[LabelledCodes, LabelledCodes]:
    store = open_store(folder / "store")
    _, codes = evaluated_codes(folder / "run-evaluation")
    both = (store.rows(role) for role in ("query", "gallery"))
    queries, gallery = (LabelledCodes(rows, codes[rows], store.labels[rows]) for rows in both)
    return queries, gallery


def ap_of(queries: LabelledCodes, gallery: LabelledCodes) -> np.ndarray:
    return average_precision(
        distance_histograms(queries.codes, queries.labels, gallery.codes, gallery.labels, 12)
    )


def test_figures_are_those_of_the_codes_on_disk(folder: Path) -> None:
    measured, (queries, gallery) = read_figures(folder / "run-evaluation"), sides(folder)
    ap = ap_of(queries, gallery)
    assert measured.map == pytest.approx(mean(ap), rel=1e-12)
    assert measured.gallery_codes == "encoded"
    assert (measured.queries, measured.gallery) == (6, 54)
    known = measured.map_interval
    assert known.low <= measured.map <= known.high
    assert set(measured.ndcg_at) == set(measured.precision_at) == {5, 20}
    assert 0 < measured.mrr <= 1
    ids, values = read_queries(folder / "run-evaluation")
    assert ids == open_store(folder / "store").ids.take(queries.rows).to_pylist()
    np.testing.assert_allclose(values["average_precision"], ap, rtol=1e-12)
    for each in measured.by_class:
        mine = [value for id, value in zip(ids, ap, strict=True) if id.startswith(each.name)]
        assert each.queries == len(mine) == 2
        assert each.map == pytest.approx(np.mean(mine), rel=1e-12)


def test_learned_codes_stand_beside_and_are_never_mixed(folder: Path) -> None:
    measured, (queries, gallery) = read_figures(folder / "run-evaluation"), sides(folder)
    learned, encoded = measured.side_by_side
    assert [side.gallery_codes for side in (learned, encoded)] == ["learned", "encoded"]
    store = open_store(folder / "store")
    table = pq.read_table(folder / "run" / LEARNED)
    code_of = dict(zip(table["id"].to_pylist(), table["code"].to_pylist(), strict=True))
    kept = [p for p, row in enumerate(gallery.rows) if store.ids[int(row)].as_py() in code_of]
    assert 0 < len(kept) < len(gallery)
    some = gallery[np.array(kept)]
    codes = [np.frombuffer(code_of[store.ids[int(row)].as_py()], np.uint8) for row in some.rows]
    solved = replace(some, codes=np.stack(codes))
    assert not np.array_equal(solved.codes, some.codes)
    assert learned.map == pytest.approx(mean(ap_of(queries, solved)), rel=1e-12)
    assert encoded.map == pytest.approx(mean(ap_of(queries, some)), rel=1e-12)
    assert learned.gallery == encoded.gallery == len(kept)


def test_a_tie_rule_of_others_is_measured_on_request(folder: Path) -> None:
    measured, (queries, gallery) = read_figures(folder / "run-evaluation"), sides(folder)
    stable = legacy_average_precision(
        queries.codes, queries.labels, gallery.codes, gallery.labels, "stable"
    )
    assert measured.legacy == {"stable": pytest.approx(mean(stable), rel=1e-12)}
    assert measured.map_worst <= measured.legacy["stable"] <= measured.map_best


def test_it_is_said_in_words(folder: Path) -> None:
    text = figures_text(read_figures(folder / "run-evaluation"))
    for words in (
        "encoded",
        "worst order",
        "classifier's codeword",
        "learned",
        "tie rule 'stable'",
    ):
        assert words in text


def test_an_evaluation_is_found_beside_its_run(folder: Path) -> None:
    beside = folder / "run-evaluation"
    assert find_evaluation(folder / "run") == find_evaluation(beside) == beside
    with pytest.raises(SchnRayError, match="schn-ray evaluate"):
        find_evaluation(folder / "store")


def test_the_same_request_again_does_nothing(folder: Path) -> None:
    config = EvaluateConfig(gallery="both", ks=(5, 20), legacy=("stable",), examples=6)
    with pytest.raises(AlreadyDone):
        evaluate_run(folder / "run", folder / "store", folder / "run-evaluation", config)


# --- the audit


def plant(folder: Path, tmp_path: Path) -> Path:
    """Copy the store with two of its queries in the gallery as well."""
    store = shutil.copytree(folder / "store", tmp_path / "store")
    rows = pq.read_table(store / SPLIT).to_pylist()
    again = [row | {"role": "gallery"} for row in rows if row["role"] == "query"][:2]
    table = pa.Table.from_pylist([*rows, *again], pq.read_schema(store / SPLIT))
    pq.write_table(table, store / SPLIT)
    manifest = read_manifest(store, "store")
    sizes = manifest.sizes | {SPLIT: (store / SPLIT).stat().st_size}
    edit_manifest(store, files=manifest.files | {SPLIT: sha256_file(store / SPLIT)}, sizes=sizes)
    return store


def test_a_query_in_the_gallery_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    store = plant(folder, tmp_path)
    ids = open_store(store).ids.take(open_store(store).rows("query")[:2]).to_pylist()
    plain = EvaluateConfig(controls=ControlsConfig(train_rows=0))
    with pytest.raises(SchnRayError) as caught:
        evaluate_run(folder / "run", store, tmp_path / "out", plain)
    assert "2 queries are in the gallery" in str(caught.value)
    assert all(id in str(caught.value) for id in ids)
    assert not (tmp_path / "out").exists()
    allowed = plain.model_copy(update={"audit": "report"})
    evaluate_run(folder / "run", store, tmp_path / "out", allowed)
    measured = read_figures(tmp_path / "out")
    assert measured.audit.findings == ("2 queries are in the gallery",)
    assert measured.controls is None
    assert "audit: 2 queries are in the gallery" in figures_text(measured)
    listed = json.loads((tmp_path / "out" / "audit.json").read_text())
    assert listed["found"][0]["ids"] == ids


# --- parts of a gallery


def scattered(function: Callable[[Any], Any], parts: list[Any]) -> Iterable[Any]:
    """Do the parts in another order, as machines would."""
    return (function(parts[i]) for i in np.random.default_rng(0).permutation(len(parts)))


def drawn(rng: np.random.Generator, rows: int, distinct: int = 40) -> LabelledCodes:
    pool = np.packbits(rng.random((distinct, 12)) < 0.5, axis=1, bitorder="little")
    labels = [rng.choice(5, rng.integers(0, 4), replace=False).tolist() for _ in range(rows)]
    return LabelledCodes(
        np.arange(rows), pool[rng.integers(0, distinct, rows)], label_matrix(labels, 5)
    )


@pytest.mark.parametrize("part_rows", [2, 7, 59, 60, 1000])
def test_one_part_or_many_count_the_same(part_rows: int) -> None:
    rng = np.random.default_rng(0)
    queries, gallery = drawn(rng, 12), drawn(rng, 60)
    h = count_relevant(queries, gallery, 12, part_rows, scattered)
    whole = graded_histograms(queries.codes, queries.labels, gallery.codes, gallery.labels, 12)
    np.testing.assert_array_equal(h.counts, whole.counts)
    order = rng.permutation(60)
    np.testing.assert_array_equal(
        count_relevant(queries, gallery[order], 12, part_rows).counts, whole.counts
    )
    with pytest.raises(SchnRayError, match="empty gallery"):
        count_relevant(queries, gallery[:0], 12, part_rows)


# --- controls


def planted(rows: int, noise: float, several: bool = False) -> controls.Sides:
    rng = np.random.default_rng(1)
    classes = [
        sorted(rng.choice(4, rng.integers(1, 3) if several else 1, replace=False).tolist())
        for _ in range(rows)
    ]
    labels = label_matrix(classes, 4)
    directions = np.linalg.qr(rng.normal(size=(8, 8)))[0][:4]
    features = (labels.toarray() @ directions + noise * rng.normal(size=(rows, 8))).astype("f4")
    codes = rng.integers(0, 256, (rows, 2), dtype=np.uint8)
    third = rows // 3
    asked, ranked = (
        LabelledCodes(np.arange(part.stop - part.start), codes[part], labels[part])
        for part in (slice(third, third + 20), slice(third + 20, rows))
    )
    return controls.Sides(
        features[:third],
        labels[:third],
        features[third : third + 20],
        features[third + 20 :],
        asked,
        ranked,
        16,
    )


def classifier_ap(sides: controls.Sides) -> np.ndarray:
    return controls.ranked_ap(controls.classifier_codes(sides, seed=0), sides)


def test_a_classifier_that_is_always_right_ranks_perfectly() -> None:
    assert mean(classifier_ap(planted(300, 0.01))) == 1.0
    assert mean(controls.cosine_ap(planted(300, 0.01))) == pytest.approx(1.0)
    noisy = mean(classifier_ap(planted(300, 3.0)))
    assert 0.2 < noisy < 0.6


def test_a_classifier_of_several_labels_knows_them() -> None:
    found = planted(300, 0.01, several=True)
    predict = controls.linear_classifier(found.train_features, found.train_labels)
    guessed = predict(found.gallery_features).toarray()
    assert np.mean(guessed == found.gallery.labels.toarray()) > 0.97
    assert mean(classifier_ap(found)) > 0.85


def test_a_classifier_of_one_class_is_not_an_error() -> None:
    predict = controls.linear_classifier(np.ones((3, 2), "f4"), label_matrix([[1]] * 3, 4))
    np.testing.assert_array_equal(predict(np.ones((2, 2), "f4")).toarray(), [[0, 1, 0, 0]] * 2)


def test_codewords_differ_by_class_whatever_the_bits() -> None:
    labels = label_matrix([[row % 10] for row in range(30)], 10)
    for bits in (3, 4, 12, 64):  # 3 bits have fewer codes than there are classes
        codes = controls.codewords(labels, bits, seed=0)
        assert codes.shape == (30, -(-bits // 8))
        np.testing.assert_array_equal(codes[:10], codes[10:20])
        assert len(np.unique(codes, axis=0)) == 10 or bits == 3


def test_cosine_without_ties_is_scikit_learns() -> None:
    found = planted(120, 1.0)
    ours = controls.cosine_ap(found)
    asked, ranked = found.query_features, found.gallery_features
    cosines = asked @ ranked.T / np.linalg.norm(asked, axis=1)[:, None]
    cosines /= np.linalg.norm(ranked, axis=1)
    relevant = (found.queries.labels @ found.gallery.labels.T).toarray() > 0
    theirs = [average_precision_score(r, c) for r, c in zip(relevant, cosines, strict=True)]
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_equal_scores_are_ties_and_not_an_order() -> None:
    h = controls.ranked_by(np.array([0.5, 0.5, 0.9]), np.array([True, False, False]))
    np.testing.assert_array_equal(h.all_rows, [[1, 2]])
    assert average_precision(h)[0] == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_scores_without_ties_are_scikit_learns_and_equal_ones_tie() -> None:
    rng = np.random.default_rng(3)
    queries, gallery = drawn(rng, 12), drawn(rng, 300, distinct=500)
    first = np.unique(gallery.codes, axis=0, return_index=True)[1]
    q = rng.normal(size=(12, 12)).astype(np.float32)
    values = rescored.query_ap(q, queries, gallery[first])
    scores = q.astype(np.float64) @ unpack(gallery.codes[first], 12).T
    relevant = (queries.labels @ gallery.labels[first].T).toarray() > 0
    for query in range(12):
        expected = np.nan
        if relevant[query].any():
            expected = average_precision_score(relevant[query], scores[query])
        np.testing.assert_allclose(values[query], expected)
    # if all bits weigh the same, the score is the distance, with all its ties
    signs = unpack(queries.codes, 12)
    np.testing.assert_allclose(rescored.query_ap(signs, queries, gallery), ap_of(queries, gallery))


@pytest.mark.parametrize("candidates", [None, 40, 1000])
def test_cosines_of_candidates_come_before_the_distances_of_others(candidates: int | None) -> None:
    rng = np.random.default_rng(4)
    queries, gallery = drawn(rng, 9), drawn(rng, 300)
    X, Y = rng.normal(size=(9, 5)), rng.normal(size=(300, 5))
    Y[200:] = Y[:100]  # equal vectors tie, and are shared out
    vectors = as_int8(Y)
    values, counts = rescored.vector_ap(X, queries, vectors, gallery, candidates)
    for query in range(9):
        distances = np.bitwise_count(gallery.codes ^ queries.codes[query]).sum(axis=1)
        near = distances <= np.sort(distances)[: candidates or 300][-1]
        assert counts[query] == near.sum()
        scores = vectors @ X[query] / np.linalg.norm(vectors.astype(float), axis=1)
        keys = np.where(near, np.round(scores, 9), -1e3 - distances)
        relevant = (queries.labels[[query]] @ gallery.labels.T).toarray()[0] > 0
        expected = average_precision(controls.ranked_by(keys, relevant))[0]
        np.testing.assert_allclose(values[query], expected)
    assert candidates != 40 or (counts < 300).all()


def test_rescored_figures_stand_apart(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = list[int]()
    features_of = features.features_of
    monkeypatch.setattr(
        features,
        "features_of",
        lambda run, store, rows, **rest: (
            computed.extend(rows.tolist()) or features_of(run, store, rows, **rest)
        ),
    )
    names = ("query", "relaxed", "features")
    drawn_rows = ControlsConfig(train_rows=20, queries=5)
    settings = EvaluateConfig(rescore=names, rescore_candidates=10, controls=drawn_rows)
    evaluate_run(folder / "run", folder / "store", folder / "rescored", settings)
    assert len(computed) == len(set(computed)) > 25  # for rescoring and controls, each row once
    figures = read_figures(folder / "rescored")
    before = read_figures(folder / "run-evaluation")
    assert (figures.map, figures.map_interval) == (before.map, before.map_interval)
    for name, row in zip(names, figures.rescored, strict=True):
        assert (row.by, row.queries, row.gallery) == (name, 5, figures.gallery)
        assert None not in (row.map, row.plain, row.gain)
        assert row.gain.interval.mean == pytest.approx(row.map.mean - row.plain.mean)
    of_query, of_relaxed, _ = figures.rescored
    assert (of_query.candidates, of_relaxed.candidates >= 10) == (None, True)
    text = figures_text(figures)
    assert "rescored by query, 5 queries" in text
    assert f"the nearest {of_relaxed.candidates:,.0f} of each: mAP" in text
    assert before.rescored == ()


def test_random_codes_score_the_share_of_right_rows() -> None:
    found = planted(3000, 1.0)
    score = mean(controls.ranked_ap(controls.random_bits(found, 0), found))
    assert score == pytest.approx(0.25, abs=0.02)


def test_controls_rank_the_very_rows_of_the_model(folder: Path) -> None:
    measured = read_figures(folder / "run-evaluation")
    found = measured.controls
    assert found.model.mean == pytest.approx(measured.map, rel=1e-12)
    assert (found.queries, found.gallery, found.train_rows) == (6, 54, 27)
    gap = found.model.mean - found.classifier.mean
    assert found.model_less_classifier.interval.mean == pytest.approx(gap, rel=1e-9)


# --- pictures and examples


def test_diagrams_are_what_they_say(folder: Path) -> None:
    found, (queries, gallery) = read_plot_data(folder / "run-evaluation"), sides(folder)
    signs = np.unpackbits(gallery.codes, axis=1, bitorder="little", count=12)
    np.testing.assert_allclose(found.bits.balance, signs.mean(axis=0), atol=1e-9)
    with np.errstate(invalid="ignore"):
        expected = np.corrcoef(signs.astype(float).T)
    ours = np.array(found.bits.correlation, dtype=float)
    np.testing.assert_allclose(ours, expected, atol=1e-4)
    pairs = sum(found.distances.similar) + sum(found.distances.dissimilar)
    assert pairs == len(queries) * len(gallery)
    assert sum(found.distances.similar) == (queries.labels @ gallery.labels.T).sum()
    last = {"k": 54, "precision": pytest.approx(1 / 3), "recall": 1.0}
    assert found.at[-1].model_dump() == last
    assert [at.k for at in found.at] == [1, 2, 5, 10, 20, 50, 54]


def test_confusion_is_the_mean_over_all_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagrams, "_NEIGHBOURS", 3)
    codes = np.array([[0], [1], [1], [2], [3], [7]], np.uint8)
    gallery = LabelledCodes(np.arange(6), codes, label_matrix([[0], [0], [1], [2], [0, 2], [1]], 3))
    queries = LabelledCodes(np.arange(1), np.zeros((1, 1), np.uint8), label_matrix([[0]], 3))
    h = distance_histograms(queries.codes, queries.labels, codes, gallery.labels, 8)
    found = diagrams.confusion(queries, gallery, h, ("a", "b", "c"))
    assert found.classes == ("a",)
    weights = gallery.labels.toarray() / gallery.labels.toarray().sum(axis=1, keepdims=True)
    distances = [int(code).bit_count() for code in codes[:, 0]]
    orders = [o for o in itertools.permutations(range(6)) if sorted_by(distances, o)]
    expected = np.mean([weights[list(order[:3])].sum(axis=0) / 3 for order in orders], axis=0)
    assert len(orders) > 1
    assert found.share[0][0] == pytest.approx(expected[0], rel=1e-12)


def sorted_by(distances: list[int], order: tuple[int, ...]) -> bool:
    return all(distances[a] <= distances[b] for a, b in itertools.pairwise(order))


def test_a_map_needs_codes_that_differ() -> None:
    rng = np.random.default_rng(0)
    gallery = drawn(rng, 60)
    names = tuple("abcde")
    placed = diagrams.code_map(gallery, 12, names)
    assert placed is not None
    kept = gallery[np.flatnonzero(np.diff(gallery.labels.indptr))]
    assert sum(placed.rows) == len(kept)
    where = set(zip(placed.x, placed.y, strict=True))
    assert len(where) == len(np.unique(kept.codes, axis=0))
    often = gallery.labels.sum(axis=0)
    rarest = [min(kept.labels[[i]].indices, key=lambda c: often[c]) for i in range(len(kept))]
    for c, name in enumerate(names):
        rows = [n for n, of in zip(placed.rows, placed.classes, strict=True) if of == name]
        assert sum(rows) == rarest.count(c)
    same = replace(gallery, codes=np.zeros_like(gallery.codes))
    assert diagrams.code_map(same, 12, names) is None
    assert diagrams.code_map(gallery[:5], 12, names) is None


def test_examples_are_the_worst_the_best_and_others(folder: Path) -> None:
    found = read_examples(folder / "run-evaluation")
    assert [example.kind for example in found] == ["worst"] * 2 + ["best"] * 2 + ["in between"] * 2
    scores = {
        kind: [e.average_precision for e in found if e.kind == kind]
        for kind in ("worst", "best", "in between")
    }
    assert max(scores["worst"]) <= min(scores["in between"] + scores["best"])
    assert min(scores["best"]) >= max(scores["in between"])
    for example in found:
        distances = [near.distance for near in example.neighbours]
        assert distances == sorted(distances)
        assert len(distances) == 10


def test_neighbours_at_one_distance_are_in_no_order_of_the_store(folder: Path) -> None:
    store, (queries, gallery) = open_store(folder / "store"), sides(folder)
    same = replace(gallery, codes=np.repeat(queries.codes[:1], len(gallery), axis=0))
    ap = np.zeros(len(queries))
    first, again = (examples.examples(store, queries, same, ap, 3) for _ in range(2))
    assert first == again
    labels = [near.labels[0] for e in first for near in e.neighbours]
    assert set(labels) == {"cat", "dog", "owl"}  # the store begins with twenty cats


def test_two_models_show_the_same_other_queries(folder: Path) -> None:
    store, (queries, gallery) = open_store(folder / "store"), sides(folder)
    n = len(queries)
    # the best is the second query or the third, the worst the one before it
    shown = [
        examples.examples(store, queries, gallery, np.roll(np.linspace(1, 0.1, n), by), 3)
        for by in (1, 2)
    ]
    between = [[e.query.id for e in each if e.kind == "in between"] for each in shown]
    assert between[0] == between[1]
    assert shown[0][0].query.id != shown[1][0].query.id


def test_queries_that_the_run_was_trained_on_are_named(folder: Path, tmp_path: Path) -> None:
    """Another store of the same photos has queries that were training rows, by id or copy."""
    photos, other = folder / "photos", tmp_path / "other"
    source = open_source(str(photos), SourceConfig())
    prepare_store(source, PrepareConfig(seed=1), other / "store")
    renamed = {id: f"x{id}" for id in open_store(other / "store").ids.to_pylist()}
    for name, new in renamed.items():
        target = other / "renamed" / name.split("/")[0] / new.replace("/", "-")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((photos / name).read_bytes())
    copies = open_source(str(other / "renamed"), SourceConfig())
    prepare_store(copies, PrepareConfig(seed=1), other / "copies")
    for store, found in (
        ("store", "queries are rows that the run was trained on"),
        ("copies", "queries have an image that the run was trained on"),
    ):
        with pytest.raises(SchnRayError, match=found):
            evaluate_run(folder / "run", other / store, other / "out", EvaluateConfig())
    reported = EvaluateConfig(audit="report", examples=0)
    evaluate_run(folder / "run", other / "copies", other / "out", reported)
    findings = " ".join(read_figures(other / "out").audit.findings)
    assert "was trained on" in findings
