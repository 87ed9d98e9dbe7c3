"""What a service tells Prometheus: requests, stages, the line, memory and what was made."""

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from upscaler.service import logs
from upscaler.service.backend import UpscaleResult
from upscaler.service.queue import Admission

BUCKETS_S: Final = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
"""From a small picture's decoding to the largest picture on a CPU."""


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(self, admission: Admission, results_bytes: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "upscaler_requests",
            "Requests that were answered, by route, status and model.",
            ("route", "status", "model"),
            registry=self._registry,
        )
        self._request_seconds = Histogram(
            "upscaler_request_seconds",
            "From the first byte of a request to the last of its answer, by route.",
            ("route",),
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._stage_seconds = Histogram(
            "upscaler_stage_seconds",
            "Duration of each stage of an image, by stage and model.",
            ("stage", "model"),
            buckets=BUCKETS_S,
            registry=self._registry,
        )
        self._megapixels = Counter(
            "upscaler_output_megapixels",
            "Millions of pixels that were made, by model.",
            ("model",),
            registry=self._registry,
        )
        self._registry.register(_DroppedLines())
        self._gauge("queue_depth", "Pictures that wait.", lambda: admission.waiting)
        self._gauge("held_bytes", "What all requests hold in memory.", lambda: admission.held_bytes)
        self._gauge(
            "results_bytes",
            "What the results of asynchronous inferences take up in memory.",
            results_bytes,
        )

    def _gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Let `upscaler_name` be whatever `value` says when it is asked for."""
        Gauge(f"upscaler_{name}", meaning, registry=self._registry).set_function(value)

    def answered(self, route: str, status: int, model: str, seconds: float) -> None:
        """Count a request; `route` and `model` must be of a few values, not what clients send."""
        self._requests.labels(route, status, model).inc()
        self._request_seconds.labels(route).observe(seconds)

    def made(self, made: UpscaleResult) -> None:
        """Count a picture."""
        self._megapixels.labels(made.model).inc(made.size[0] * made.size[1] / 1e6)
        for stage, seconds in made.seconds.items():
            self._stage_seconds.labels(stage, made.model).observe(seconds)

    def text(self) -> bytes:
        """All of it, in Prometheus's text format."""
        return generate_latest(self._registry)


class _DroppedLines(Collector):
    """What `logs` counts by itself, for all of the process."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "upscaler_log_lines_dropped",
            "Log lines that were not written.",
            value=logs.dropped(),
        )
