"""Every shallow method: the same head on any number of workers, odd inputs, quality on digits."""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from sklearn.datasets import load_digits
from support.shallow_rows import Array, clustered, multi_label, on_threads, sets_of

from schn_ray.core.bits import pack
from schn_ray.core.errors import SchnRayError
from schn_ray.data.labels import LabelSets, label_matrix
from schn_ray.evaluation.metrics.average_precision import average_precision, mean
from schn_ray.evaluation.metrics.histograms import distance_histograms
from schn_ray.methods.shallow.agh import Agh, AghConfig
from schn_ray.methods.shallow.cosdish import Cosdish, CosdishConfig
from schn_ray.methods.shallow.feature_rows import FeatureRows, array_rows
from schn_ray.methods.shallow.fit import ShallowFit, fit_all
from schn_ray.methods.shallow.hash_function import HashFunction
from schn_ray.methods.shallow.isch import Isch, IschConfig
from schn_ray.methods.shallow.itq import Itq, ItqCca, ItqCcaConfig, ItqConfig
from schn_ray.methods.shallow.ksh import Ksh, KshConfig
from schn_ray.methods.shallow.lfh import Lfh, LfhConfig
from schn_ray.methods.shallow.lsh import Lsh, LshConfig
from schn_ray.methods.shallow.method import as_method
from schn_ray.methods.shallow.ocb import Ocb, OcbConfig
from schn_ray.methods.shallow.pca_rotation import PcaRotation, PcaRotationConfig
from schn_ray.methods.shallow.rabitq import Rabitq, RabitqConfig
from schn_ray.methods.shallow.sdh import Fsdh, FsdhConfig, Sdh, SdhConfig
from schn_ray.methods.shallow.sgh import Sgh, SghConfig
from schn_ray.methods.shallow.sh import Sh, ShConfig
from schn_ray.methods.shallow.ssah import Ssah, SsahConfig

Make = Callable[[int, int], ShallowFit[Any]]


class Case(NamedTuple):
    """A method with few anchors for small problems, with its defaults, and its bar on digits."""

    small: Make
    default: Make
    digits: float  # the prototype's mAP at 32 bits
    margin: float = 0.015


def case(method: Any, config: Any, bar: float, margin: float = 0.015, **small: Any) -> Case:
    return Case(
        lambda bits, seed: method(config(**small), bits, seed),
        lambda bits, seed: method(config(), bits, seed),
        bar,
        margin,
    )


CASES = {
    "lsh": case(Lsh, LshConfig, 0.476, 0.03),
    "pca_rotation": case(PcaRotation, PcaRotationConfig, 0.52),
    "rabitq": case(Rabitq, RabitqConfig, 0.476, 0.03),
    "sh": case(Sh, ShConfig, 0.399, 0.002),
    "itq": case(Itq, ItqConfig, 0.643),
    "agh": case(Agh, AghConfig, 0.791, anchors=25, nearest=4),
    "sgh": case(Sgh, SghConfig, 0.612, anchors=20),
    "ocb": case(Ocb, OcbConfig, 0.602, 0.03, centres=20, rounds=2),
    "itq_cca": case(ItqCca, ItqCcaConfig, 0.886),
    "ksh": case(Ksh, KshConfig, 0.987, anchors=20, rows=40),
    "lfh": case(Lfh, LfhConfig, 0.992, anchors=20, rounds=4),
    "sdh": case(Sdh, SdhConfig, 0.990, anchors=20),
    "fsdh": case(Fsdh, FsdhConfig, 0.989, anchors=20),
    "cosdish": case(Cosdish, CosdishConfig, 0.993, anchors=20, rounds=2, columns=12),
    "ssah": case(Ssah, SsahConfig, 0.990, anchors=20, rounds=3),
    "isch": case(Isch, IschConfig, 0.989, anchors=20, rounds=4),
}
LABELLED = list(CASES)[list(CASES).index("itq_cca") :]

X, _, LABELS = multi_label(n=61)


def bits_of(head: HashFunction) -> list[str]:
    """All numbers of a head, to the bit."""
    arrays = [head.mean, head.W, head.t, head.thresholds]
    if head.map is not None:
        arrays += [head.map.anchors, np.float64(head.map.width)]
    return [array.tobytes().hex() for array in arrays if array is not None]


def result_of(fit: ShallowFit[Any], rows: FeatureRows) -> list[str]:
    """All numbers of a fit's head, and the codes that it solved, to the bit."""
    bits = bits_of(fit_all(fit, rows, LABELS))
    if as_method(type(fit)).solves_codes():
        codes = rows.without_features().gather(lambda _, at: fit.row_codes(at, LABELS), np.int8)
        assert codes.shape == (rows.count, 6)
        bits.append(codes.tobytes().hex())
    return bits


@pytest.mark.parametrize("name", CASES)
def test_the_result_has_the_same_bits_on_any_number_of_workers(name: str) -> None:
    def learn(rows: FeatureRows) -> list[str]:
        return result_of(CASES[name].small(6, 3), rows)

    alone = result_of(CASES[name].small(6, 3), array_rows(X, shard_rows=6))
    for workers in (2, 3):
        assert on_threads(workers, X, 6, learn) == [alone] * workers


@pytest.mark.parametrize("name", CASES)
def test_other_shards_give_the_same_codes(name: str) -> None:
    """Draws do not depend on shards, so only rounding does. In float64 it rarely matters."""
    few, many = (
        fit_all(CASES[name].small(6, 3), array_rows(X, shard_rows=size), LABELS).codes(X)
        for size in (61, 6)
    )
    assert np.mean(few != many) < 0.02


@pytest.mark.parametrize("name", CASES)
def test_a_fit_that_stopped_goes_on_to_the_same_head(name: str) -> None:
    """After each round, a copy of the state without what is made again goes on alone."""
    rows = array_rows(X, shard_rows=6)
    expected = bits_of(fit_all(CASES[name].small(6, 3), rows, LABELS))
    method, round, done = CASES[name].small(6, 3), 1, False
    while not done:
        done = method.fit(rows, LABELS, round)
        round += 1
        if round in (2, 3, 5) and not done:
            method = restarted(method)
    assert bits_of(method.head) == expected


def restarted(method: ShallowFit[Any]) -> ShallowFit[Any]:
    again = copy.copy(method)
    for cached in [name for name in vars(again) if name.startswith("_")]:
        delattr(again, cached)
    again.__dict__ = copy.deepcopy(again.__dict__)
    if hasattr(again, "rotation"):
        again.rotation._V = None
    return again


@pytest.mark.parametrize("name", CASES)
def test_the_seed_decides(name: str) -> None:
    rows = array_rows(X)
    codes = [fit_all(CASES[name].small(6, seed), rows, LABELS).codes(X) for seed in (0, 0, 1)]
    assert np.array_equal(codes[0], codes[1])
    assert np.array_equal(codes[0], codes[2]) == (name == "sh")


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("ssah", "isch", "agh")])
def test_few_rows_few_dimensions_and_a_constant_column_are_no_error(name: str) -> None:
    few, _, labels = clustered(n=20, d=8)
    few[:, 3] = 5
    codes = fit_all(CASES[name].small(32, 0), array_rows(few), labels).codes(few)
    assert codes.shape == (20, 32)
    assert set(np.unique(codes)) == {-1, 1}


@pytest.mark.parametrize("name", CASES)
def test_bad_features_are_refused(name: str) -> None:
    bad = X.copy()
    bad[31, 1] = np.nan
    with pytest.raises(SchnRayError, match="row 31 has a feature that is NaN"):
        CASES[name].small(6, 0).fit(array_rows(bad), LABELS, 1)
    with pytest.raises(SchnRayError, match="rows of features are equal"):
        CASES[name].small(6, 0).fit(array_rows(np.ones_like(X)), LABELS, 1)


@pytest.mark.parametrize("name", CASES)
def test_few_bits_differ_in_float32(name: str) -> None:
    head = fit_all(CASES[name].small(6, 0), array_rows(X), LABELS)
    h = head(X)
    single = copy.copy(head)
    for field in ("mean", "W", "t"):
        object.__setattr__(single, field, getattr(head, field).astype(np.float32))
    different = (h >= 0) != (single(X) >= 0)
    assert different.mean() < 0.01
    assert np.all(np.abs(h[different]) < 1e-4 * np.abs(h).max())


def digits() -> tuple[Array, Array]:
    data = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    return (data.data[order] / 16).astype(np.float32), data.target[order]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_quality_on_digits(name: str) -> None:
    """mAP at 32 bits, mean of three seeds: not below the prototype's by more than its spread."""
    features, classes = digits()
    train, gallery, queries = slice(300, 1300), slice(300, None), slice(0, 300)
    labels: LabelSets = sets_of(np.eye(10)[classes[train]])
    matrix = label_matrix([[c] for c in classes], 10)
    figures = []
    for seed in range(1 if name == "sh" else 3):
        head = fit_all(CASES[name].default(32, seed), array_rows(features[train]), labels)
        codes = head.codes(features)
        histograms = distance_histograms(
            pack(codes[queries]), matrix[queries], pack(codes[gallery]), matrix[gallery], 32
        )
        figures.append(mean(average_precision(histograms)))
    assert np.mean(figures) >= CASES[name].digits - CASES[name].margin
    if name == "sh":
        assert np.mean(figures) == pytest.approx(0.399, abs=0.002)


@pytest.mark.parametrize("name", LABELLED)
def test_labels_are_needed(name: str) -> None:
    with pytest.raises(ValueError, match="without"):
        CASES[name].small(6, 0).fit(array_rows(X), None, 1)
