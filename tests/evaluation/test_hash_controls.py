"""Hashes of features as controls: at equal bits, of the very rows, and better than chance."""

import numpy as np
import pytest

from schn_ray.core.bits import pack
from schn_ray.data.labels import label_matrix
from schn_ray.evaluation.hash_controls import hash_controls
from schn_ray.evaluation.metrics.average_precision import average_precision, mean
from schn_ray.evaluation.metrics.histograms import distance_histograms
from schn_ray.evaluation.metrics.recall import RecallRanks, neighbour_recalls


def clustered(rows: int, width: int = 24, seed: int = 0) -> np.ndarray:
    """Return rows around 40 centres that lie in a few directions, far from the origin."""
    centres = np.random.default_rng(7).normal(size=(40, 6)) @ np.random.default_rng(8).normal(
        size=(6, width)
    )
    rng = np.random.default_rng(seed)
    noise = 0.3 * rng.normal(size=(rows, width))
    return (5 + centres[rng.integers(0, 40, rows)] + noise).astype(np.float32)


@pytest.mark.parametrize("bits", [1, 6, 16, 24, 40])  # 40: more than there are dimensions
def test_each_control_has_codes_of_so_many_bits(bits: int) -> None:
    fitted = hash_controls(clustered(300), bits, seed=0)
    assert list(fitted) == ["itq", "pca_rotation", "lsh"]
    for hash in fitted.values():
        assert hash.codes(clustered(50, seed=1)).shape == (50, bits)


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return features and labels of scikit-learn's digits.

    The first 300 are queries; the other 1,497 are the gallery, of which the first 1,000 train.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(1797)
    return data.data[order] / 16, data.target[order]


@pytest.mark.parametrize(
    ("bits", "itq", "lsh"),
    [
        pytest.param(16, 0.610, 0.344, marks=pytest.mark.slow),
        (32, 0.643, 0.476),
        pytest.param(64, 0.677, 0.564, marks=pytest.mark.slow),
    ],
)
def test_the_figures_of_a_prototype_are_reached_on_digits(
    bits: int, itq: float, lsh: float
) -> None:
    """Class mAP, the mean of three seeds, of another implementation on the same rows."""
    features, target = digits()
    labels = label_matrix([[int(c)] for c in target], 10)
    scores: dict[str, list[float]] = {"itq": [], "lsh": []}
    for seed in range(3):
        fitted = hash_controls(features[300:1300], bits, seed)
        for name in scores:
            codes = pack(fitted[name].codes(features))
            h = distance_histograms(codes[:300], labels[:300], codes[300:], labels[300:], bits)
            scores[name].append(mean(average_precision(h)))
    assert np.mean(scores["itq"]) == pytest.approx(itq, abs=0.015)
    assert np.mean(scores["lsh"]) == pytest.approx(lsh, abs=0.03)


def test_itq_finds_more_neighbours_than_random_directions() -> None:
    features, _ = digits()
    fitted = hash_controls(features[300:1300], 32, seed=0)
    sides = features[:300], features[300:]
    codes = {
        name: (pack(hash.codes(sides[0])), pack(hash.codes(sides[1])))
        for name, hash in fitted.items()
    }
    at = RecallRanks(10, 10)
    result = neighbour_recalls(*sides, codes, 32, [at])
    score = {name: mean(values[at]) for name, values in result.items()}
    assert score["itq"] > score["pca_rotation"] > score["lsh"] > 5 * 10 / 1_497


def test_rows_that_are_all_equal_have_no_hash() -> None:
    assert hash_controls(np.full((20, 5), 0.3, np.float32), 8, seed=0) == {}
    assert set(hash_controls(np.eye(5, dtype="f4")[:2], 8, seed=0)) == {
        "itq",
        "pca_rotation",
        "lsh",
    }
