"""What Prometheus reads: a registry of its own per app, route templates for labels, never an id or a name."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from retrieval.types import GalleryState

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class _GalleryCollector(Collector):
    """Size and delta, read at scrape time."""

    def __init__(self, state: Callable[[], GalleryState | None]) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        state = self._state()
        if state is None:
            return
        yield GaugeMetricFamily("precedent_gallery_cases", "Cases on file", state.size)
        yield GaugeMetricFamily("precedent_gallery_delta", "Cases newer than the live generation", state.delta)
        yield GaugeMetricFamily(
            "precedent_gallery_damaged", "1 when the live generation was damaged", bool(state.damaged)
        )


class Metrics:
    """Counters of one app."""

    def __init__(self, state: Callable[[], GalleryState | None]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_GalleryCollector(state))
        self._requests = Counter(
            "precedent_requests", "HTTP requests", ["method", "route", "status"], registry=self._registry
        )
        self._latency = Histogram(
            "precedent_request_seconds", "Time to answer", ["route"], registry=self._registry, buckets=SECONDS
        )
        self._rejects = Counter("precedent_rejected_inputs", "Refused inputs", ["stage"], registry=self._registry)

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One request is done. ``route`` is the template, so that an id never becomes a label."""
        self._requests.labels(method, route, str(status)).inc()
        self._latency.labels(route).observe(seconds)

    def rejected(self, stage: str) -> None:
        """One input was refused at a stage (sniff, scan, decode, assemble, ...)."""
        self._rejects.labels(stage).inc()

    def text(self) -> bytes:
        """The Prometheus exposition."""
        return generate_latest(self._registry)
