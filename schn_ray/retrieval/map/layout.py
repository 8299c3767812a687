"""A place in the plane for each code, so that neighbours in bits are neighbours there.

The layout is t-SNE of the graph of neighbours (van der Maaten and Hinton, "Visualizing Data using
t-SNE", JMLR 2008; its forces by interpolation on a grid, in time linear in the codes: Linderman et
al., Nature Methods 2019), as openTSNE does it. Each code has one weight for all of its neighbours,
as distances in bits are whole numbers, mostly ties. It begins at the two main directions of the
bits, which keeps the large distances in order. Of many codes, every so many are laid out first; the
others begin where the nearest of these lies, and few more iterations are enough for all (Kobak and
Berens, "The art of using t-SNE for single-cell transcriptomics", Nature Communications 2019).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from schn_ray.core.errors import SchnRayError
from schn_ray.core.progress import Progress
from schn_ray.retrieval.index.scan import Bytes
from schn_ray.retrieval.map.neighbours import nearest_codes

_PACKAGE = "openTSNE"
_FEWEST = 8  # codes; fewer are drawn where they begin
_BY_TREE = 10_000  # codes; for fewer a tree of forces is quicker than a grid
_FIRST = 100_000  # codes that are laid out first, of more than twice as many
_NOISE = 0.05  # deviation, in units of the layout, of codes that begin where another lies
# iterations, exaggeration of the attraction, momentum: first clusters form, then they spread
_PHASES = ((150, 12.0, 0.5), (300, 1.0, 0.8))
_FINE_PHASES = ((20, 4.0, 0.5), (60, 1.0, 0.8))
_REPORTED = 10  # iterations
_AT_ONCE = 1 << 16


def require_layout() -> None:
    """Refuse to begin where openTSNE is missing.

    Raises:
        SchnRayError: with the install line.
    """
    if importlib.util.find_spec(_PACKAGE) is None:
        raise SchnRayError(
            f"a map needs {_PACKAGE}, which is not installed: pip install 'schn-ray[map]'"
        )


def lay_out(
    codes: Bytes, bits: int, neighbours: NDArray[np.int32], seed: int
) -> NDArray[np.float32]:
    """Compute the positions of u codes: float32 [u, 2].

    It runs on one core, so that the same codes and seed give the same positions on a machine.

    Args:
        codes: uint8 [u, ceil(bits / 8)], packed.
        bits: of a code.
        neighbours: int32 [u, k], the nearest other codes of each.
        seed: of the noise that sets equal beginnings apart.

    Raises:
        SchnRayError: openTSNE is not installed.
    """
    require_layout()
    begin = _main_directions(codes, bits)
    begin += np.random.default_rng(seed).normal(0, 0.01, begin.shape)
    if len(codes) < _FEWEST:
        return begin.astype(np.float32)
    if len(codes) < 2 * _FIRST:
        return _optimised(begin * 1e-4, neighbours, _PHASES, seed)
    return _from_first(codes, begin, neighbours, seed)


def _from_first(
    codes: Bytes, begin: NDArray[np.float64], neighbours: NDArray[np.int32], seed: int
) -> NDArray[np.float32]:
    """Lay out every so many of the codes, and then all, each beginning near one of them."""
    first = np.arange(0, len(codes), len(codes) // _FIRST)
    of_first = nearest_codes(np.ascontiguousarray(codes[first]), neighbours.shape[1]).numbers
    positions = _optimised(begin[first] * 1e-4, of_first, _PHASES, seed)
    source = np.full(len(codes), -1)
    source[first] = np.arange(len(first))
    left = np.flatnonzero(source < 0)
    while len(left):
        known = source[neighbours[left]]
        reached = (known >= 0).any(axis=1)
        nearest = known[np.arange(len(left)), (known >= 0).argmax(axis=1)]
        if not reached.any():  # no path of neighbours leads to one of the first
            nearest, reached = first.searchsorted(left, "right") - 1, ~reached
        source[left[reached]] = nearest[reached]
        left = left[~reached]
    noise = np.random.default_rng(seed).normal(0, _NOISE, begin.shape)
    return _optimised(positions[source] + noise, neighbours, _FINE_PHASES, seed)


def _main_directions(codes: Bytes, bits: int) -> NDArray[np.float64]:
    """Project bits onto their first two principal components, the first of deviation 1: [u, 2]."""
    ones = np.zeros(bits)
    products = np.zeros((bits, bits))
    with threadpool_limits(limits=1, user_api="blas"):  # more threads add in another order
        for part in _unpacked(codes, bits):
            ones += part.sum(axis=0)
            products += part.T @ part
        mean = ones / len(codes)
        _, vectors = np.linalg.eigh(products / len(codes) - np.outer(mean, mean))
        main = np.zeros((bits, 2))
        main[:, : min(bits, 2)] = vectors[:, ::-1][:, :2]
        main *= np.where(main[np.abs(main).argmax(axis=0), [0, 1]] < 0, -1, 1)
        begin = np.concatenate([(part - mean) @ main for part in _unpacked(codes, bits)])
    return begin / max(float(begin[:, 0].std()), 1e-12)


def _unpacked(codes: Bytes, bits: int) -> Any:
    for start in range(0, len(codes), _AT_ONCE):
        part = codes[start : start + _AT_ONCE]
        yield np.unpackbits(part, axis=1, count=bits, bitorder="little").astype(np.float64)


def _affinities(neighbours: NDArray[np.int32]) -> scipy.sparse.csr_matrix:
    """Return symmetric weights of pairs of neighbours, which sum to 1."""
    u, k = neighbours.shape
    starts = np.arange(0, u * k + 1, k)
    weights = np.full(u * k, 1 / (2 * u * k))
    graph = scipy.sparse.csr_matrix((weights, neighbours.ravel(), starts), shape=(u, u))
    both = scipy.sparse.csr_matrix(graph + graph.T)
    both.sort_indices()
    return both


def _optimised(
    begin: NDArray[np.float64],
    neighbours: NDArray[np.int32],
    phases: Sequence[tuple[int, float, float]],
    seed: int,
) -> NDArray[np.float32]:
    import openTSNE
    from openTSNE.affinity import PrecomputedAffinities

    positions = openTSNE.TSNEEmbedding(
        begin,
        PrecomputedAffinities(_affinities(neighbours), normalize=False),
        negative_gradient_method="bh" if len(begin) < _BY_TREE else "fft",
        n_jobs=1,
        random_state=seed,
    )
    total = sum(iterations for iterations, _, _ in phases)
    with Progress("laying out", total=total, unit="iterations") as progress:
        for iterations, exaggeration, momentum in phases:
            positions.optimize(
                n_iter=iterations,
                exaggeration=exaggeration,
                momentum=momentum,
                inplace=True,
                callbacks=lambda *_: progress.advance(_REPORTED),
                callbacks_every_iters=_REPORTED,
            )
    return np.asarray(positions, np.float32)
