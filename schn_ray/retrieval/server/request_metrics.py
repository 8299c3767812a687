"""What a service did, counted, in the text format that Prometheus reads."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds


class RequestMetrics:
    """Requests by route and status, and how long they took; threads may share one.

    >>> traffic = RequestMetrics()
    >>> traffic.count("/search", 200, 0.02)
    >>> print(traffic.text({"index_rows": 3}).splitlines()[1])
    schn_ray_requests_total{route="/search",status="200"} 1
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests = Counter[tuple[str, int]]()
        self._places = Counter[tuple[str, int]]()
        self._seconds = Counter[str]()

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        with self._lock:
            self._requests[route, status] += 1
            self._places[route, bisect_left(_BOUNDS, seconds)] += 1
            self._seconds[route] += seconds  # type: ignore[assignment]

    def text(self, gauges: Mapping[str, float]) -> str:
        """Return all counts, and these figures as gauges."""
        with self._lock:
            lines = ["# TYPE schn_ray_requests_total counter"]
            lines += [
                f'schn_ray_requests_total{{route="{route}",status="{status}"}} {count}'
                for (route, status), count in sorted(self._requests.items())
            ]
            lines.append("# TYPE schn_ray_request_seconds histogram")
            for route in sorted(self._seconds):
                lines += self._histogram(route)
        for name, value in gauges.items():
            lines += [f"# TYPE schn_ray_{name} gauge", f"schn_ray_{name} {value}"]
        return "\n".join(lines) + "\n"

    def _histogram(self, route: str) -> list[str]:
        name, total, lines = "schn_ray_request_seconds", 0, []
        for place, bound in enumerate([*map(str, _BOUNDS), "+Inf"]):
            total += self._places[route, place]
            lines.append(f'{name}_bucket{{route="{route}",le="{bound}"}} {total}')
        seconds = self._seconds[route]
        lines += [f'{name}_sum{{route="{route}"}} {seconds:.6f}']
        return [*lines, f'{name}_count{{route="{route}"}} {total}']
