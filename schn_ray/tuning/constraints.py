"""Constraints of a search: figures that a trial must reach, or must not exceed, to be of use.

Optuna 5 has constraints of a trial: numbers that are at most 0 where it is feasible. Its samplers
turn away from what is not (Watanabe and Hutter, c-TPE, IJCAI 2023; NSGA-II: Deb et al., 2002), and
its best trials are feasible ones. Here, each is a bound on one figure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schn_ray.core.errors import SchnRayError, nearest
from schn_ray.tuning.objectives import OBJECTIVES, VALIDATION_MAP

_BOUND = re.compile(r"\s*(<=|>=)\s*(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)\s*")
_LINE = re.compile(r"\s*(\w+)\s*([<>=].*)")


@dataclass(frozen=True)
class Constraint:
    """A bound on one figure of a trial, which a feasible trial may have exactly.

    Attributes:
        figure: a name in ``objectives.OBJECTIVES``.
        at_most: whether the figure may not be more, or not less.
        bound: in the figure's own unit.
    """

    figure: str
    at_most: bool
    bound: float

    def excess(self, figure: float) -> float:
        """Return by how much a figure breaks the bound; 0 or less if it does not.

        >>> Constraint("bits", True, 64).excess(96), Constraint("bits", True, 64).excess(64)
        (32, 0)
        """
        return figure - self.bound if self.at_most else self.bound - figure

    def __str__(self) -> str:
        return f"{self.figure} {'<=' if self.at_most else '>='} {self.bound:g}"


def read_constraint(figure: str, bound: str) -> Constraint:
    """Read a constraint as spaces have it.

    Args:
        figure: its name.
        bound: such as ``"<= 64"``.

    Raises:
        SchnRayError: no such figure, or not a bound.

    Example:
        >>> read_constraint("validation_map", ">= .4").bound
        0.4
    """
    if figure not in OBJECTIVES:
        raise SchnRayError(
            f"constraints: '{figure}' is not measured{nearest(figure, list(OBJECTIVES)) or '.'} "
            f"There are: {', '.join(OBJECTIVES)}"
        )
    match = _BOUND.fullmatch(bound)
    if match is None:
        raise SchnRayError(
            f"constraints: {figure}: got {bound!r}, expected <= or >= and a number, such as '<= 64'"
        )
    constraint = Constraint(figure, match[1] == "<=", float(match[2]))
    if figure == VALIDATION_MAP and constraint.excess(0.0 if constraint.at_most else 1.0) > 0:
        raise SchnRayError(f"constraints: {constraint} cannot be met: it lies between 0 and 1")
    return constraint


def constraint_lines(lines: Sequence[str] | Mapping[str, str] | None) -> dict[str, str]:
    """Return constraints as a space has them.

    Args:
        lines: such as ``["bits <= 64"]`` or ``{"bits": "<= 64"}``; None for none.

    Raises:
        SchnRayError: a line that is not a figure and a bound.

    Example:
        >>> constraint_lines(["bits<=64", "validation_map >= 0.4"])
        {'bits': '<=64', 'validation_map': '>= 0.4'}
    """
    if lines is None or isinstance(lines, Mapping):
        return dict(lines or {})
    matches = {line: _LINE.fullmatch(line) for line in lines}
    for line, match in matches.items():
        if match is None:
            raise SchnRayError(
                f"constraint {line!r}: expected a figure and a bound, such as 'bits <= 64'"
            )
    return {match[1]: match[2] for match in matches.values() if match is not None}


def broken(constraints: Sequence[Constraint], figures: Mapping[str, float]) -> str:
    """Say which constraints figures break; "" if none.

    Args:
        constraints: of the search.
        figures: of a trial; those that it lacks break nothing.

    Example:
        >>> broken([Constraint("bits", True, 64)], {"bits": 96.0})
        'bits 96, not <= 64'
    """
    return "; ".join(
        f"{c.figure} {figures[c.figure]:g}, not {str(c).partition(' ')[2]}"
        for c in constraints
        if c.figure in figures and c.excess(figures[c.figure]) > 0
    )
