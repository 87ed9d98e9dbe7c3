"""The metrics of a service for Prometheus: requests, stages, queue, memory and output."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from upscaler.service import logs
from upscaler.service.backend import UpscaleResult
from upscaler.service.queue import Admission
from upscaler.settings import KernelUse

BUCKETS_S: Final = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600)
"""From decoding a small image to upscaling the largest one on a CPU."""


class Metrics:
    """The metrics of one service, in a registry of its own."""

    def __init__(
        self,
        admission: Admission,
        results_bytes: Callable[[], int],
        kernels: Callable[[], Iterable[KernelUse]],
    ) -> None:
        # Not the global registry, which refuses a second service in one process, as in tests.
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
            "From the first byte of a request to the last of its response, by route.",
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
            "Megapixels of output, by model.",
            ("model",),
            registry=self._registry,
        )
        self._webhooks = Counter(
            "upscaler_webhooks",
            "Attempts to deliver a webhook, by what became of it: delivered, failed or given_up.",
            ("outcome",),
            registry=self._registry,
        )
        self._registry.register(_DroppedLines())
        self._registry.register(_Kernels(kernels))
        self._gauge("queue_depth", "Jobs that wait.", lambda: admission.waiting)
        self._gauge(
            "held_bytes",
            "Bytes that all requests hold in memory.",
            lambda: admission.held_bytes + admission.held_results_bytes,
        )
        self._gauge(
            "results_bytes",
            "Bytes of the results of asynchronous inferences in memory.",
            results_bytes,
        )

    def _gauge(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """Add the gauge `upscaler_{name}`, which calls `value` whenever it is read."""
        Gauge(f"upscaler_{name}", meaning, registry=self._registry).set_function(value)

    def record_request(self, route: str, status: int, model: str, seconds: float) -> None:
        """Count a request.

        `route` and `model` must have few values, and none that clients choose freely: Prometheus
        keeps a time series for each.
        """
        self._requests.labels(route, status, model).inc()
        self._request_seconds.labels(route).observe(seconds)

    def record_webhook(self, outcome: str) -> None:
        """Count an attempt to deliver a webhook."""
        self._webhooks.labels(outcome).inc()

    def record_result(self, result: UpscaleResult) -> None:
        """Count an upscaled image."""
        self._megapixels.labels(result.model).inc(result.size[0] * result.size[1] / 1e6)
        for stage, seconds in result.seconds.items():
            self._stage_seconds.labels(stage, result.model).observe(seconds)

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self._registry)


class _DroppedLines(Collector):
    """The counter of `logs`, which counts for the whole process."""

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily(
            "upscaler_log_lines_dropped",
            "Log lines that were not written.",
            value=logs.dropped(),
        )


class _Kernels(Collector):
    """How many models have which kernels on each device, which is known once they are loaded."""

    def __init__(self, used: Callable[[], Iterable[KernelUse]]) -> None:
        self._used = used

    def collect(self) -> Iterator[GaugeMetricFamily]:
        models = GaugeMetricFamily(
            "upscaler_models",
            "Models that are loaded, by device and by whose kernels convolve: own, or a library's.",
            labels=("device", "kernels"),
        )
        refused = GaugeMetricFamily(
            "upscaler_kernels_refused",
            "Models whose own kernels failed their check, so that a library's are used, by device.",
            labels=("device",),
        )
        used = list(self._used())
        for device in sorted({each.device for each in used}):
            here = [each for each in used if each.device == device]
            own = sum(each.own for each in here)
            models.add_metric((device, "own"), own)
            models.add_metric((device, "library"), len(here) - own)
            refused.add_metric((device,), sum(each.refused for each in here))
        yield models
        yield refused
