"""Requests that a server has answered, counted for Prometheus."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # seconds


class RequestMetrics:
    """Counts requests by route and status, and their durations; threads may share one object.

    Args:
        gauges: figures that do not change, by name.

    Example:
        >>> metrics = RequestMetrics({"index_rows": 3})
        >>> metrics.count("/search", 200, 0.02)
        >>> print(metrics.text().splitlines()[2])
        schn_ray_requests_total{route="/search",status="200"} 1.0
    """

    def __init__(self, gauges: Mapping[str, float]) -> None:
        # a registry of its own: the default one also has figures of the process and of Ray
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "schn_ray_requests", "Requests.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "schn_ray_request_seconds",
            "Durations of requests.",
            ["route"],
            buckets=_BOUNDS,
            registry=self._registry,
        )
        for name, value in gauges.items():
            Gauge(f"schn_ray_{name}", f"{name}.", registry=self._registry).set(value)

    def count(self, route: str, status: int, seconds: float) -> None:
        """Count one request.

        Args:
            route: that answered it.
            status: of the HTTP response.
            seconds: until the response was complete.
        """
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> str:
        """Return all metrics in the text format that Prometheus reads."""
        return generate_latest(self._registry).decode()
