"""AGH: Anchor Graph Hashing, eigenvectors of a graph that joins rows through anchors.

Liu, Wang, Kumar and Chang, Hashing with Graphs, ICML 2011. The paper's: the graph Z Lambda^-1 Z^T,
whose eigenvectors come from a matrix [m, m], and a second layer that splits each side of an
eigenvector again at the threshold of the least cut. Ours: k-means of ten rounds, anchors without a
row are dropped, and a graph with too few eigenvectors is refused. Later eigenvectors are noise, so
one layer gets worse with more bits; two layers use half as many.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from schn_ray.core.errors import SchnRayError
from schn_ray.core.settings import Count, Searched
from schn_ray.data.labels import LabelSets
from schn_ray.methods.base import Paper
from schn_ray.methods.shallow.anchors import kmeans_anchors
from schn_ray.methods.shallow.feature_rows import Array, FeatureRows, Shard, Sums
from schn_ray.methods.shallow.fit import ShallowConfig, ShallowFit
from schn_ray.methods.shallow.hash_function import HashFunction
from schn_ray.methods.shallow.kernel_features import AnchorGraph, nearest_anchors

_LARGEST, _SMALLEST = 1 - 1e-3, 1e-8  # eigenvalues: above is a part of the graph, below is nothing


class AghConfig(ShallowConfig):
    """Settings of AGH.

    Attributes:
        layers: 1: a bit an eigenvector; 2: two bits an eigenvector.
        anchors: m, centres of k-means that rows are joined through.
        nearest: s, anchors that a row is joined to.
    """

    layers: Annotated[Literal[1, 2], Searched()] = 2
    anchors: Annotated[int, Field(ge=2), Searched(integer=(100, 1000))] = 300
    nearest: Annotated[Count, Searched(integer=(2, 10))] = 5


class Agh(ShallowFit[AghConfig]):
    """W = sqrt(n) Lambda^-1/2 V mu^-1/2 for eigenvectors V of Lambda^-1/2 Z^T Z Lambda^-1/2.

    A code is the sign of z(x) W, and with two layers also of |z(x) W| - theta. Some 14 passes.
    """

    Config = AghConfig
    paper = Paper("Hashing with Graphs", "ICML 2011")

    def fit(self, rows: FeatureRows, labels: LabelSets | None, round: int) -> bool:
        """Do all of it; the first round is the last."""
        prepared = self.prepared(rows, round)
        graph, masses, products = self._graph(prepared)
        directions = self.bits if self.config.layers == 1 else -(-self.bits // 2)
        W = graph_eigenvectors(masses, products, prepared.count, directions)
        self.head = self.linear_head(W, np.zeros(directions), graph)
        if self.config.layers == 2:
            thresholds = second_layer(prepared, graph, W, masses)
            self.head = HashFunction(
                self.mean,
                self.config.unit,
                graph,
                W,
                np.zeros(directions),
                self.bits,
                activation="two_layer",
                thresholds=thresholds,
            )
        return True

    def _graph(self, prepared: FeatureRows) -> tuple[AnchorGraph, Array, Array]:
        """Return the anchor graph, the mass of each anchor [m], and Z^T Z [m, m]."""
        anchors = kmeans_anchors(prepared, self.config.anchors, self.seed)
        nearest = min(self.config.nearest, len(anchors))
        (total,) = prepared.sum(
            lambda X, _: (np.sqrt(nearest_anchors(X, anchors, nearest)[1].max(axis=1)).sum(),)
        )
        sigma = max(float(total) / prepared.count, np.finfo(np.float64).tiny ** 0.5)
        graph = AnchorGraph(anchors, sigma**2, nearest)
        masses, products = prepared.sum(
            lambda X, _: ((Z := graph.sparse(X)).sum(axis=0), (Z.T @ Z).toarray())
        )
        used = masses > 0
        graph = AnchorGraph(anchors[used], sigma**2, min(nearest, int(used.sum())))
        return graph, masses[used], products[np.ix_(used, used)]


def graph_eigenvectors(masses: Array, products: Array, count: int, directions: int) -> Array:
    """Return W [m, k]; columns of Z W are eigenvectors of the graph, of length sqrt(n).

    Args:
        masses: column sums of Z, Lambda [m].
        products: Z^T Z [m, m].
        count: n.
        directions: k, the eigenvectors of the largest eigenvalues below that of a constant.

    Raises:
        SchnRayError: the graph has fewer.
    """
    root = 1 / np.sqrt(masses)
    M = root[:, None] * products * root
    mu, V = np.linalg.eigh((M + M.T) / 2)
    mu, V = mu[::-1], V[:, ::-1]
    usable = (mu < _LARGEST) & (mu > _SMALLEST)
    if usable.sum() < directions:
        raise SchnRayError(
            f"the anchor graph has {usable.sum()} usable eigenvectors of {len(mu)} anchors, and "
            f"{directions} are needed; expected {directions + 2} anchors or more, on rows that "
            "differ. Set method.anchors higher, or bits lower"
        )
    mu, V = mu[usable][:directions], V[:, usable][:, :directions]
    V = V * np.where(V[np.abs(V).argmax(axis=0), np.arange(directions)] >= 0, 1.0, -1.0)
    return np.sqrt(count) * root[:, None] * V / np.sqrt(mu)


def second_layer(rows: FeatureRows, graph: AnchorGraph, W: Array, masses: Array) -> Array:
    """Return the thresholds of |y| for y = z(x) W: where y > 0, and elsewhere [2, k].

    They minimise the graph's cut of the second bit, relaxed, under balance.

    Args:
        rows: prepared features.
        graph: of the rows.
        W: [m, k].
        masses: column sums of Z, Lambda [m].
    """
    n1, s3, l, r = rows.sum(lambda X, _: _side_sums(graph, X, W))  # noqa: E741
    n = rows.count
    r = r / masses
    s1 = np.sum(l * r, axis=1)
    s2 = n1 - np.sum(l * l / masses, axis=1)
    step = (s3 - s1) / s2
    return np.stack([(2 * s3 + (n - n1) * step) / n, (2 * s3 - n1 * step) / n])


def _side_sums(graph: AnchorGraph, X: Shard, W: Array) -> Sums:
    """Return, for each eigenvector: #{y > 0}, sum_{y>0} y, sum_{y>0} z [k, m], sum |y| z [k, m]."""
    Z = graph.sparse(X)
    y = Z @ W
    above = (y > 0).astype(np.float64)
    return above.sum(axis=0), (above * y).sum(axis=0), (Z.T @ above).T, (Z.T @ np.abs(y)).T
