"""Successive halving with any number of objectives: which trials are stopped at a rung.

With one objective, asynchronous successive halving (ASHA, Li et al., MLSys 2020) lets a trial go
on from a rung if it is among the best 1 / factor of those that have reached it. With several,
trials have no order. Here they are sorted into fronts (Deb et al., NSGA-II, 2002): the first are
those that no other dominates, the second those that only the first dominate, and so on. A trial
goes on if fewer than 1 / factor of the trials at its rung are in fronts before its own. So one that
nobody dominates is never stopped, and the answer depends only on the order in which trials report.
With one objective, a front is a score, and the answers are those of ASHA. Optuna's own pruner gives
them too, but knows one objective, and counts trials that are infeasible or have failed.
"""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, ...]  # one figure an objective; more is better in each


def is_hopeless(point: Point, others: Sequence[Point], factor: int) -> bool:
    """Tell whether a trial should be stopped at a rung.

    Args:
        point: of the trial.
        others: of the other trials that have reached this rung.
        factor: the best 1 / factor go on, and always those that no other dominates.

    Example:
        >>> is_hopeless((0.5, -32), [(0.6, -32), (0.4, -16)], factor=3)
        True
        >>> is_hopeless((0.5, -24), [(0.6, -32), (0.4, -16)], factor=3)
        False
    """
    allowed = max(1, (len(others) + 1) // factor)
    before, rest = 0, [point, *others]
    while True:
        first = [one for one in rest if not any(dominates(other, one) for other in rest)]
        if point in first:
            return before >= allowed
        before += len(first)
        if before >= allowed:
            return True
        rest = [one for one in rest if one not in first]


def dominates(one: Point, other: Point) -> bool:
    """Tell whether one is at least as good as the other in every objective, and better in one.

    Args:
        one: figures; more is better.
        other: of the same objectives.
    """
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))
