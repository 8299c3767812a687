"""How much of all that trials could reach they have reached, with several objectives."""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, ...]


def hypervolume(points: Sequence[Point]) -> float:
    """Return the volume between the origin and points, of which more is better in each part.

    It is that of the union of the boxes from the origin to each point (Zitzler and Thiele, PPSN
    1998), found slice by slice along the last part. A part that is not above 0 has no volume.

    Args:
        points: [n, d], less the reference point.

    Example:
        >>> hypervolume([(2.0, 1.0), (1.0, 3.0)])
        4.0
    """
    inside = sorted({point for point in points if min(point) > 0}, key=lambda point: -point[-1])
    if not inside:
        return 0.0
    if len(inside[0]) == 1:
        return inside[0][0]
    volume = 0.0
    for number, point in enumerate(inside, start=1):
        below = inside[number][-1] if number < len(inside) else 0.0
        if point[-1] > below:
            volume += (point[-1] - below) * hypervolume([one[:-1] for one in inside[:number]])
    return volume
