"""Figures do not depend on how a gallery is cut, nor on how many workers count it."""

import numpy as np
import pytest

from schn_ray.cluster.map_shards import RayShards
from schn_ray.data.labels import label_matrix
from schn_ray.evaluation.metrics.average_precision import average_precision, average_precision_at
from schn_ray.evaluation.metrics.gallery_histograms import LabelledCodes, count_relevant
from schn_ray.evaluation.metrics.histograms import GradedHistograms, graded_histograms
from schn_ray.evaluation.metrics.ndcg import ndcg_at

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.slow]


def drawn(rows: int, seed: int) -> LabelledCodes:
    rng = np.random.default_rng(seed)
    pool = np.packbits(rng.random((300, 20)) < 0.5, axis=1, bitorder="little")
    labels = [rng.choice(9, rng.integers(0, 4), replace=False).tolist() for _ in range(rows)]
    return LabelledCodes(np.arange(rows), pool[rng.integers(0, 300, rows)], label_matrix(labels, 9))


def figures(h: GradedHistograms) -> np.ndarray:
    at = average_precision_at(h.plain, 30, "hits")
    return np.stack([average_precision(h.plain), at, ndcg_at(h, 30)])


@pytest.mark.parametrize("workers", [1, 2])
def test_fifty_parts_on_any_workers_change_no_figure(workers: int) -> None:
    queries, gallery = drawn(40, 1), drawn(1000, 2)
    h = count_relevant(queries, gallery, 20, 20, RayShards("counting", workers))
    whole = graded_histograms(queries.codes, queries.labels, gallery.codes, gallery.labels, 20)
    np.testing.assert_array_equal(h.counts, whole.counts)
    np.testing.assert_allclose(figures(h), figures(whole), rtol=1e-12, equal_nan=True)
